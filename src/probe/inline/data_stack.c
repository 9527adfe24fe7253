/* SPDX-License-Identifier: MIT */
#include "native.h"

/* What the interpreter maps for itself: whether it is recorded, and on which line. */

enum {
	/* Python/pystate.c, DATA_STACK_CHUNK_SIZE, and Objects/obmalloc.c, ARENA_SIZE of 3.10 and later. */
	DATA_STACK_CHUNK = 16 << 10, ARENA = 1 << 20,
};

/*
 * Of the interpreter's own mappings: what is not divided by an allocator of its own. Those are a mmap module that is linked
 * in, whose memory is shared, and from 3.11 on the chunks of data stacks, which double until a frame fits. They come from
 * the same function as arenas (_PyObject_Arena), and in a build without a GIL as mimalloc's segments: by their size they
 * are neither.
 */
bool pl_is_pythons_own(u64 address, u64 size, u64 flags)
{
	if (flags & SHARED_MAPPING)
		return true;
	return !LAYOUT->instruction_is_index && !address && size >= DATA_STACK_CHUNK && size < ARENA && !(size & (size - 1));
}

/*
 * A greenlet's data stack is mapped when its first frame is pushed, where it has none yet: it belongs to the line that made
 * the greenlet. That is the site of its block, which is found on the stack: greenlet 2.0 to 3.5 keep in it, for the one
 * greenlet of a thread that runs, a 1 and then where its stack ends (Greenlet::stack_state), which is just above in a
 * greenlet that has just begun. Only on the stack that the kernel gave the process, whose end is known. 0: none.
 */
u32 pl_greenlet_site(u64 sp)
{
	enum { WINDOW = 4096, SMALLEST = 96, LARGEST = 512 };
	u64 end = pl_config.leader_stack_end;

	if (thread_pointer() != pl_config.leader || sp >= end || end - sp > (u64)1 << 40 || sampling() ||
		pl_config.free_threaded)
		return 0;
	if (end - sp > WINDOW)
		end = sp + WINDOW;
	for (u64 at = sp; at < end; at += 8) {
		u64 block = load64(at, 0);
		const u32 *entry = block & 15 ? NULL : granule(block);
		u32 size;

		if (!entry || !ENTRY_SITE(*entry) || *entry & (PL_INLINE_ENTRY_ODD | PL_INLINE_ENTRY_CODE))
			continue;
		size = ENTRY_SIZE(*entry);
		/* Of Python's allocators, whose frees are all seen, under the GIL: it is there. */
		if (size < SMALLEST || size > LARGEST || ((const struct pl_inline_site *)pl_config.sites)[ENTRY_SITE(*entry)].kind)
			continue;
		for (u32 word = 0; word + 16 <= size; word += 8)
			if (load64(block, (int32_t)word) == 1 && load64(block, (int32_t)word + 8) - sp < WINDOW)
				return ENTRY_SITE(*entry);
	}
	return 0;
}
