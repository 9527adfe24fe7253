/* SPDX-License-Identifier: MIT */
#include "record.h"
#include "walk.h"

/*
 * The tracer of references: see struct pl_inline_free_lists. It calls nothing but what it replaced,
 * by a jump, so it needs no marker.
 */

typedef int (*tracer)(u64 object, u32 event, u64 data);

enum { EVENT_CREATE = 0 }; /* PyRefTracer_CREATE */

/* Where the block of an object begins (_PyType_PreHeaderSize in pycore_object.h of 3.13 to 3.15). */
inlined u64 block_of(u64 object)
{
	enum { MANAGED_WEAKREF = 1 << 3, MANAGED_DICT = 1 << 4, HAVE_GC = 1 << 14 };
	u64 flags = load64(load64(object, LAYOUT->object_type), LAYOUT->type_flags);

	if (flags & (MANAGED_WEAKREF | MANAGED_DICT))
		object -= 16;
	if (flags & HAVE_GC && !pl_config.free_threaded)
		object -= 16;
	return object;
}

/* The block's line is the one that gets it now. */
static __attribute__((noinline)) void charge(struct pl_inline_slot *slot, u64 thread, u64 block, enum adder adder)
{
	u32 *entry = granule(block), old, site;
	u64 size, busy;

	if (block & 15 || !entry)
		return;
	old = *entry;
	size = ENTRY_SIZE(old);
	/* No list has blocks as large as those whose size is spilled. */
	if (!ENTRY_SITE(old) || old & (PL_INLINE_ENTRY_ODD | PL_INLINE_ENTRY_CODE) || size == PL_INLINE_SIZE_SPILLED)
		return;
	/* As in slot_enter() of thread.h. */
	busy = slot->busy;
	slot->busy = stack_pointer();
	site = trace(slot, thread, 0, 0) & ~PL_TRACE_STACK;
	if (site != ENTRY_SITE(old)) {
		*entry = entry_make(site, size);
		count_allocated(site, size, adder);
		count_freed(ENTRY_SITE(old), size, adder);
	}
	__atomic_store_n(&slot->busy, busy, __ATOMIC_RELEASE);
}

inlined void created(u64 object)
{
	u32 mode = __atomic_load_n(&control()->mode, __ATOMIC_RELAXED);
	u64 thread = current_thread(true), block;
	struct pl_inline_slot *slot;

	if (unlikely((mode != PL_INLINE_GIL && mode != PL_INLINE_THREADS) || !thread))
		return;
	slot = mode == PL_INLINE_GIL ? slot_zero() : pl_thread_slot();
	if (unlikely(!slot))
		return;
	/* The first allocation of an interpreter decides what it shares. */
	if (mode == PL_INLINE_GIL && unlikely(load64(thread, LAYOUT->thread_interpreter) != slot->interpreter))
		return;
	block = block_of(object);
	/* Once only: a list may give the block out again before anything else is allocated. */
	if (likely(block == slot->last_made)) {
		slot->last_made = 0;
		return;
	}
	charge(slot, thread, block, mode == PL_INLINE_GIL ? PLAIN : adder_without_gil());
}

int pl_created(u64 object, u32 event, u64 data);
int pl_created(u64 object, u32 event, u64 data)
{
	if (event == EVENT_CREATE)
		created(object);
	return pl_config.free_lists.tracer ? ((tracer)pl_config.free_lists.tracer)(object, event, data) : 0;
}
