/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_STATS_ARENA_H
#define PYLEAK_STATS_ARENA_H

#include <stddef.h>

/* Memory that is taken piece by piece and given back all at once: names and traces never go away
 * while their sites exist. */
struct arena {
	struct arena_chunk *chunks;
	char *next;
	size_t left;
};

/* Aligned for any pointer; not cleared. NULL: out of memory. */
void *arena_take(struct arena *arena, size_t size);
void arena_free(struct arena *arena);

#endif
