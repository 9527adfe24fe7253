/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_PROBE_PROCESSOR_H
#define PYLEAK_PROBE_PROCESSOR_H

/* What the recorder needs of an x86-64; see probe.h. */

inlined u64 thread_pointer(void)
{
	u64 self;

	__asm__("mov %%fs:0, %0" : "=r"(self));
	return self;
}

inlined u64 thread_self(void) { return thread_pointer(); }

inlined u64 thread_word(int64_t offset)
{
	u64 word;

	__asm__ volatile("mov %%fs:(%1), %0" : "=r"(word) : "r"(offset));
	return word;
}

inlined u64 thread_vector(void) { return load64(thread_pointer(), 8); }

inlined u64 stack_pointer(void)
{
	u64 sp;

	__asm__ volatile("mov %%rsp, %0" : "=r"(sp));
	return sp;
}

/* On it lie the caller's rbp and the address that is returned to. */
#define FRAME ((u64)__builtin_frame_address(0))
inlined u64 frame_of_caller(u64 frame) { return load64(frame, 0); }
inlined u64 frame_return(u64 frame) { return load64(frame, 8); }
inlined u64 frame_caller_sp(u64 frame) { return frame + 16; }

inlined void add(u64 *total, u64 value) { __asm__("addq %1, %0" : "+m"(*total) : "er"(value) : "cc"); }

/* An exchange is a full fence here, for the compiler too. */
inlined void fence_after_exchange(void) {}
/* Stores are seen in their order here, as the compiler leaves it. */
inlined void fence_between_stores(void) { __asm__ volatile("" : : : "memory"); }

inlined void copy_bytes(u8 *to, const u8 *from, u64 size)
{
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
}

inlined void copy_words(u8 *to, u64 from, u64 bytes)
{
	u64 count = bytes / 8;

	__asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}

inlined u64 system_call(u64 number, u64 a, u64 b, u64 c)
{
	u64 result;

	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return result;
}

#endif
