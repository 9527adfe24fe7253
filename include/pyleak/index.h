/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_INDEX_H
#define PYLEAK_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The index of items that are numbered from 0 on and kept elsewhere, by what they are: texts, frames, sites, rows, so
 * that each is there once. Open addressing with linear probing; nothing is ever removed (table.h is for that).
 */
struct pl_index {
	struct pl_index_slot *slots;
	size_t count;
	size_t mask; /* capacity − 1; 0 while there is no storage */
};

/* One step of a hash over words: begin with any number. */
static inline uint64_t pl_hash(uint64_t hash, uint64_t word)
{
	hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
	return hash ^ hash >> 32;
}

/* Whether the item is the wanted one; asked of those with its hash. */
typedef bool pl_index_equal(const void *context, uint32_t item, const void *wanted);

/* The item; UINT32_MAX: there is none. Of the hash the lower half is used. */
uint32_t pl_index_find(const struct pl_index *index, uint64_t hash, pl_index_equal *equal, const void *context,
		       const void *wanted);
/* An item that is not there yet, below UINT32_MAX. False: out of memory. */
bool pl_index_add(struct pl_index *index, uint64_t hash, uint32_t item);
/* Makes room for so many in all, so that none of them is moved. False: out of memory. */
bool pl_index_reserve(struct pl_index *index, size_t count);
void pl_index_free(struct pl_index *index);

#endif
