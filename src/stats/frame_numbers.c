/* SPDX-License-Identifier: MIT */
#include "pyleak/frame_numbers.h"

#include <stdbool.h>
#include <stdlib.h>

#define FIRST_CAPACITY 1024

/* The strings of one set of sites are interned: equal ones have one address. */
static bool equal(const void *context, uint32_t item, const void *wanted)
{
	const struct pl_frame_numbers *numbers = context;
	const struct pl_frame *a = &numbers->items[item], *b = wanted;

	return a->filename == b->filename && a->function == b->function && a->line == b->line;
}

static uint64_t hash(const struct pl_frame *frame)
{
	return pl_hash(pl_hash((uint64_t)frame->line, (uint64_t)(uintptr_t)frame->filename),
		(uint64_t)(uintptr_t)frame->function);
}

static bool grow(struct pl_frame_numbers *numbers)
{
	size_t capacity = numbers->capacity ? 2 * numbers->capacity : FIRST_CAPACITY;
	struct pl_frame *items = reallocarray(numbers->items, capacity, sizeof(*items));

	if (!items)
		return false;
	numbers->items = items;
	numbers->capacity = capacity;
	return true;
}

uint32_t pl_frame_number_find(const struct pl_frame_numbers *numbers, const struct pl_frame *frame)
{
	return pl_index_find(&numbers->index, hash(frame), equal, numbers, frame);
}

uint32_t pl_frame_number(struct pl_frame_numbers *numbers, const struct pl_frame *frame)
{
	uint32_t found = pl_frame_number_find(numbers, frame);

	if (found != UINT32_MAX)
		return found;
	if (numbers->count >= UINT32_MAX - 1 || (numbers->count == numbers->capacity && !grow(numbers)) ||
		!pl_index_add(&numbers->index, hash(frame), (uint32_t)numbers->count))
		return UINT32_MAX;
	numbers->items[numbers->count] = *frame;
	return (uint32_t)numbers->count++;
}

void pl_frame_numbers_free(struct pl_frame_numbers *numbers)
{
	free(numbers->items);
	pl_index_free(&numbers->index);
	*numbers = (struct pl_frame_numbers){0};
}
