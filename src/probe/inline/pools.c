/* SPDX-License-Identifier: MIT */
#include "native.h"

/*
 * The hooks of arrow::MemoryPool, whose functions are words of vtables (engine/arrow_pools.c says which):
 *
 *   Status Allocate(int64_t size, int64_t alignment, uint8_t **out)
 *   Status Reallocate(int64_t old_size, int64_t new_size, int64_t alignment, uint8_t **block)
 *   void Free(uint8_t *block, int64_t size, int64_t alignment)
 *
 * A Status is given in memory whose address is the first argument: a pointer, null where all is well. `this` is the second,
 * of Free the first. Blocks of no bytes are all at one place of the pool's, and are not recorded. What the pool itself takes
 * from the C library is within its hook. None of them throws.
 */

#define SIX (u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)

static __attribute__((noinline)) u64 allocate_marked(u64 a, u64 b, u64 c, u64 d, u64 e, u32 entry)
{
	struct pl_inline_slot *own = thread_slot();
	struct marker marker;
	u64 result = call_long(own, a, b, c, d, e, 0, entry, &marker);

	if (likely(!load64(result, 0)))
		pl_record_native(own, load64(e, 0), c, CALLER, FRAME);
	marker_wipe(&marker);
	return result;
}

inlined u64 allocate(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, u32 entry)
{
	struct pl_inline_slot *own;

	if (likely(c && is_armed())) {
		own = thread_slot();
		if (!is_nested(own) && is_wanted(own, c))
			return allocate_marked(a, b, c, d, e, entry);
	}
	return ((long_function)ORIGINAL(entry))(a, b, c, d, e, f);
}

/* A block of this size that is not in the map is from before the probe, or not of the sample. */
static cold void freed_before(const struct pl_inline_slot *own, u64 size)
{
	if (sampling() || is_nested(own))
		return;
	count_up(&control()->freed_native);
	(void)__atomic_fetch_add(&control()->freed_native_size, size, __ATOMIC_RELAXED);
}

static __attribute__((noinline)) u64 reallocate_marked(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
	/* The entry is in the high half of the alignment's word: seven arguments do not fit into registers. */
	const u32 entry = (u32)(e >> 32);
	struct pl_inline_slot *own = thread_slot();
	const bool wanted = d && is_wanted(own, d);
	const u64 block = load64(f, 0);
	struct taken old = {0, 0};
	struct marker marker;
	u64 result;

	marker_set(&marker);
	if (c) {
		old = take(block);
		if (!old.entry)
			freed_before(own, c);
	}
	result = call_long(own, a, b, c, d, (u32)e, f, entry, &marker);
	if (likely(!load64(result, 0))) {
		if (old.entry)
			count_native_freed(own, old);
		if (wanted)
			pl_record_native(own, load64(f, 0), d, CALLER, FRAME);
	} else if (old.entry) {
		pl_put_back(block, old);
	}
	marker_wipe(&marker);
	return result;
}

inlined u64 reallocate(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, u32 entry)
{
	if (likely(is_armed()) && !is_nested(thread_slot()) &&
		likely(!(e >> 32)))
		return reallocate_marked(a, b, c, d, e | (u64)entry << 32, f);
	return ((long_function)ORIGINAL(entry))(a, b, c, d, e, f);
}

static __attribute__((noinline)) void forget(u64 block, u64 size)
{
	struct pl_inline_slot *own = thread_slot();
	struct taken old = take(block);

	if (likely(old.entry))
		count_native_freed(own, old);
	else
		freed_before(own, size);
	/* The C library's free(), which some pools end in, has nothing to find. */
	if (own)
		own->last_freed = block;
}

inlined u64 release(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, u32 entry)
{
	if (likely(c && is_armed()))
		forget(b, c);
	return ((long_function)ORIGINAL(entry))(a, b, c, d, e, f);
}

#define ENTRY(kind, number) (PL_INLINE_FIRST_##kind + (number))
#define HOOK(name, number)                                                                                             \
	u64 pl_native_##name##_##number SIX;                                                                           \
	u64 pl_native_##name##_##number SIX

#define ALLOCATE(n) HOOK(pool_allocate, n) { return allocate(a, b, c, d, e, f, ENTRY(POOL_ALLOCATE, n)); }
#define REALLOCATE(n) HOOK(pool_reallocate, n) { return reallocate(a, b, c, d, e, f, ENTRY(POOL_REALLOCATE, n)); }
#define FREE(n) HOOK(pool_free, n) { return release(a, b, c, d, e, f, ENTRY(POOL_FREE, n)); }
#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5)

EACH(ALLOCATE)
EACH(REALLOCATE)
EACH(FREE)
