/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_STATS_NATIVE_STACKS_H
#define PYLEAK_STATS_NATIVE_STACKS_H

#include "arena.h"
#include "pyleak/index.h"
#include "pyleak/stats.h"

/* The distinct native stacks of a set of sites, numbered from 0 on. There are as many as there are ways through
 * native code: few beside the sites. */
struct native_stacks {
	struct kept_stack *items;
	size_t count, capacity;
	struct pl_index index;
};

/* UINT32_MAX: out of memory. */
uint32_t native_stacks_intern(struct native_stacks *stacks, struct arena *arena, const struct pl_native_line *lines,
			      size_t count, bool more, const struct pl_native_thread *thread);
/* NULL: nothing is known of it. */
const struct pl_native_thread *native_stacks_thread(const struct native_stacks *stacks, uint32_t stack);
const struct pl_native_line *native_stacks_lines(const struct native_stacks *stacks, uint32_t stack, size_t *ret_count,
						 bool *ret_more);
void native_stacks_free(struct native_stacks *stacks);

#endif
