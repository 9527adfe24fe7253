/* SPDX-License-Identifier: MIT */
#include "record.h"
#include "thread.h"

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

#define CALLER ((u64)__builtin_return_address(0))
#define ENTRY_OF(domain, function) ((domain)*PL_INLINE_FUNCTIONS + (function))

inlined void *call_original(u32 entry, u32 function, u64 context, u64 a, u64 b)
{
	u64 original = pl_config.original[entry];

	return function == PL_INLINE_MALLOC ? ((allocate_one)original)(context, a)
					    : ((allocate_two)original)(context, a, b);
}

inlined u64 requested(u32 function, u64 a, u64 b)
{
	return function == PL_INLINE_MALLOC ? a : function == PL_INLINE_CALLOC ? a * b : b;
}

/* Another interpreter than last time. One with a GIL of its own ends the mode of one GIL: its threads
 * and ours run side by side from now on. The plain totals stay ours: nobody adds to them any more
 * but a thread of ours that is under way at this moment. */
static cold bool interpreter_shares(struct pl_inline_slot *slot, u64 interpreter)
{
	if (LAYOUT->interpreter_gil >= 0 && load64(interpreter, LAYOUT->interpreter_gil) != pl_config.gil) {
		/* Its own byte: the tracer writes others. */
		__atomic_store_n((u8 *)&control()->mode + 1, PL_INLINE_MANY >> 8, __ATOMIC_RELEASE);
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

/* The site of what this thread allocates outside of the GIL. */
static cold u32 detached_site(struct pl_inline_slot *own, u64 salt)
{
	struct pl_inline_slot *slot = claim(own);
	bool reading;
	u64 thread = detached_begin(slot, &reading);
	u32 site = thread ? trace(slot, thread, salt, 0) : pl_trace_nowhere(salt, 0);

	detached_end(slot, reading);
	if (slot)
		slot->busy = 0;
	return site & ~PL_TRACE_STACK;
}

/* realloc() of a block that is not in the map: what it had is gone, and what it has is this line's. */
static cold void older_moved(u32 site, u64 size, bool plain)
{
	count_up(&control()->freed_unknown);
	pl_older_freed(site, size, plain);
}

/* What alloc_shared() decided: the mode may change meanwhile, and with it whose slot 0 is. `taken`: by what rate, of a sample;
 * with none, and a mode that samples, it is not wanted. */
enum { DECIDED_WANTED = 1 << 9, DECIDED_TAKEN_SHIFT = 16 };
#define DECIDED(entry, mode, taken)                                                                                    \
	((entry) | ((mode)&PL_INLINE_MANY) | (pl_inline_sampling(mode) && !(taken) ? 0 : DECIDED_WANTED) |             \
		(taken) << DECIDED_TAKEN_SHIFT)

/* The block of a site whose stack is wanted. `frame` is the hook's, which the allocator was called by: what leads there are
 * jumps. */
static cold u32 record_with_stack(u64 block, u64 size, u32 found, enum adder adder, u64 caller, u64 frame)
{
	const u32 site = found & ~PL_TRACE_STACK;
	const struct pl_inline_slot *own = pl_thread_slot();

	record(block, size, site, adder);
	if (own)
		pl_stack_copy(own, site, block, size, caller, frame);
	return site;
}

/* The part of alloc_shared() that returns to the caller itself: from here on the marker stands. */
static __attribute__((noinline)) void *alloc_marked(u32 decided, u64 context, u64 a, u64 b, struct pl_inline_slot *slot)
{
	u32 entry = decided & 0xff, function = entry % PL_INLINE_FUNCTIONS, site;
	const bool many = decided & PL_INLINE_MANY;
	u64 thread, size = requested(function, a, b), salt = 0, outer, older = 0;
	struct pl_inline_slot *own = slot;
	struct taken old = {0, 0};
	struct marker marker;
	void *result;

	marker_set(&marker);
	/* Under the GIL the raw domain does not own slot 0. */
	if (!many)
		own = pl_thread_slot();
	outer = slot_enter(own, &marker);
	if (function == PL_INLINE_REALLOC && a) {
		old = take(a);
		if (unlikely(!old.entry))
			older = pl_older_size(entry / PL_INLINE_FUNCTIONS, a);
	}
	result = call_original(entry, function, context, a, b);
	if (!result) {
		if (old.entry)
			pl_put_back(a, old);
		goto out;
	}
	if (old.entry)
		count_freed(ENTRY_SITE(old.entry), old.size, adder_without_gil());
	if (!(decided & DECIDED_WANTED))
		goto out;
	thread = many ? current_thread(entry >= PL_INLINE_FUNCTIONS) : running_thread(own);
	if (many && thread && own)
		own->thread = thread;
	if (thread && slot && !many && pl_config.gil) {
		u64 interpreter = load64(thread, LAYOUT->thread_interpreter);

		if (interpreter != slot->interpreter && !interpreter_shares(slot, interpreter))
			slot = pl_thread_slot();
	}
	if (decided >> DECIDED_TAKEN_SHIFT)
		salt = sample_salt(size, decided >> DECIDED_TAKEN_SHIFT);
	if (thread && !slot)
		count_up(&control()->untraced);
	/* The raw domain is for threads without the GIL too. */
	if (thread)
		site = slot ? trace(slot, thread, salt, 0) : pl_trace_nowhere(salt, 0);
	else
		site = detached_site(own, salt);
	if (unlikely(site & PL_TRACE_STACK))
		site = record_with_stack((u64)result, size, site, adder_without_gil(), CALLER, FRAME);
	else
		record((u64)result, size, site, adder_without_gil());
	if (function == PL_INLINE_REALLOC && a && unlikely(!old.entry) && !sampling())
		older_moved(site, older, false);
	if (own)
		own->last_site = site;
	if (many && slot)
		slot->last_made = (u64)result;
out:
	slot_leave(own, outer);
	marker_wipe(&marker);
	return result;
}

/* Any domain, any number of GILs. Whatever is passed through ends in a jump, not a call: nothing but a
 * marked call may leave a return address into this code on a stack (test_recorder looks). */
static __attribute__((noinline)) void *alloc_shared(u32 entry, u64 context, u64 a, u64 b)
{
	const u32 mode = control()->mode, function = entry % PL_INLINE_FUNCTIONS;
	struct pl_inline_slot *slot = slot_zero(), *own = NULL;
	u64 size = requested(function, a, b);
	u32 taken = 0;

	if (mode & PL_INLINE_MANY || pl_inline_sampling(mode))
		own = pl_thread_slot();
	if (mode & PL_INLINE_MANY)
		slot = own;
	if (slot && slot->outer - stack_pointer() < NESTED_REACH)
		return call_original(entry, function, context, a, b);
	if (pl_inline_sampling(mode)) {
		taken = own && sample_counts_down(own, size) ? sample_fires(own, size) : 0;
		/* What goes on to a native hook must be seen there as this one's. */
		if (!taken && function != PL_INLINE_REALLOC &&
			(entry < PL_INLINE_FUNCTIONS ? !pl_config.native : size <= pl_config.nested_size))
			return call_original(entry, function, context, a, b);
	}
	return alloc_marked(DECIDED(entry, mode, taken), context, a, b, slot);
}

/* Under the main GIL, in the mem and obj domains. `entry` and `function` are constants but for the
 * sampled ones, which are rare. */
inlined void *alloc_gil(u32 entry, u32 function, u64 context, u64 a, u64 b, const bool sampled)
{
	struct pl_inline_slot *slot = slot_zero();
	u64 thread = current_thread(true), size = requested(function, a, b), older = 0;
	struct taken old = {0, 0};
	struct marker marker;
	u32 site, taken = 0;
	void *result;

	if (unlikely(!thread))
		return alloc_shared(entry, context, a, b);
	if (pl_config.gil) {
		u64 interpreter = load64(thread, LAYOUT->thread_interpreter);

		if (unlikely(interpreter != slot->interpreter) && !interpreter_shares(slot, interpreter))
			return alloc_shared(entry, context, a, b);
	}
	/* Within reach: one that a thread left behind (cancelled inside of an original) does not count. */
	if (unlikely(slot->outer) && slot->outer - stack_pointer() < NESTED_REACH)
		return call_original(entry, function, context, a, b);
	if (unlikely(slot->thread != thread))
		thread_changed(slot, thread);
	if (sampled) {
		taken = function == PL_INLINE_REALLOC ? sample_counts_down(slot, size) : slot->countdown < 0;
		taken = taken ? sample_fires(slot, size) : 0;
	}
	marker_set(&marker);
	slot->outer = (u64)&marker;
	if (function == PL_INLINE_REALLOC && a) {
		old = take(a);
		if (!sampled && unlikely(!old.entry))
			older = pl_older_size(entry / PL_INLINE_FUNCTIONS, a);
	}
	result = call_original(entry, function, context, a, b);
	if (unlikely(!result)) {
		if (old.entry)
			pl_put_back(a, old);
	} else {
		if (function == PL_INLINE_REALLOC && old.entry)
			count_freed(ENTRY_SITE(old.entry), old.size, PLAIN);
		if (!sampled || taken) {
			site = trace(slot, thread, sampled ? sample_salt(size, taken) : 0, 0);
			if (unlikely(site & PL_TRACE_STACK))
				site = record_with_stack((u64)result, size, site, PLAIN, CALLER, FRAME);
			else
				record((u64)result, size, site, PLAIN);
			if (function == PL_INLINE_REALLOC && !sampled && a && unlikely(!old.entry))
				older_moved(site, older, true);
			slot->last_made = (u64)result;
			slot->last_site = site;
		}
	}
	/* Not before the site has its totals: until then nobody may take its row away. */
	slot_leave(slot, 0);
	marker_wipe(&marker);
	return result;
}

static __attribute__((noinline)) void *alloc_sampled(u32 entry, u64 context, u64 a, u64 b)
{
	return alloc_gil(entry, entry % PL_INLINE_FUNCTIONS, context, a, b, true);
}

typedef void *(*alloc_exact)(u64 context, u64 a, u64 b);

/* No stack frame here: whatever is not recorded costs a look at the mode and a jump. */
inlined void *alloc_hook(const u32 domain, const u32 function, u64 context, u64 a, u64 b, alloc_exact exact)
{
	const u32 entry = ENTRY_OF(domain, function);
	u32 mode = __atomic_load_n(&control()->mode, __ATOMIC_RELAXED);
	u64 size;

	if (likely(mode == PL_INLINE_GIL) && domain != PL_INLINE_RAW)
		return exact(context, a, b);
	if (!pl_inline_is_armed(mode))
		return call_original(entry, function, context, a, b);
	if (mode & PL_INLINE_MANY || domain == PL_INLINE_RAW)
		return alloc_shared(entry, context, a, b);
	size = requested(function, a, b);
	/* A large block reaches the raw hook too, which must see that its outer one has counted it. */
	if (function != PL_INLINE_REALLOC && !sample_counts_down(slot_zero(), size) && size <= pl_config.nested_size)
		return call_original(entry, function, context, a, b);
	return alloc_sampled(entry, context, a, b);
}

/* Not in the map. The inner free of a pair (the raw one below obj, with PYTHONMALLOC=debug 16 bytes
 * lower) is no unknown block: the outer one has just taken it out. */
static cold void free_unknown(u32 domain, u64 pointer)
{
	struct pl_inline_slot *slot = control()->mode & PL_INLINE_MANY ? pl_thread_slot() : slot_zero();

	if ((slot && domain == PL_INLINE_RAW && slot->last_freed - pointer <= 64) || sampling())
		return;
	count_up(&control()->freed_unknown);
	/* The raw domain passes on to malloc, whose hook knows more of it, if there is one. */
	if (domain != PL_INLINE_RAW)
		pl_older_freed(slot ? (u32)slot->last_site : PL_INLINE_SITE_NONE, pl_older_size(domain, pointer),
			control()->mode == PL_INLINE_GIL);
}

static __attribute__((noinline)) void free_shared(u32 domain, u64 pointer)
{
	struct taken old = take(pointer);
	struct pl_inline_slot *slot;

	if (old.entry)
		count_freed(ENTRY_SITE(old.entry), old.size, adder_without_gil());
	else
		free_unknown(domain, pointer);
	/* For the next hook that this free reaches: that of the raw domain, or a native one. */
	if (domain == PL_INLINE_RAW || control()->mode & PL_INLINE_MANY) {
		slot = pl_thread_slot();
		if (slot) {
			if (!sampling())
				slot->last_freed = pointer;
			if (domain == PL_INLINE_RAW)
				state_freed(slot, pointer);
		}
	}
}

/* Under the main GIL, in the mem and obj domains. */
inlined void free_gil(u32 domain, u64 pointer, const bool sampled)
{
	struct taken old = take(pointer);

	if (likely(old.entry))
		count_freed(ENTRY_SITE(old.entry), old.size, PLAIN);
	else if (!sampled)
		free_unknown(domain, pointer);
	if (!sampled)
		slot_zero()->last_freed = pointer;
}

inlined void free_hook(const u32 domain, u64 context, u64 pointer)
{
	u32 mode = __atomic_load_n(&control()->mode, __ATOMIC_RELAXED);

	if (domain == PL_INLINE_RAW && unlikely(must_stay()))
		return;
	if (likely(pointer)) {
		if (likely(mode == PL_INLINE_GIL) && domain != PL_INLINE_RAW)
			free_gil(domain, pointer, false);
		else if (pl_inline_is_armed(mode) && !(mode & PL_INLINE_MANY) && domain != PL_INLINE_RAW)
			free_gil(domain, pointer, true);
		else if (pl_inline_is_armed(mode))
			free_shared(domain, pointer);
	}
	((release)pl_config.original[ENTRY_OF(domain, PL_INLINE_FREE)])(context, pointer);
}

#define HOOKS(name, domain)                                                                                            \
	HOOK(name, domain, malloc, PL_INLINE_MALLOC, (u64 context, u64 size), context, size, 0)                        \
	HOOK(name, domain, calloc, PL_INLINE_CALLOC, (u64 context, u64 count, u64 size), context, count, size)         \
	HOOK(name, domain, realloc, PL_INLINE_REALLOC, (u64 context, u64 block, u64 size), context, block, size)       \
	void pl_##name##_free(u64 context, u64 pointer);                                                               \
	void pl_##name##_free(u64 context, u64 pointer)                                                                \
	{                                                                                                              \
		free_hook(domain, context, pointer);                                                                   \
	}

#define HOOK(name, domain, call, function, parameters, context, a, b)                                                  \
	static __attribute__((noinline)) void *name##_##call##_exact(u64 c, u64 x, u64 y)                              \
	{                                                                                                              \
		return alloc_gil(ENTRY_OF(domain, function), function, c, x, y, false);                                \
	}                                                                                                              \
	void *pl_##name##_##call parameters;                                                                           \
	void *pl_##name##_##call parameters                                                                            \
	{                                                                                                              \
		return alloc_hook(domain, function, context, a, b, name##_##call##_exact);                             \
	}

HOOKS(raw, PL_INLINE_RAW)
HOOKS(mem, PL_INLINE_MEM)
HOOKS(obj, PL_INLINE_OBJ)
