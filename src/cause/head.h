/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CAUSE_HEAD_H
#define PYLEAK_CAUSE_HEAD_H

#include "pyleak/causes.h"

/* The decorators of the function that a frame is in and its "def", on one line, as "@functools.lru_cache(maxsize=None)
 * def text(self):". Found by looking upwards from the frame's line, so not if the file has changed since it was run,
 * and decorators of several lines count with the one that is above. The caller frees it; NULL: not found. */
char *function_head(const struct pl_frame *frame, pl_causes_source source, void *context);

#endif
