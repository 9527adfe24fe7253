/* SPDX-License-Identifier: MIT */
#include "pyleak/frame_numbers.h"

#include <stdbool.h>
#include <stdlib.h>

#define FIRST_CAPACITY 1024

/* The strings of one set of sites are interned: equal ones have one address. */
static bool equal(const struct pl_frame *a, const struct pl_frame *b)
{
	return a->filename == b->filename && a->function == b->function && a->line == b->line;
}

static uint64_t hash(const struct pl_frame *frame)
{
	uint64_t hash = (uint64_t)(uintptr_t)frame->filename;

	hash = (hash ^ hash >> 29) * UINT64_C(0x9e3779b97f4a7c15) ^ (uint64_t)(uintptr_t)frame->function;
	hash = (hash ^ hash >> 29) * UINT64_C(0x9e3779b97f4a7c15) ^ (uint64_t)frame->line;
	hash *= UINT64_C(0x9e3779b97f4a7c15);
	return hash ^ hash >> 32;
}

static uint32_t *find(const struct pl_frame_numbers *numbers, const struct pl_frame *frame)
{
	size_t mask = 2 * numbers->capacity - 1;
	size_t i = hash(frame) & mask;

	while (numbers->index[i] && !equal(&numbers->items[numbers->index[i] - 1], frame))
		i = (i + 1) & mask;
	return &numbers->index[i];
}

static bool grow(struct pl_frame_numbers *numbers)
{
	size_t capacity = numbers->capacity ? 2 * numbers->capacity : FIRST_CAPACITY;
	struct pl_frame *items = reallocarray(numbers->items, capacity, sizeof(*items));
	uint32_t *index = calloc(2 * capacity, sizeof(*index));

	if (items)
		numbers->items = items;
	if (!items || !index) {
		free(index);
		return false;
	}
	free(numbers->index);
	numbers->index = index;
	numbers->capacity = capacity;
	for (size_t i = 0; i < numbers->count; i++)
		*find(numbers, &items[i]) = (uint32_t)i + 1;
	return true;
}

uint32_t pl_frame_number(struct pl_frame_numbers *numbers, const struct pl_frame *frame)
{
	uint32_t *found = numbers->capacity ? find(numbers, frame) : NULL;

	if (found && *found)
		return *found - 1;
	if (numbers->count >= UINT32_MAX - 1 || (numbers->count == numbers->capacity && !grow(numbers)))
		return UINT32_MAX;
	numbers->items[numbers->count] = *frame;
	*find(numbers, frame) = (uint32_t)numbers->count + 1;
	return (uint32_t)numbers->count++;
}

uint32_t pl_frame_number_find(const struct pl_frame_numbers *numbers, const struct pl_frame *frame)
{
	return numbers->capacity ? *find(numbers, frame) - 1 : UINT32_MAX;
}

void pl_frame_numbers_free(struct pl_frame_numbers *numbers)
{
	free(numbers->items);
	free(numbers->index);
	*numbers = (struct pl_frame_numbers){0};
}
