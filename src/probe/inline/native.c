/* SPDX-License-Identifier: MIT */
#include "native.h"

/*
 * The hooks of the C library's allocators, which objects call through words of their GOT. They run in any
 * thread, with the GIL or without, in one that never saw Python, in a signal handler: whatever they
 * remember is in the thread's own slot, and Python's frames are looked at only where this thread is the
 * running one. So are the plain totals added to, or those of the first thread; all others atomically, which takes
 * twice as long as all the rest of a hook.
 *
 * A block belongs to the outermost hook. Where Python's allocators call malloc, the thread is within their
 * hook, and this one ends in a jump, as every free does.
 */

/* The site of what this thread allocates now. */
inlined u32 site_of(struct pl_inline_slot *own, u64 thread, u64 size, u64 caller)
{
	u64 salt = SALT_EXACT(mix(5, caller));

	/* Whoever has sampled once does so for ever: what was decided without is of a slot that has none yet. */
	if (unlikely(sampling()) && own && own->fired)
		salt = SALT_SAMPLED(mix(salt, sample_salt(size, own->fired)), own->fired);
	if (likely(thread && own))
		return trace(own, thread, salt, caller);
	if (thread)
		count_up(&control()->untraced);
	return own ? pl_trace_native(own, salt, caller) : pl_trace_nowhere(salt, caller);
}

/* Whether the tracer wants to see the stack of this allocation. Threads at one site may count one too few. */
inlined bool stack_is_wanted(u32 site)
{
	uint16_t *skip = (uint16_t *)pl_config.skips + site;

	if (likely(*skip == PL_INLINE_SKIP_ALL))
		return false;
	if (*skip) {
		--*skip;
		return false;
	}
	return control()->next_stack < control()->granted_stacks;
}

void pl_record_native(struct pl_inline_slot *own, u64 address, u64 size, u64 caller, u64 frame)
{
	struct pl_inline_slot *slot = claim(own);
	u64 thread = running_thread(slot);
	const enum adder adder = adder_of(thread);
	bool reading = false;
	u32 site;

	/* Its slot is busy: see slot_enter(). */
	if (unlikely(!slot))
		count_up(&control()->slotless);
	if (!thread)
		thread = detached_begin(slot, &reading);
	site = site_of(slot, thread, size, caller);
	detached_end(slot, reading);
	record(address, size, site, adder);
	if (adder == PLAIN)
		slot_zero()->last_site = site;
	if (slot) {
		slot->last_site = site;
		if (stack_is_wanted(site))
			pl_stack_copy(slot, site, address, size, caller, frame);
		__atomic_store_n(&slot->busy, 0, __ATOMIC_RELEASE);
	} else {
		(void)__atomic_fetch_sub(&control()->slotless, 1, __ATOMIC_RELEASE);
	}
}

/* Not in the map: allocated before the probe, or the inner part of a free that an outer hook has seen. */
cold void pl_freed_unknown(const struct pl_inline_slot *own, u64 pointer, u32 entry)
{
	const bool plain = has_main_gil(running_thread(own));
	const struct pl_inline_slot *slot = plain ? slot_zero() : own;
	u64 size = 0;

	if (sampling() || is_nested(own) || (own && own->last_freed - pointer <= 64) ||
		slot_zero()->last_freed - pointer <= 64)
		return;
	count_up(&control()->freed_native);
	/* The original is about to read the same word. */
	if (pl_config.flags[entry] & PL_INLINE_NATIVE_GLIBC && !(pointer & 15)) {
		size = load64(pointer, -8);
		size = (size & ~(u64)GLIBC_BITS) - (size & GLIBC_MMAPPED ? 16 : 8);
		(void)__atomic_fetch_add(&control()->freed_native_size, size, __ATOMIC_RELAXED);
	}
	pl_older_freed(slot ? (u32)slot->last_site : PL_INLINE_SITE_NONE, size, plain);
}

inlined u64 call_marked(struct pl_inline_slot *own, u64 a, u64 b, u64 c, u32 entry, struct marker *marker)
{
	u64 result, outer;

	marker_set(marker);
	outer = slot_enter(own, marker);
	result = ((function)ORIGINAL(entry))(a, b, c);
	slot_leave(own, outer);
	return result;
}

/* -- malloc and all that give a new block: result and size ------------------------------------------- */

/* A slot and an entry in one word: a seventh argument would keep the call from being a jump. Slots begin at pages. */
#define SLOT_ENTRY(own, entry) ((u64)(own) | (entry))
#define SLOT_OF(word) ((struct pl_inline_slot *)((word) & ~(u64)(PAGE - 1)))
#define ENTRY_IN(word) ((u32)(word) & (PAGE - 1))

