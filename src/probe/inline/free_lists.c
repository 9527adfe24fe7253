/* SPDX-License-Identifier: MIT */
#include "probe.h"

/*
 * Deallocators of types that park freed blocks: see struct pl_inline_free_lists. Each entry ends in a
 * jump to the original, so that nothing of ours stays on a stack while an object's items are released;
 * what needs the copied types meanwhile is counted.
 */

typedef void (*destroy)(u64 object);
typedef void (*release)(u64 context, u64 pointer);

#define LISTS (&pl_config.free_lists)

/* Whether this thread holds the main GIL and runs the interpreter whose lists are known. */
inlined bool is_main(void)
{
	u64 thread;

	if (!LISTS->interpreter)
		return true;
	thread = current_thread(true);
	return likely(thread) && load64(thread, pl_config.layout.thread_interpreter) == LISTS->interpreter;
}

/* An object comes and goes in one interpreter: both counts are zero when none is under way. */
inlined void count_inside(bool main, u32 change)
{
	u32 *inside = (u32 *)LISTS->inside;

	if (likely(main))
		__atomic_store_n(inside, __atomic_load_n(inside, __ATOMIC_RELAXED) + change, __ATOMIC_RELAXED);
	else
		(void)__atomic_fetch_add(inside + 1, change, __ATOMIC_RELAXED);
}

/* Reset by a full collection. Negative once the interpreter is shut down (3.13). */
inlined bool floats_are_parked(void)
{
	return LISTS->float_count && *(const u32 *)LISTS->float_count < LISTS->float_bias;
}

inlined void bias_floats(void)
{
	*(u32 *)LISTS->float_count += LISTS->float_bias;
}

inlined bool anything_is_parked(void)
{
	return *(const u64 *)LISTS->float_head | *(const u32 *)LISTS->keys_count | *(const u32 *)LISTS->context_count |
	       *(const u64 *)LISTS->slice_cache;
}

/* By the allocator's own table, which leads to our hook: the block is taken out of the map. */
static void free_keys(void)
{
	const u64 *table = (const u64 *)LISTS->keys_table;
	int32_t *count = (int32_t *)LISTS->keys_count;

	while (*count > 0 && (u32)*count <= LISTS->keys_limit) {
		(*count)--;
		((release)table[4])(table[0], ((const u64 *)LISTS->keys_list)[*count]);
	}
}

static void free_contexts(void)
{
	int32_t *count = (int32_t *)LISTS->context_count;
	u64 *head = (u64 *)LISTS->context_head;

	while (*count > 0 && (u32)*count <= LISTS->context_limit && *head) {
		u64 context = *head, *link = (u64 *)(context + LISTS->context_link);

		*head = *link;
		*link = 0;
		(*count)--;
		((destroy)LISTS->context_free)(context);
	}
}

/* All of them, which is no more than the bias: the list is closed. */
static void free_floats(void)
{
	u64 *head = (u64 *)LISTS->float_head;

	for (u32 i = 0; *head && i < LISTS->float_bias; i++) {
		u64 object = *head;

		*head = load64(object, pl_config.layout.object_type);
		((destroy)LISTS->type[PL_INLINE_FLOAT].free)(object);
	}
	*(u32 *)LISTS->float_count = LISTS->float_bias;
}

/* None of these functions calls anything that could come back to us but for the hooks of the allocators. The
 * caller is counted inside. */
static cold void free_parked(void)
{
	u64 slice = *(u64 *)LISTS->slice_cache;

	free_keys();
	free_contexts();
	if (slice) {
		*(u64 *)LISTS->slice_cache = 0;
		((destroy)LISTS->slice_free)(slice);
	}
	if (*(const u64 *)LISTS->float_head && LISTS->type[PL_INLINE_FLOAT].free)
		free_floats();
}

inlined void type_dealloc(u32 type, u64 object, bool park)
{
	if (likely(load64(object, pl_config.layout.object_type) == LISTS->type[type].type) && !park) {
		bool main = is_main();

		*(u64 *)(object + (u64)pl_config.layout.object_type) = LISTS->type[type].copy;
		if (likely(main) && unlikely(floats_are_parked()))
			bias_floats();
		count_inside(main, 1);
	}
	((destroy)LISTS->type[type].dealloc)(object);
}

/* The tp_free of the copies. */
inlined void type_free(u32 type, u64 object)
{
	bool main = is_main();

	*(u64 *)(object + (u64)pl_config.layout.object_type) = LISTS->type[type].type;
	if (likely(main)) {
		if (unlikely(floats_are_parked()))
			bias_floats();
		if (unlikely(anything_is_parked()))
			free_parked();
	}
	count_inside(main, (u32)-1);
	((destroy)LISTS->type[type].free)(object);
}

#define TYPE(name, type)                               \
	void pl_type_free_##name(u64 object);        \
	void pl_type_free_##name(u64 object)         \
	{                                              \
		type_free(type, object);               \
	}                                              \
	void pl_type_dealloc_##name(u64 object);     \
	void pl_type_dealloc_##name(u64 object)

TYPE(list, PL_INLINE_LIST)
{
	type_dealloc(PL_INLINE_LIST, object, false);
}

/* A watcher is given the dict, whose type must be its own, and may keep it. */
TYPE(dict, PL_INLINE_DICT)
{
	u32 watched = LISTS->dict_watched_mask;

	type_dealloc(PL_INLINE_DICT, object, watched && load32(object, (int32_t)LISTS->dict_watched_offset) & watched);
}

/* The empty tuple is one for all, and from 3.11 on its deallocator leaves it as it is. */
TYPE(tuple, PL_INLINE_TUPLE)
{
	type_dealloc(PL_INLINE_TUPLE, object, !load64(object, pl_config.layout.object_type + 8));
}

/* Where the count is known the original frees by itself. */
TYPE(float, PL_INLINE_FLOAT)
{
	if (LISTS->float_count && is_main()) {
		if (unlikely(floats_are_parked()))
			bias_floats();
		((destroy)LISTS->type[PL_INLINE_FLOAT].dealloc)(object);
		return;
	}
	type_dealloc(PL_INLINE_FLOAT, object, false);
}
