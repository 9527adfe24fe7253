/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_HELD_VIEW_H
#define PYLEAK_CLI_HELD_VIEW_H

#include "pyleak/live.h"
#include "targets.h"

/*
 * Who keeps the row that is opened in the live view, when its key is pressed: the process is stopped for a moment, as
 * --holders does it, which the view waits for; the graph is made by a thread of its own, while the view goes on.
 */
struct held_view;
struct held_view *held_view_new(struct pl_targets *targets, int64_t most_ns); /* NULL: out of memory */
/* Between two looks at the process. */
void held_view_look(struct held_view *view, struct pl_live *live);
/* Waits for the thread: after the process has been let go, and before the targets are closed. NULL is allowed. */
void held_view_free(struct held_view *view);

#endif