static __attribute__((noinline)) u64 new_marked(u64 a, u64 b, u64 c, u64 size, u64 caller, u64 slot_entry)
{
	struct pl_inline_slot *own = SLOT_OF(slot_entry);
	struct marker marker;
	u64 result = call_marked(own, a, b, c, ENTRY_IN(slot_entry), &marker);

	if (likely(result))
		pl_record_native(own, result, size, caller, FRAME);
	marker_wipe(&marker);
	return result;
}

/* The block is given by an argument. */
static __attribute__((noinline)) u64 place_marked(u64 place, u64 alignment, u64 size, u64 caller, u32 entry)
{
	struct pl_inline_slot *own = thread_slot();
	struct marker marker;
	u64 result = call_marked(own, place, alignment, size, entry, &marker);

	if (likely(!(u32)result))
		pl_record_native(own, *(const u64 *)place, size, caller, FRAME);
	marker_wipe(&marker);
	return result;
}

/* The same by an operator new. `frame` is that of its hook, whose caller waits. */
static __attribute__((noinline)) u64 new_quietly(u64 a, u64 b, u64 size, u64 frame, u64 slot_entry)
{
	struct pl_inline_slot *own = SLOT_OF(slot_entry);
	struct marker marker;
	u64 result, outer;

	marker_set(&marker);
	outer = slot_enter(own, &marker);
	/* Its last argument, of the type std::nothrow_t, says nothing but that. */
	result = ((function)pl_config.quiet[ENTRY_IN(slot_entry) - PL_INLINE_FIRST_ALLOC])(a, b, 0);
	slot_leave(own, outer);
	if (likely(result))
		pl_record_native(own, result, size, frame_return(frame), frame);
	marker_wipe(&marker);
	return result;
}

static __attribute__((noinline)) u64 alloc_throwing(u64 a, u64 b, u64 c, u64 slot_entry, u64 size)
{
	u64 result = new_quietly(a, b, size, FRAME, slot_entry);

	return likely(result) ? result : ((function)ORIGINAL(ENTRY_IN(slot_entry)))(a, b, c);
}

static __attribute__((noinline)) u64 alloc(u64 a, u64 b, u64 c, u32 entry, u64 size)
{
	struct pl_inline_slot *own;

	if (likely(is_armed())) {
		own = thread_slot();
		if (is_nested(own) || !is_wanted(own, size))
			return ((function)ORIGINAL(entry))(a, b, c);
		if (unlikely(pl_config.flags[entry] & PL_INLINE_NATIVE_THROWS))
			return alloc_throwing(a, b, c, SLOT_ENTRY(own, entry), size);
		return new_marked(a, b, c, size, CALLER, SLOT_ENTRY(own, entry));
	}
	return ((function)ORIGINAL(entry))(a, b, c);
}

static __attribute__((noinline)) u64 place(u64 a, u64 b, u64 c, u32 entry)
{
	struct pl_inline_slot *own;

	if (likely(is_armed())) {
		own = thread_slot();
		if (!is_nested(own) && is_wanted(own, c))
			return place_marked(a, b, c, CALLER, entry);
	}
	return ((function)ORIGINAL(entry))(a, b, c);
}

/* -- realloc, reallocarray ---------------------------------------------------------------------------- */

static __attribute__((noinline)) u64 again_marked(u64 a, u64 b, u64 c, u64 size, u64 caller, u32 entry)
{
	struct pl_inline_slot *own = thread_slot();
	struct taken old = {0, 0};
	struct marker marker;
	u64 result;
	bool wanted = is_wanted(own, size);

	marker_set(&marker);
	if (a) {
		old = take(a);
		if (!old.entry)
			pl_freed_unknown(own, a, entry);
	}
	result = call_marked(own, a, b, c, entry, &marker);
	if (old.entry) {
		/* Of no bytes at all: freed, by most. */
		if (result || !size)
			count_native_freed(own, old);
		else
			pl_put_back(a, old);
	}
	if (likely(result) && wanted)
		pl_record_native(own, result, size, caller, FRAME);
	marker_wipe(&marker);
	return result;
}

static __attribute__((noinline)) u64 again(u64 a, u64 b, u64 c, u32 entry, u64 size)
{
	if (likely(is_armed()) && !is_nested(thread_slot()))
		return again_marked(a, b, c, size, CALLER, entry);
	return ((function)ORIGINAL(entry))(a, b, c);
}

