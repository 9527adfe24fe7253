/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_STACK_SAMPLES_H
#define PYLEAK_ENGINE_STACK_SAMPLES_H

#include "pyleak/stats.h"
#include "pyleak/table.h"

/*
 * Which native stack a site is shown with: some of its allocations were seen with theirs, and of these some still
 * live. It is the stack that most of the living have: a function that allocates and frees all the time does not
 * hide the one behind the same line that forgets. A few of each site are kept, the dead replaced first.
 */
enum { STACK_SAMPLES_KEPT = 8 };

struct stack_sample {
	uint64_t block;
	uint32_t stack; /* number in the sites */
	bool live;
};

struct sampled {
	uint64_t key; /* what the engine calls the site by */
	struct stack_sample samples[STACK_SAMPLES_KEPT];
	uint8_t count, next;
	/* The engine's own: when it wants to see more of the site, how much of it lived when it last did, and how often
	 * it allocates. */
	bool growing;
	uint32_t pause, generation; /* of the row */
	int64_t again_ns;
	uint64_t live_size, count_then, often;
};

struct stack_samples {
	struct sampled *items;
	size_t count, capacity;
	struct pl_table index; /* key + 1 to item + 1 */
};

void stack_samples_free(struct stack_samples *samples);
/* The entry of a site; NULL: out of memory, or too many. The address holds until the next one is made. */
struct sampled *stack_samples_find(struct stack_samples *samples, uint64_t key);
void stack_samples_add(struct sampled *site, uint64_t block, uint32_t stack);
size_t stack_samples_living(const struct sampled *site);
/* The stack of most of the living, or where none lives of most of all; UINT32_MAX: there is none. */
uint32_t stack_samples_choose(const struct sampled *site);

#endif
