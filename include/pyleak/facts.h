/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_FACTS_H
#define PYLEAK_FACTS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "pyleak/account.h"

/*
 * What there is to know of a recording beside its sites and snapshots, in the one form that every room has it in: an
 * engine says it, sessions, recordings in files, reports and the live view carry it on. By value, borrows nothing.
 */
struct pl_facts {
	pid_t pid;       /* of several processes: the first one's, like all that follows but rss and account */
	char python[32]; /* "3.11.2" */
	char engine[16]; /* "inline", "breakpoint" */
	int frames;      /* kept for each allocation */
	uint64_t sample; /* bytes for each sample; 0: every allocation is recorded */
	uint64_t tables; /* bytes that --tables allows them; 0: by default */
	bool native;     /* native allocators are recorded */
	int64_t since_ns; /* when it began, on the clock of its snapshots */
	struct timespec started; /* the same, CLOCK_REALTIME */
	/* When the recording began, without what pyleak takes; of several: the sum. Of a probe that was adopted before it was
	 * planted, without the size classes. */
	uint64_t rss; /* bytes; 0: not known */
	struct pl_account account;
};

/* What a recording has missed, so far or within a window. */
struct pl_losses {
	uint64_t events; /* allocations and frees that are in none of the figures */
	uint64_t sites;  /* allocations that are counted, but not where */
	/* Frees by native allocators of blocks that were there before the recording began; bytes as far as they are
	 * known. */
	uint64_t freed_before_count, freed_before_size;
	/* Frees that no hook saw, found by the marks of the C library; they are in the figures. */
	uint64_t freed_unseen_count, freed_unseen_size;
	/* Tracebacks of which only the innermost frame was kept, because the recorder's tables had reached their limit. */
	uint64_t shortened;
	/* A state, and not a number of anything: since they are at their limit in spite of that, one allocation for so many bytes
	 * on average is recorded, and what was allocated since is an estimate. 0: not. */
	uint64_t sampling;
};
/* Adds those of another process. A process can claim anything: sums stop at the limit of their type. */
void pl_losses_add(struct pl_losses *sum, const struct pl_losses *one);
/* What came since `before`; never less than nothing. NULL: since the start. */
struct pl_losses pl_losses_since(const struct pl_losses *now, const struct pl_losses *before);

#endif
