/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_STATS_STRINGS_H
#define PYLEAK_STATS_STRINGS_H

#include <stddef.h>
#include <stdint.h>

#include "arena.h"

/* A set of texts, so that names are compared by their address. */
struct strings {
	struct strings_entry *entries;
	size_t count;
	size_t mask; /* capacity − 1; 0 while there is no storage */
};

/* The copy in the arena, made if there was none. NULL: out of memory. */
const char *strings_intern(struct strings *strings, struct arena *arena, const char *text);
void strings_free(struct strings *strings);

/* One step of a hash over words. */
static inline uint64_t hash_mix(uint64_t hash, uint64_t word)
{
	hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
	return hash ^ hash >> 32;
}

#endif
