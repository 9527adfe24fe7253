/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HOOK_SEEN_H
#define PYLEAK_HOOK_SEEN_H

#include "carrier.h"
#include "pyleak/asleep.h"

/* That each thread was seen outside of a probe that nobody comes into any more, one after the other, while all go on. */

struct seen_thread {
	pid_t tid;
	bool slept; /* and was seen so, as `asleep` has it */
	struct pl_asleep asleep;
};

struct seen {
	struct seen_thread *items;
	size_t count, capacity;
	size_t next; /* where to look first: lists of threads are in the same order each time */
};

struct seeing {
	struct carrier *carrier;
	const struct pl_probe *probe;
	struct seen seen, before; /* in this round, and in the one before */
	int64_t patience_ns;       /* for each wait of its own */
	struct pl_probe_left left; /* who was not seen outside at last */
};

/* 0; -EAGAIN: some were not, in time: seeing->left is the first of them. */
int see_all_outside(struct seeing *seeing);
/* The same of the routine for errands alone. */
int see_all_outside_of_routine(struct seeing *seeing);
/* Frees what it owns. */
void seeing_free(struct seeing *seeing);

#endif
