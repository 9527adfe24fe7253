/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_FUZZ_RANDOM_H
#define PYLEAK_FUZZ_RANDOM_H

#include <stdint.h>

/* Numbers that a seed repeats (xorshift64); state is to be set before, and never 0. */
static uint64_t state;

static uint64_t next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static uint64_t below(uint64_t limit)
{
	return limit ? next() % limit : 0;
}

#endif
