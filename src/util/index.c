/* SPDX-License-Identifier: MIT */
#include "pyleak/index.h"

#include <stdlib.h>

#define FIRST_CAPACITY 256

struct pl_index_slot {
	uint32_t hash;
	uint32_t item; /* + 1; 0: free */
};

uint32_t pl_index_find(const struct pl_index *index, uint64_t hash, pl_index_equal *equal, const void *context,
	const void *wanted)
{
	size_t i = hash & index->mask;

	if (!index->slots)
		return UINT32_MAX;
	for (; index->slots[i].item; i = (i + 1) & index->mask)
		if (index->slots[i].hash == (uint32_t)hash && equal(context, index->slots[i].item - 1, wanted))
			return index->slots[i].item - 1;
	return UINT32_MAX;
}

static void put(struct pl_index *index, struct pl_index_slot slot)
{
	size_t i = slot.hash & index->mask;

	while (index->slots[i].item)
		i = (i + 1) & index->mask;
	index->slots[i] = slot;
}

static bool grow(struct pl_index *index, size_t capacity)
{
	struct pl_index larger = {
		.slots = calloc(capacity, sizeof(*larger.slots)), .count = index->count, .mask = capacity - 1};

	if (!larger.slots)
		return false;
	for (size_t i = 0; index->slots && i <= index->mask; i++)
		if (index->slots[i].item)
			put(&larger, index->slots[i]);
	free(index->slots);
	*index = larger;
	return true;
}

bool pl_index_reserve(struct pl_index *index, size_t count)
{
	size_t capacity = index->slots ? index->mask + 1 : FIRST_CAPACITY;

	/* Full to a half: linear probing stays short. */
	while (capacity < 2 * count)
		capacity *= 2;
	return (index->slots && capacity == index->mask + 1) || grow(index, capacity);
}

bool pl_index_add(struct pl_index *index, uint64_t hash, uint32_t item)
{
	if (!pl_index_reserve(index, index->count + 1))
		return false;
	put(index, (struct pl_index_slot){(uint32_t)hash, item + 1});
	index->count++;
	return true;
}

void pl_index_free(struct pl_index *index)
{
	free(index->slots);
	*index = (struct pl_index){0};
}
