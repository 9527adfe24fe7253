/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HOOK_ERRAND_H
#define PYLEAK_HOOK_ERRAND_H

#include "carrier.h"
#include "seen.h"

/*
 * Has words of the process changed by its own threads (struct pl_probe_errand), one after the other: as many errands as that
 * takes, in the order of the rows, and the thread is let go after each. Results are in `result` of the rows; a row whose word
 * is not mapped any more has PL_PROBE_ERRAND_TRYING. It begins with errand_settle(). 0 or -errno.
 */
int errand_run(struct carrier *carrier, const struct pl_probe *probe, struct pl_probe_errand_row *rows, size_t count);

/*
 * A thread that a pyleak has sent, and that died since or lost patience, may be at it still, or not have begun: what it is told
 * must not be changed under it. Waits until none is. 0; -EAGAIN: one is.
 */
int errand_settle(struct seeing *seeing);
/* The same, for half a second: before anything is written that such a thread goes by. */
int errand_await(struct carrier *carrier, const struct pl_probe *probe);

#endif
