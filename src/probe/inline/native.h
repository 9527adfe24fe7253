/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_PROBE_INLINE_NATIVE_H
#define PYLEAK_PROBE_INLINE_NATIVE_H

#include "record.h"
#include "thread.h"

/* What the hooks of native allocators share: those of the C library (native.c), and of pools (pools.c). */

typedef u64 (*function)(u64 a, u64 b, u64 c);
typedef u64 (*long_function)(u64 a, u64 b, u64 c, u64 d, u64 e, u64 f);

#define CALLER ((u64)__builtin_return_address(0))
/* FRAME is of the hook that calls the original. It is a frame on the caller's own: what leads there are jumps. */
#define ORIGINAL(entry) (pl_config.original[entry])

enum {
	/* <sys/mman.h> */
	PROTECTION_WRITE = 2, SHARED_MAPPING = 1, FIXED = 0x10, ANONYMOUS = 0x20, STACK = 0x20000, FIXED_NOREPLACE = 0x100000,
	PAGE = 4096,
	/* The lowest bits of the size in front of a block of glibc's: PREV_INUSE, IS_MMAPPED, NON_MAIN_ARENA. */
	GLIBC_MMAPPED = 2, GLIBC_BITS = 7,
};

/* Whether an outer hook of this thread has this allocation. */
inlined bool is_nested(const struct pl_inline_slot *own)
{
	u64 sp = stack_pointer();

	/* Slot 0 is the GIL holder's; a marker of another thread's stack is never this near. */
	return slot_zero()->outer - sp < NESTED_REACH || (own && own->outer - sp < NESTED_REACH);
}

inlined bool is_wanted(struct pl_inline_slot *own, u64 size)
{
	return likely(!sampling()) || (own && sample_counts_down(own, size) && sample_fires(own, size));
}

/* `thread` runs here, or 0. */
inlined enum adder adder_of(u64 thread)
{
	return has_main_gil(thread) ? PLAIN : adder_without_gil();
}

/* What was allocated natively, or a plain one of Python's, is freed. */
inlined void count_native_freed(const struct pl_inline_slot *own, struct taken old)
{
	count_freed(ENTRY_SITE(old.entry), old.size, adder_of(running_thread(own)));
}

inlined u64 call_long(struct pl_inline_slot *own, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, u32 entry,
	struct marker *marker)
{
	u64 result, outer;

	marker_set(marker);
	outer = slot_enter(own, marker);
	result = ((long_function)ORIGINAL(entry))(a, b, c, d, e, f);
	slot_leave(own, outer);
	return result;
}

/* `caller`: the return address of the hook; `frame`: the hook's. */
void pl_record_native(struct pl_inline_slot *own, u64 address, u64 size, u64 caller, u64 frame);
void pl_freed_unknown(const struct pl_inline_slot *own, u64 pointer, u32 entry);

/* data_stack.c */
bool pl_is_pythons_own(u64 address, u64 size, u64 flags);
u32 pl_greenlet_site(u64 sp);

#endif
