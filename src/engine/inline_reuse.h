/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_INLINE_REUSE_H
#define PYLEAK_ENGINE_INLINE_REUSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "inline_memory.h"
#include "inline_read.h"

/*
 * Rows of the recorder's tables that nothing live needs are given back to it, while it goes on: how, and why that is safe,
 * is in inline_abi.h. One sweep is one call, under the claim: it sets rows aside, waits for a grace (tens of milliseconds,
 * no more than INLINE_GRACE_NSEC, in which nobody but the caller waits), and gives away what is proven. What is not stays
 * set aside, which is as good as in use, until a later sweep.
 */
#define INLINE_GRACE_NSEC INT64_C(200000000)

struct inline_reuse {
	/* By the recorder's number of a site, [capacity]. */
	uint32_t *counts; /* blocks allocated, as of the last pass; modulo 2^32 */
	uint8_t *idle;    /* nothing lives, and nothing was allocated between the last two passes */
	uint64_t capacity;
	uint64_t next_code, lost_codes; /* as of the end of the last sweep */
	int64_t next_ns;
	/* For --verbose, and for tests. */
	uint64_t sites, codes, sweeps; /* given back */
	int64_t taken_ns;
};

void inline_reuse_free(struct inline_reuse *reuse);
/* After a pass of the reader. */
void inline_reuse_note(struct inline_reuse *reuse, const struct pl_inline_reader *reader);
/* After that: sweeps, if there is a need and something to gain. */
void inline_reuse_sweep(struct inline_reuse *reuse, struct inline_memory *memory, struct pl_inline_reader *reader,
			bool claimed);
/* So many rows were made since the last pass that there should be one, and a sweep. */
bool inline_reuse_is_pressed(struct inline_memory *memory, const struct pl_inline_reader *reader);

/* -- graces.c: when nobody is on the way with what was set aside ---------------------------------------- */

struct inline_slots {
	struct inline_memory *memory;
	const struct pl_inline_config *config;
	uint32_t *used; /* numbers of slots that a thread has, or had */
	size_t count;
};

/* Which slots there are; to be released in any case. 0 or -errno. */
int inline_slots_look(struct inline_slots *slots, struct inline_memory *memory, const struct pl_inline_config *config);
void inline_slots_free(struct inline_slots *slots);
/* Waits until every thread that is in a hook now has left it. 0; -EAGAIN: not until `deadline_ns`. */
int inline_slots_grace(struct inline_slots *slots, int64_t deadline_ns);
/* Takes those sites out of the caches for which wanted[site] is not 0 (of `count`). How many places led to them, or
 * -errno: 0 after a grace proves that none does. */
int inline_slots_forget(struct inline_slots *slots, const uint8_t *wanted, uint64_t count);
/* What the caches of frames have of code objects for which there was no row. 0 or -errno. */
int inline_slots_forget_lost(struct inline_slots *slots);
/* Those that were allocated at last: clears wanted[site]. 0 or -errno. */
int inline_slots_keep_last(struct inline_slots *slots, uint8_t *wanted, uint64_t count);

#endif
