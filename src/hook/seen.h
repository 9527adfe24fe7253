/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HOOK_SEEN_H
#define PYLEAK_HOOK_SEEN_H

#include "carrier.h"

/*
 * Sees each thread of a process outside of a probe once, one after the other, while the process runs: see quiescent.c. A
 * running thread is held for that, for moments.
 */
enum seen_where {
	SEEN_OUTSIDE,            /* of the probe */
	SEEN_OUTSIDE_OF_ERRANDS, /* of its routine for errands alone */
};

/* 0; -EAGAIN: some were not seen there in time. */
int seen_all(struct carrier *carrier, const struct pl_probe *probe, enum seen_where where, int64_t give_up);

#endif
