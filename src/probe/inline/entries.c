/* SPDX-License-Identifier: MIT */
#include "record.h"
#include "walk.h"

/*
 * The hooks: what the twelve function words of the allocator tables lead to. Each gets what the
 * original would get and leaves nothing of itself behind: in mode OFF, and for every free, it ends
 * in a jump to the original.
 *
 * Under the main GIL (mem and obj, mode GIL) everything is inlined into the hook; the raw domain and
 * threads without a common GIL share alloc_shared() and free_shared().
 */

typedef void *(*allocate_one)(u64 context, u64 size);
typedef void *(*allocate_two)(u64 context, u64 a, u64 b);
typedef void (*release)(u64 context, u64 pointer);

#define ENTRY_OF(domain, function) ((domain) * PL_INLINE_FUNCTIONS + (function))
/* How far below its outermost hook an inner one can run: the frames of the allocators between. Less
 * than a guard page, so that no neighbouring stack is within it. */
#define NESTED_REACH 2048

inlined void *call_original(u32 entry, u32 function, u64 context, u64 a, u64 b)
{
	u64 original = pl_config.original[entry];

	return function == PL_INLINE_MALLOC ? ((allocate_one)original)(context, a) : ((allocate_two)original)(context, a, b);
}

inlined u64 requested(u32 function, u64 a, u64 b)
{
	return function == PL_INLINE_MALLOC ? a : function == PL_INLINE_CALLOC ? a * b : b;
}

/* The self-referential word that tells the tracer that this thread will return into the code. */
struct marker {
	volatile u64 word;
};
inlined void marker_set(struct marker *marker) { marker->word = PL_INLINE_MARKER ^ (u64)&marker->word; }
inlined void marker_wipe(struct marker *marker) { marker->word = 0; }

/* A block that realloc was given and could not move is still there. */
static cold void put_back(u64 address, struct taken taken)
{
	u32 *entry;
	struct pl_inline_odd *odd;

	if (address & 15 && !((address & 15) == 8 && taken.size > 16)) {
		odd = pl_odd_insert(address);
		if (odd) {
			odd->entry = taken.entry;
			odd->size = (u32)taken.size;
			return;
		}
	} else {
		entry = granule_make((address + 8) & ~(u64)15);
		if (entry) {
			*entry = taken.entry | (address & 15 ? PL_INLINE_ENTRY_ODD : 0);
			if (ENTRY_SIZE(taken.entry) == PL_INLINE_SIZE_SPILLED)
				pl_spill_write((address + 8) & ~(u64)15, taken.size);
			return;
		}
	}
	count_freed(ENTRY_SITE(taken.entry), taken.size, false);
	count_up(&control()->lost_events);
}

/* The state of the running thread if it holds its GIL, else 0. */
inlined u64 current_thread(void)
{
	return pl_config.thread_current ? *(const volatile u64 *)pl_config.thread_current :
					  thread_word(pl_config.thread_tls);
}

/* Another interpreter than last time. One with a GIL of its own ends the mode of one GIL: its threads
 * and ours run side by side from now on. The plain totals stay ours: nobody adds to them any more
 * but a thread of ours that is under way at this moment. */
static cold bool interpreter_shares(struct pl_inline_slot *slot, u64 interpreter)
{
	if (LAYOUT->interpreter_gil >= 0 && load64(interpreter, LAYOUT->interpreter_gil) != pl_config.gil) {
		__atomic_store_n(&control()->mode, (u32)PL_INLINE_THREADS, __ATOMIC_RELEASE);
		return false;
	}
	slot->interpreter = interpreter;
	return true;
}

/* The GIL went to another thread: its own slot learns the thread state, for the raw domain. */
static cold void thread_changed(struct pl_inline_slot *slot, u64 thread)
{
	struct pl_inline_slot *own = pl_thread_slot();

	if (own)
		own->thread = thread;
	slot->thread = thread;
}

/* The raw domain may run with the GIL or without. The state of the thread if it has the GIL; never a
 * look into the state of a thread that may be another's and about to be freed. */
static u64 raw_thread(void)
{
	struct pl_inline_slot *own;
	u64 thread = current_thread();

	if (!thread || !pl_config.thread_current)
		return thread;
	if (pl_config.thread_own)
		return thread_word(pl_config.thread_own) == thread ? thread : 0;
	own = pl_thread_slot();
	return own && own->thread == thread && load64(thread, LAYOUT->thread_id) == thread_pointer() ? thread : 0;
}

static __attribute__((noinline)) void *alloc_shared(u32 entry, u64 context, u64 a, u64 b)
{
	u32 function = entry % PL_INLINE_FUNCTIONS, mode = control()->mode, site = PL_INLINE_SITE_UNKNOWN;
	struct pl_inline_slot *slot = slot_zero();
	struct taken old = {0, 0};
	struct marker marker;
	u64 thread, size;
	void *result;

	if (mode == PL_INLINE_THREADS)
		slot = pl_thread_slot();
	if (slot && slot->outer - (u64)&marker < NESTED_REACH)
		return call_original(entry, function, context, a, b);
	marker_set(&marker);
	/* In mode GIL the raw domain does not own slot 0; it calls no other hook either. */
	if (mode == PL_INLINE_THREADS && slot)
		slot->outer = (u64)&marker;
	if (function == PL_INLINE_REALLOC && a)
		old = take(a);
	result = call_original(entry, function, context, a, b);
	if (mode == PL_INLINE_THREADS && slot)
		slot->outer = 0;
	if (!result) {
		if (old.entry)
			put_back(a, old);
		goto out;
	}
	if (old.entry)
		count_freed(ENTRY_SITE(old.entry), old.size, false);
	thread = mode == PL_INLINE_THREADS ? current_thread() : raw_thread();
	if (thread && mode == PL_INLINE_GIL && pl_config.gil) {
		u64 interpreter = load64(thread, LAYOUT->thread_interpreter);

		if (interpreter != slot->interpreter && !interpreter_shares(slot, interpreter))
			slot = pl_thread_slot();
	}
	if (thread && slot)
		site = trace(slot, thread);
	else if (thread)
		count_up(&control()->untraced);
	size = requested(function, a, b);
	record((u64)result, size, site, false);
out:
	marker_wipe(&marker);
	return result;
}

