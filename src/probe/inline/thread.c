/* SPDX-License-Identifier: MIT */
#include "walk.h"

/* What is cold of threads: who is reading once Python ends, whose state is where, which slot is whose. */

/* Whoever sets `finalizing` comes here after that: see thread.h. */
cold bool pl_anyone_is_reading(void)
{
	const u64 *reading = (const u64 *)pl_config.reading;
	u64 found = 0;

	control()->workers_gone = 1;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	for (u64 i = 0; i <= pl_config.slot_count / 8; i++)
		found |= *(const volatile u64 *)&reading[i];
	return found != 0;
}

/* Of a libpython that was loaded late. Whoever is attached has a block. Of any other thread the vector may be shorter than
 * that, or older, with the block of another library which had this number before. */
u64 pl_state_in_block(bool attached)
{
	const u64 vector = thread_vector();
	u64 block;

	if (load64(vector, pl_config.thread_room) < pl_config.thread_module ||
		(!attached && load64(vector, 0) < pl_config.thread_generation))
		return 0;
	block = load64(vector + pl_config.thread_stride * pl_config.thread_module, 0);
	/* glibc's TLS_DTV_UNALLOCATED is -1. */
	return block + 1 <= 1 ? 0 : *(const volatile u64 *)(block + (u64)pl_config.thread_tls);
}

/* Where this thread's own stack ends: its descriptor is on top of it. (That of the first thread is elsewhere.) */
static u64 own_stack_end(void)
{
	const u64 self = thread_pointer();

	return self == pl_config.leader && pl_config.leader_stack_end ? pl_config.leader_stack_end : self;
}

/*
 * `before`, not a little above here, says that this thread is in a hook. Either it is, this is the handler of a signal on an
 * alternate stack, and it must go on to say so. Or it was jumped out of that hook, from farther below on the same stack or
 * from an alternate one, and nobody would ever take it back. A thread's own stack is what lies nearest below its end: a
 * handler that interrupted a hook there is farther from it than the hook. (One that interrupts a hook on a stack of a
 * coroutine's may be nearer: then the word is lost, as it was before this was looked at.)
 */
cold u64 pl_outer_of_interrupted(u64 before, u64 here)
{
	const u64 end = own_stack_end();

	return end - before < end - here ? before : 0;
}

/* Whether this is farther up on the stack of the first thread than `sp` was: nothing else is ever that near below its end
 * (the kernel keeps 128 MiB free for it: arch/x86/mm/mmap.c and mm/util.c, mmap_base()). */
cold bool pl_is_above(u64 sp)
{
	enum { FREE_BELOW = 64 << 20 };
	const u64 end = pl_config.leader_stack_end;

	return thread_pointer() == pl_config.leader && end && end - sp < FREE_BELOW && end - stack_pointer() < end - sp;
}

static void slot_forget(struct pl_inline_slot *slot)
{
	for (u32 i = 0; i < PL_INLINE_TOPS; i++)
		for (u32 k = 0; k < PL_INLINE_TOP_WAYS; k++)
			slot->top[i][k].key = 0;
	pl_walks_forget(slot);
}

/* The calling thread's own slot. A thread pointer is unique among the living, and who gets a dead
 * thread's also gets its slot, so the owner needs no lock. NULL: all taken nearby. */
struct pl_inline_slot *pl_thread_slot(void)
{
	u64 self = thread_pointer(), at = mix(0, self) >> 16, generation;

	for (u32 i = 0; i < 16; i++) {
		struct pl_inline_slot *slot =
			(struct pl_inline_slot *)(pl_config.slots + (1 + ((at + i) & (pl_config.slot_count - 1))) *
									    pl_config.slot_stride);
		u64 owner = __atomic_load_n(&slot->owner, __ATOMIC_RELAXED);

		if (owner != self && (owner || !__atomic_compare_exchange_n(&slot->owner, &owner, self, false,
						       __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)))
			continue;
		slot->number = 1 + ((at + i) & (pl_config.slot_count - 1));
		generation = __atomic_load_n(&control()->code_generation, __ATOMIC_ACQUIRE);
		if (unlikely(slot->code_generation != generation)) {
			slot_forget(slot);
			slot->code_generation = generation;
		}
		return slot;
	}
	return NULL;
}
