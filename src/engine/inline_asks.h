/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_INLINE_ASKS_H
#define PYLEAK_ENGINE_INLINE_ASKS_H

#include "inline_read.h"
#include "pyleak/table.h"
#include "stack_samples.h"

/*
 * Which sites of Python's own allocators are asked for native stacks. Of the C library's the recorder takes one by itself
 * from each site; Python's are far more, and most of what they allocate the interpreter does itself. So the tracer asks: for
 * the largest of those that grow, some at each review. Asked is by a word of `skips` and by a byte of the slots' caches, which
 * makes them miss once (inline_abi.h has how); what was asked and never came does no harm.
 */
enum { INLINE_ASKS_AT_ONCE = 16 };
struct inline_asks {
	uint64_t *live; /* by the recorder's number: as it was at the last review */
	size_t capacity;
	struct pl_table wanted; /* number + 1: the caches are to forget it */
};
void inline_asks_free(struct inline_asks *asks);
/* Sites that grow and that are not in `samples` get an entry there: some. */
void inline_asks_choose(struct inline_asks *asks, const struct pl_inline_reader *reader, struct stack_samples *samples);
/* How a site is asked: what is to be written to its word of `skips`. */
uint16_t inline_asks_add(struct inline_asks *asks, uint64_t site, uint64_t random);
/* Makes the caches forget those that were asked; memory_fd: /proc/PID/mem. */
void inline_asks_send(struct inline_asks *asks, const struct pl_inline_reader *reader, pid_t pid, int memory_fd);

static inline bool inline_asks_is_pythons(const struct pl_inline_reader *reader, uint64_t site)
{
	return site >= PL_INLINE_SITE_FIRST && site < reader->known && reader->local[site] != UINT32_MAX &&
	       pl_sites_domain(reader->sites, reader->local[site]) == PL_SITE_PYTHON;
}

#endif
