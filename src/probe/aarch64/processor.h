/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_PROBE_PROCESSOR_H
#define PYLEAK_PROBE_PROCESSOR_H

/* What the recorder needs of an AArch64; see probe.h. */

inlined u64 thread_pointer(void)
{
	u64 pointer;

	__asm__("mrs %0, tpidr_el0" : "=r"(pointer));
	return pointer;
}

/* struct pthread lies in front of what the thread pointer points to, by what the tracer has found out. */
inlined u64 thread_self(void) { return thread_pointer() + (u64)pl_config.thread_self; }

inlined u64 thread_word(int64_t offset) { return *(const volatile u64 *)(thread_pointer() + (u64)offset); }

inlined u64 thread_vector(void) { return load64(thread_pointer(), 0); }

inlined u64 stack_pointer(void)
{
	u64 sp;

	__asm__ volatile("mov %0, sp" : "=r"(sp));
	return sp;
}

/*
 * The record of a frame (the caller's x29, and x30) is not at the frame's top: how far the caller's stack pointer is
 * from it is in the upper 16 bits, which no address has.
 */
#define FRAME frame_packed((u64)__builtin_frame_address(0), (u64)__builtin_dwarf_cfa())
inlined u64 frame_packed(u64 record, u64 caller_sp) { return record | (caller_sp - record) << 48; }
inlined u64 frame_record(u64 frame) { return frame & 0xffffffffffffull; }
inlined u64 frame_of_caller(u64 frame) { return load64(frame_record(frame), 0); }
inlined u64 frame_return(u64 frame) { return load64(frame_record(frame), 8); }
inlined u64 frame_caller_sp(u64 frame) { return frame_record(frame) + (frame >> 48); }

/*
 * Not every processor has an add to memory (LSE). A signal between the two halves of this loop clears the monitor, as any
 * return from an exception does: the store fails and all of it is done again.
 */
inlined void add(u64 *total, u64 value)
{
	u64 sum;
	u32 failed;

	__asm__ volatile("1:	ldxr %0, %2\n"
			 "	add %0, %0, %3\n"
			 "	stxr %w1, %0, %2\n"
			 "	cbnz %w1, 1b"
			 : "=&r"(sum), "=&r"(failed), "+Q"(*total)
			 : "r"(value));
}

/* An exchange with acquire and release does not order its own store before later loads. */
inlined void fence_after_exchange(void) { __asm__ volatile("dmb ish" : : : "memory"); }
inlined void fence_between_stores(void) { __asm__ volatile("dmb ishst" : : : "memory"); }

inlined void copy_bytes(u8 *to, const u8 *from, u64 size)
{
	while (size--) {
		*to++ = *from++;
		/* Or this becomes a call of memcpy(). */
		__asm__ volatile("" : "+r"(to), "+r"(from));
	}
}

inlined void copy_words(u8 *to, u64 from, u64 bytes)
{
	for (u64 i = 0; i < bytes / 8; i++) {
		((u64 *)to)[i] = ((const u64 *)from)[i];
		__asm__ volatile("" : "+r"(to), "+r"(from));
	}
}

inlined u64 system_call(u64 number, u64 a, u64 b, u64 c)
{
	register u64 x8 __asm__("x8") = number;
	register u64 x0 __asm__("x0") = a;
	register u64 x1 __asm__("x1") = b;
	register u64 x2 __asm__("x2") = c;

	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory", "cc");
	return x0;
}

#endif
