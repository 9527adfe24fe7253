/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_STATS_STRINGS_H
#define PYLEAK_STATS_STRINGS_H

#include "arena.h"
#include "pyleak/index.h"

/* A set of texts, so that names are compared by their address. */
struct strings {
	const char **items;
	size_t count, capacity;
	struct pl_index index;
};

/* The copy in the arena, made if there was none. NULL: out of memory. */
const char *strings_intern(struct strings *strings, struct arena *arena, const char *text);
void strings_free(struct strings *strings);

#endif
