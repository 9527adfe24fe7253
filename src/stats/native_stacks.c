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
	const struct pl_native_thread *thread; /* in the arena; NULL: nothing is known of it */
	uint32_t count;
	bool more;
};

static uint64_t hash_frame(uint64_t hash, const struct pl_frame *frame)
{
	hash = pl_hash(hash, (uint64_t)(uintptr_t)frame->filename);
	hash = pl_hash(hash, (uint64_t)(uintptr_t)frame->function);
	return pl_hash(hash, (uint64_t)frame->line);
}

static uint64_t hash_line(uint64_t hash, const struct pl_native_line *line)
{
	return hash_frame(pl_hash(hash, (uint64_t)(uintptr_t)line->module), &line->frame);
}

static uint64_t hash_stack(const struct kept_stack *stack)
{
	uint64_t hash = pl_hash(stack->count, stack->more);

	for (size_t i = 0; i < stack->count; i++)
		hash = hash_line(hash, &stack->lines[i]);
	if (!stack->thread)
		return hash;
	hash = hash_line(pl_hash(hash, (uint64_t)(uintptr_t)stack->thread->name), &stack->thread->begins);
	return hash_frame(hash, &stack->thread->meanwhile);
}

static bool same_frame(const struct pl_frame *a, const struct pl_frame *b)
{
	return a->filename == b->filename && a->function == b->function && a->line == b->line;
}

static bool same_line(const struct pl_native_line *a, const struct pl_native_line *b)
{
	return a->module == b->module && same_frame(&a->frame, &b->frame);
}

static bool same_thread(const struct pl_native_thread *a, const struct pl_native_thread *b)
{
	if (!a || !b)
		return a == b;
	return a->name == b->name && same_line(&a->begins, &b->begins) && same_frame(&a->meanwhile, &b->meanwhile);
}

static bool equal(const void *context, uint32_t item, const void *wanted)
{
	const struct native_stacks *stacks = context;
	const struct kept_stack *a = &stacks->items[item], *b = wanted;

	if (a->count != b->count || a->more != b->more || !same_thread(a->thread, b->thread))
		return false;
	for (size_t i = 0; i < a->count; i++)
		if (!same_line(&a->lines[i], &b->lines[i]))
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
	size_t count, bool more, const struct pl_native_thread *thread)
{
	const bool known = thread->name || thread->begins.module || thread->meanwhile.filename;
	struct kept_stack wanted = {.lines = lines, .count = (uint32_t)count, .more = more, .thread = known ? thread : NULL};
	uint64_t hash = hash_stack(&wanted);
	uint32_t found = pl_index_find(&stacks->index, hash, equal, stacks, &wanted);
	struct pl_native_thread *thread_copy = NULL;
	struct pl_native_line *copy;

	assert(count <= PL_NATIVE_FRAMES_MAX);
	if (found != UINT32_MAX)
		return found;
	if (stacks->count >= STACKS_MAX || (stacks->count == stacks->capacity && !grow(stacks)))
		return UINT32_MAX;
	copy = arena_take(arena, (count + !count) * sizeof(*copy));
	if (known)
		thread_copy = arena_take(arena, sizeof(*thread_copy));
	if (!copy || (known && !thread_copy) || !pl_index_add(&stacks->index, hash, (uint32_t)stacks->count))
		return UINT32_MAX;
	memcpy(copy, lines, count * sizeof(*copy));
	wanted.lines = copy;
	if (known)
		*thread_copy = *thread;
	wanted.thread = thread_copy;
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

const struct pl_native_thread *native_stacks_thread(const struct native_stacks *stacks, uint32_t stack)
{
	assert(stack < stacks->count);
	return stacks->items[stack].thread;
}

void native_stacks_free(struct native_stacks *stacks)
{
	free(stacks->items);
	pl_index_free(&stacks->index);
	*stacks = (struct native_stacks){0};
}
