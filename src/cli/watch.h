/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_WATCH_H
#define PYLEAK_CLI_WATCH_H

#include "targets.h"

/*
 * The recorder's memory counts where the process's own does, and a limit that is reached kills the process. To be called
 * as often as one likes: how soon is really looked again depends on how soon the rest could be gone (20 ms to 1 s).
 *
 * 0; -ECANCELED: less than the floor is left (see headroom.h). No recorder records any more, err says why, and finishing
 * removes them all, kept ones too.
 */
int pl_watch_headroom(struct pl_targets *targets, struct pl_error *err);

#endif