inlined void *alloc_hook(const u32 domain, const u32 function, u64 context, u64 a, u64 b)
{
	const u32 entry = ENTRY_OF(domain, function);
	u32 mode = __atomic_load_n(&control()->mode, __ATOMIC_RELAXED), site;
	struct pl_inline_slot *slot = slot_zero();
	struct taken old = {0, 0};
	struct marker marker;
	void *result;
	u64 thread;

	if (unlikely(mode != PL_INLINE_GIL || domain == PL_INLINE_RAW)) {
		if (mode == PL_INLINE_OFF)
			return call_original(entry, function, context, a, b);
		return alloc_shared(entry, context, a, b);
	}
	thread = current_thread();
	if (unlikely(!thread))
		return alloc_shared(entry, context, a, b);
	if (pl_config.gil) {
		u64 interpreter = load64(thread, LAYOUT->thread_interpreter);

		if (unlikely(interpreter != slot->interpreter) && !interpreter_shares(slot, interpreter))
			return alloc_shared(entry, context, a, b);
	}
	if (unlikely(slot->outer))
		return call_original(entry, function, context, a, b);
	if (unlikely(slot->thread != thread))
		thread_changed(slot, thread);
	marker_set(&marker);
	slot->outer = (u64)&marker;
	if (function == PL_INLINE_REALLOC && a)
		old = take(a);
	result = call_original(entry, function, context, a, b);
	slot->outer = 0;
	if (unlikely(!result)) {
		if (old.entry)
			put_back(a, old);
	} else {
		if (function == PL_INLINE_REALLOC && old.entry)
			count_freed(ENTRY_SITE(old.entry), old.size, true);
		site = trace(slot, thread);
		record((u64)result, requested(function, a, b), site, true);
	}
	marker_wipe(&marker);
	return result;
}

/* Not in the map. The inner free of a pair (the raw one below obj, with PYTHONMALLOC=debug 16 bytes
 * lower) is no unknown block: the outer one has just taken it out. */
static cold void free_unknown(u32 domain, u64 pointer)
{
	struct pl_inline_slot *slot = control()->mode == PL_INLINE_THREADS ? pl_thread_slot() : slot_zero();

	if (slot && domain == PL_INLINE_RAW && slot->last_freed - pointer <= 64)
		return;
	count_up(&control()->freed_unknown);
}

static __attribute__((noinline)) void free_shared(u32 domain, u64 pointer)
{
	struct taken old = take(pointer);
	struct pl_inline_slot *slot;

	if (old.entry)
		count_freed(ENTRY_SITE(old.entry), old.size, false);
	else
		free_unknown(domain, pointer);
	if (domain != PL_INLINE_RAW && control()->mode == PL_INLINE_THREADS) {
		slot = pl_thread_slot();
		if (slot)
			slot->last_freed = pointer;
	}
}

inlined void free_hook(const u32 domain, u64 context, u64 pointer)
{
	u32 mode = __atomic_load_n(&control()->mode, __ATOMIC_RELAXED);
	struct taken old;

	if (likely(pointer)) {
		if (unlikely(mode != PL_INLINE_GIL || domain == PL_INLINE_RAW)) {
			if (mode != PL_INLINE_OFF)
				free_shared(domain, pointer);
		} else {
			old = take(pointer);
			if (likely(old.entry))
				count_freed(ENTRY_SITE(old.entry), old.size, true);
			else
				free_unknown(domain, pointer);
			slot_zero()->last_freed = pointer;
		}
	}
	((release)pl_config.original[ENTRY_OF(domain, PL_INLINE_FREE)])(context, pointer);
}

#define HOOKS(name, domain)                                                                                    \
	void *pl_##name##_malloc(u64 context, u64 size);                                                       \
	void *pl_##name##_calloc(u64 context, u64 count, u64 size);                                            \
	void *pl_##name##_realloc(u64 context, u64 pointer, u64 size);                                         \
	void pl_##name##_free(u64 context, u64 pointer);                                                       \
	void *pl_##name##_malloc(u64 context, u64 size)                                                        \
	{                                                                                                      \
		return alloc_hook(domain, PL_INLINE_MALLOC, context, size, 0);                                  \
	}                                                                                                      \
	void *pl_##name##_calloc(u64 context, u64 count, u64 size)                                             \
	{                                                                                                      \
		return alloc_hook(domain, PL_INLINE_CALLOC, context, count, size);                              \
	}                                                                                                      \
	void *pl_##name##_realloc(u64 context, u64 pointer, u64 size)                                          \
	{                                                                                                      \
		return alloc_hook(domain, PL_INLINE_REALLOC, context, pointer, size);                           \
	}                                                                                                      \
	void pl_##name##_free(u64 context, u64 pointer)                                                        \
	{                                                                                                      \
		free_hook(domain, context, pointer);                                                           \
	}

HOOKS(raw, PL_INLINE_RAW)
HOOKS(mem, PL_INLINE_MEM)
HOOKS(obj, PL_INLINE_OBJ)