/* -- free ---------------------------------------------------------------------------------------------- */

static __attribute__((noinline)) void forget(u64 pointer, u32 entry)
{
	struct taken old = take(pointer);

	/* Where the interpreter itself says whose thread runs, no slot is needed for that. */
	if (likely(old.entry))
		count_native_freed(!pl_config.thread_current || pl_config.thread_own ? NULL : thread_slot(), old);
	else
		pl_freed_unknown(thread_slot(), pointer, entry);
}

inlined u64 release(u64 a, u64 b, u64 c, u32 entry)
{
	if (likely(a && is_armed()))
		forget(a, entry);
	return ((function)ORIGINAL(entry))(a, b, c);
}

/* -- mappings: anonymous and writable ones are data; files, stacks and reserved addresses are not ----- */

/* No array of arguments in a hook: whose address is taken keeps its frame, and a call out of it is no jump. Nor
 * more arguments than registers. */
#define SIX (u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
/* Of mmap() protection and flags are of 32 bits; mremap() has no more than five arguments. */
#define BOTH(c, d) ((u64)(u32)(c) | (u64)(d) << 32)

/* Of a site that has another live block, so that only the map needs to know: see PL_INLINE_CHUNK_LEFT. */
static cold void record_flagged(u64 address, u64 size, u32 site, enum adder adder)
{
	count_up(&control()->slotless);
	record(address, size, site, adder);
	(void)__atomic_fetch_sub(&control()->slotless, 1, __ATOMIC_RELEASE);
}

static cold void record_pythons_own(struct pl_inline_slot *own, u64 address, u64 size, u64 caller, u64 frame)
{
	u64 thread = running_thread(own);
	u32 site = thread ? pl_greenlet_site(frame_caller_sp(frame)) : 0;

	if (site)
		record_flagged(address, size, site, adder_of(thread));
	else
		pl_record_native(own, address, size, caller, frame);
}

/* Within a hook of what the pool gives, too: what is mapped there is not what is given. */
static __attribute__((noinline)) u64 map_pool(u64 a, u64 b, u64 cd, u64 e, u64 f, u32 entry)
{
	struct pl_inline_slot *own = thread_slot();
	struct marker marker;
	u64 result = call_long(own, a, b, (u32)cd, cd >> 32, e, f, entry, &marker);

	if (likely(result < (u64)-PAGE))
		pl_record_native(own, result, b, CALLER | PL_INLINE_CALLER_POOL, FRAME);
	marker_wipe(&marker);
	return result;
}

static __attribute__((noinline)) u64 map_marked(u64 a, u64 b, u64 cd, u64 e, u64 f, u32 entry)
{
	struct pl_inline_slot *own = thread_slot();
	struct marker marker;
	u64 result = call_long(own, a, b, (u32)cd, cd >> 32, e, f, entry, &marker);

	if (likely(result < (u64)-PAGE)) {
		if (unlikely(pl_config.flags[entry] & PL_INLINE_NATIVE_PYTHON))
			record_pythons_own(own, result, b, CALLER, FRAME);
		else
			pl_record_native(own, result, b, CALLER, FRAME);
	}
	marker_wipe(&marker);
	return result;
}

/* What is left of a mapping whose first `length` bytes are gone. */
static void keep_rest(u64 address, u64 length, struct taken old)
{
	u64 gone = (length + pl_config.page_bytes - 1) & ~(pl_config.page_bytes - 1);

	/* In this order: something of the site lives all the time, or its row might be another's. */
	if (gone < old.size)
		record_flagged(address + gone, old.size - gone, ENTRY_SITE(old.entry), adder_without_gil());
	count_freed(ENTRY_SITE(old.entry), old.size, adder_without_gil());
}

static __attribute__((noinline)) u64 unmap_marked(u64 address, u64 length, u32 entry, struct taken old)
{
	struct marker marker;
	u64 result = call_marked(thread_slot(), address, length, 0, entry, &marker);

	if (unlikely((u32)result))
		pl_put_back(address, old);
	else
		keep_rest(address, length, old);
	marker_wipe(&marker);
	return result;
}

