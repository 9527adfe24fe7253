/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_INLINE_LIMIT_H
#define PYLEAK_ENGINE_INLINE_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "inline_give.h"
#include "inline_memory.h"
#include "inline_read.h"

/*
 * How much memory of the process the recorder's tables may take: what --tables says, else half of what the process has
 * itself, and 48 MiB in any case, but no more than half of what its cgroup or the machine has left. A part follows what is
 * live and cannot be less without losing blocks: the map. What is left of the limit is for rows of tracebacks, and the
 * recorder is told how many that is: beyond it tracebacks that are new are cut to their innermost frame, of which there are
 * few, until rows are given back (inline_reuse.h). If the tables then grow beyond the limit all the same, it is by the map:
 * what it has of a peak that is over is given back (inline_give.h), and if that is not enough, from then on the recorder takes samples, at first one allocation for each 512 KiB, and four times as rarely whenever they
 * have grown by a 32nd again. What is in the map stays exact, so there is no way back: what lives of the time between would
 * be freed unknown.
 */
struct inline_limit {
	uint64_t bytes;  /* as it is now; 0: never looked */
	uint64_t tables; /* memory that they took when that was looked at */
	uint64_t next_site; /* rows then */
	uint64_t next_chunk; /* of the map, then */
	uint64_t sampled_at; /* memory that they took when the rate was written */
	int64_t next_ns;
	bool pressed;   /* they are beyond the limit … */
	uint64_t looks; /* … and that is how often was looked for empty chunks by then */
	bool said; /* that tracebacks were cut: once */
};
enum { INLINE_LIMIT_LEAST = 48 << 20 };

/* How many rows of sites there may be, if the tables take so much memory and have so many rows now. Pure. */
uint64_t inline_limit_sites(uint64_t limit, uint64_t tables, uint64_t sites, uint64_t frame_words);
/* The rate to be written, as in the mode, if the tables take so much; 0: it stays. `cut`: tracebacks are. `sampled_at`:
 * what they took when the rate that is in force was written; 0: that is not known. Pure. */
uint32_t inline_limit_rate(uint64_t limit, uint64_t tables, uint64_t sampled_at, uint32_t sampling, uint64_t given, bool cut);
/* Bytes for each sample, if it was the limit that made the recorder sample so; else 0. As of the last pass. */
uint64_t inline_limit_sampling(const struct pl_inline_reader *reader);
/* After a pass of the reader. `claimed`: the process is this pyleak's. */
void inline_limit_look(struct inline_limit *limit, struct inline_memory *memory, const struct pl_inline_reader *reader,
		       struct inline_give *give, bool claimed);

#endif
