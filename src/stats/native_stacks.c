/* SPDX-License-Identifier: MIT */
#include "native_stacks.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY 64
/* Some 100 MiB at most: a process that goes wild makes others all the time. What comes then has no native frames. */
#define STACKS_MAX (1U << 16)

struct kept_stack {
	const struct pl_native_line *lines; /* in the arena */
	uint32_t count;
	bool more;
};

static uint64_t hash_lines(const struct pl_native_line *lines, size_t count, bool more)
{
	uint64_t hash = pl_hash(count, more);

	for (size_t i = 0; i < count; i++) {
		hash = pl_hash(hash, (uint64_t)(uintptr_t)lines[i].module);
		hash = pl_hash(hash, (uint64_t)(uintptr_t)lines[i].frame.filename);
		hash = pl_hash(hash, (uint64_t)(uintptr_t)lines[i].frame.function);
		hash = pl_hash(hash, (uint64_t)lines[i].frame.line);
	}
	return hash;
}

static bool equal(const void *context, uint32_t item, const void *wanted)
{
	const struct native_stacks *stacks = context;
	const struct kept_stack *a = &stacks->items[item], *b = wanted;

	if (a->count != b->count || a->more != b->more)
		return false;
	for (size_t i = 0; i < a->count; i++)
		if (a->lines[i].module != b->lines[i].module || a->lines[i].frame.filename != b->lines[i].frame.filename ||
			a->lines[i].frame.function != b->lines[i].frame.function ||
			a->lines[i].frame.line != b->lines[i].frame.line)
			return false;
	return true;
}

static bool grow(struct native_stacks *stacks)
{
	size_t capacity = stacks->capacity ? 2 * stacks->capacity : FIRST_CAPACITY;
	struct kept_stack *items = reallocarray(stacks->items, capacity, sizeof(*items));

	if (!items)
		return false;
	stacks->items = items;
	stacks->capacity = capacity;
	return true;
}

uint32_t native_stacks_intern(struct native_stacks *stacks, struct arena *arena, const struct pl_native_line *lines,
	size_t count, bool more)
{
	struct kept_stack wanted = {.lines = lines, .count = (uint32_t)count, .more = more};
	uint64_t hash = hash_lines(lines, count, more);
	uint32_t found = pl_index_find(&stacks->index, hash, equal, stacks, &wanted);
	struct pl_native_line *copy;

	assert(count <= PL_NATIVE_FRAMES_MAX);
	if (found != UINT32_MAX)
		return found;
	if (stacks->count >= STACKS_MAX || (stacks->count == stacks->capacity && !grow(stacks)))
		return UINT32_MAX;
	copy = arena_take(arena, (count + !count) * sizeof(*copy));
	if (!copy || !pl_index_add(&stacks->index, hash, (uint32_t)stacks->count))
		return UINT32_MAX;
	memcpy(copy, lines, count * sizeof(*copy));
	wanted.lines = copy;
	stacks->items[stacks->count] = wanted;
	return (uint32_t)stacks->count++;
}

const struct pl_native_line *native_stacks_lines(
	const struct native_stacks *stacks, uint32_t stack, size_t *ret_count, bool *ret_more)
{
	assert(stack < stacks->count);
	*ret_count = stacks->items[stack].count;
	if (ret_more)
		*ret_more = stacks->items[stack].more;
	return stacks->items[stack].lines;
}

void native_stacks_free(struct native_stacks *stacks)
{
	free(stacks->items);
	pl_index_free(&stacks->index);
	*stacks = (struct native_stacks){0};
}