inlined u64 map(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, u32 entry)
{
	struct pl_inline_slot *own;

	if (unlikely(pl_config.flags[entry] & PL_INLINE_NATIVE_POOL) && is_armed() && d & ANONYMOUS &&
		!sampling() && !(d & (STACK | FIXED | FIXED_NOREPLACE)))
		return map_pool(a, b, BOTH(c, d), e, f, entry);
	if (is_armed() && d & ANONYMOUS && c & PROTECTION_WRITE &&
		!(d & (STACK | FIXED | FIXED_NOREPLACE)) &&
		(likely(!(pl_config.flags[entry] & PL_INLINE_NATIVE_PYTHON)) || pl_is_pythons_own(a, b, d))) {
		own = thread_slot();
		if (!is_nested(own) && is_wanted(own, b))
			return map_marked(a, b, BOTH(c, d), e, f, entry);
	}
	return ((long_function)ORIGINAL(entry))(a, b, c, d, e, f);
}

static __attribute__((noinline)) u64 unmap(u64 a, u64 b, u64 c, u32 entry)
{
	struct taken old;

	if (unlikely(must_stay()))
		return 0;
	if (is_armed() && !(a & (PAGE - 1))) {
		old = take(a);
		if (old.entry)
			return unmap_marked(a, b, entry, old);
	}
	return ((function)ORIGINAL(entry))(a, b, c);
}

static __attribute__((noinline)) u64 remap_marked(u64 a, u64 b, u64 c, u64 d, u64 e, u32 entry)
{
	struct pl_inline_slot *own = thread_slot();
	struct taken old = take(a);
	const bool wanted = is_wanted(own, c);
	struct marker marker;
	u64 result = call_long(own, a, b, c, d, e, 0, entry, &marker);

	if (result >= (u64)-PAGE) {
		if (old.entry)
			pl_put_back(a, old);
		goto out;
	}
	if (old.entry)
		count_freed(ENTRY_SITE(old.entry), old.size, adder_without_gil());
	/* A mapping that is not known is no data, or of no sample: of the latter each size is drawn anew. */
	if ((old.entry || sampling()) && wanted)
		pl_record_native(own, result, c, CALLER, FRAME);
out:
	marker_wipe(&marker);
	return result;
}

inlined u64 remap(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, u32 entry)
{
	if (is_armed() && !is_nested(thread_slot()))
		return remap_marked(a, b, c, d, e, entry);
	return ((long_function)ORIGINAL(entry))(a, b, c, d, e, f);
}

/* -- the entries --------------------------------------------------------------------------------------- */

#define ENTRY(kind, number) (PL_INLINE_FIRST_##kind + (number))
#define HOOK(name, number, parameters)                                                                                 \
	u64 pl_native_##name##_##number parameters;                                                                    \
	u64 pl_native_##name##_##number parameters
#define THREE (u64 a, u64 b, u64 c)

#define ALLOC(n) HOOK(alloc, n, THREE) { return alloc(a, b, c, ENTRY(ALLOC, n), a); }
#define CALLOC(n) HOOK(calloc, n, THREE) { return alloc(a, b, c, ENTRY(CALLOC, n), a * b); }
#define ALIGNED(n) HOOK(aligned, n, THREE) { return alloc(a, b, c, ENTRY(ALIGNED, n), b); }
#define REALLOC(n) HOOK(realloc, n, THREE) { return again(a, b, c, ENTRY(REALLOC, n), b); }
#define REALLOCARRAY(n) HOOK(reallocarray, n, THREE) { return again(a, b, c, ENTRY(REALLOCARRAY, n), b * c); }
#define POSIX_MEMALIGN(n) HOOK(posix_memalign, n, THREE) { return place(a, b, c, ENTRY(POSIX_MEMALIGN, n)); }
#define FREE(n) HOOK(free, n, THREE) { return release(a, b, c, ENTRY(FREE, n)); }
#define MMAP(n) HOOK(mmap, n, SIX) { return map(a, b, c, d, e, f, ENTRY(MMAP, n)); }
#define MUNMAP(n) HOOK(munmap, n, THREE) { return unmap(a, b, c, ENTRY(MUNMAP, n)); }
#define MREMAP(n) HOOK(mremap, n, SIX) { return remap(a, b, c, d, e, f, ENTRY(MREMAP, n)); }
#define ONE_TO_3(X) X(0) X(1) X(2)
#define ONE_TO_16(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)

ONE_TO_16(ALLOC)
ONE_TO_3(CALLOC)
ONE_TO_3(ALIGNED) ALIGNED(3) ALIGNED(4) ALIGNED(5)
ONE_TO_3(REALLOC) REALLOC(3) REALLOC(4)
ONE_TO_3(REALLOCARRAY) REALLOCARRAY(3)
ONE_TO_3(POSIX_MEMALIGN)
ONE_TO_16(FREE)
ONE_TO_3(MMAP) MMAP(3)
ONE_TO_3(MUNMAP)
ONE_TO_3(MREMAP)
