/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_TABLE_H
#define PYLEAK_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A hash table from a 64-bit key to two 64-bit values, for the tracer's side: live blocks, code
 * objects, frames. Open addressing with linear probing and no tombstones: a removal moves later
 * entries back, so that a table which sees 20 million blocks come and go does not decay.
 * The key 0 is not allowed. Pointers to values hold until the next insertion or removal.
 */
struct pl_table_entry {
	uint64_t key;
	uint64_t value[2];
};

struct pl_table {
	struct pl_table_entry *entries;
	size_t count;
	size_t mask; /* capacity − 1; 0 while there is no storage */
};

/* The entry of key, or NULL. */
struct pl_table_entry *pl_table_find(const struct pl_table *table, uint64_t key);
/* The entry of key, made with zero values if there was none; NULL: out of memory. */
struct pl_table_entry *pl_table_insert(struct pl_table *table, uint64_t key);
/* Takes the entry out; *ret (may be NULL) gets a copy. False if there was none. */
bool pl_table_remove(struct pl_table *table, uint64_t key, struct pl_table_entry *ret);
void pl_table_free(struct pl_table *table);

#endif
