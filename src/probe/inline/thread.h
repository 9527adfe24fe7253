/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_PROBE_INLINE_THREAD_H
#define PYLEAK_PROBE_INLINE_THREAD_H

#include "walk.h"

/*
 * What every hook asks of the thread that it runs in: the state whose frames may be read, whether an
 * outer hook has this allocation already, whether it belongs to the sample; and the marker of a call.
 */

/* How far below its outermost hook an inner one can run: the frames of the allocators between. Less
 * than a guard page, so that no neighbouring stack is within it. */
#define NESTED_REACH 2048
/* No handler of a signal is farther below the hook that it interrupts. */
#define SAME_STACK (1 << 20)

/* The self-referential word that tells the tracer that this thread will return into the code. */
struct marker {
	volatile u64 word;
};
inlined void marker_set(struct marker *marker)
{
	marker->word = PL_INLINE_MARKER ^ (u64)&marker->word;
}
inlined void marker_wipe(struct marker *marker)
{
	marker->word = 0;
}

/*
 * A thread that comes to know of a site, and has not yet added to its totals, says so: by `outer` or `busy` of its slot, or
 * where it has none in `slotless`. Returns what slot_leave() is to put back: the handler of a signal may have come in
 * between what an outer hook does, on the same stack or on another one (thread.c: pl_outer_of_interrupted()). What a thread
 * left behind that was cancelled in an original, or jumped out of it, lies below.
 */
inlined u64 slot_enter(struct pl_inline_slot *own, struct marker *marker)
{
	u64 before;

	if (unlikely(!own)) {
		count_up(&control()->slotless);
		return 0;
	}
	before = own->outer;
	own->outer = (u64)marker;
	if (likely(!before) || before - (u64)marker <= SAME_STACK)
		return before;
	return pl_outer_of_interrupted(before, (u64)marker);
}
inlined void slot_leave(struct pl_inline_slot *own, u64 before)
{
	/* The compiler must not do it earlier; the processor does not. */
	if (likely(own))
		__atomic_store_n(&own->outer, before, __ATOMIC_RELEASE);
	else
		(void)__atomic_fetch_sub(&control()->slotless, 1, __ATOMIC_RELEASE);
}

/* pl_thread_slot() for a thread at the first of its places, as nearly all are, whose caches are up to date. */
inlined struct pl_inline_slot *thread_slot(void)
{
	u64 self = thread_pointer();
	struct pl_inline_slot *slot =
		(struct pl_inline_slot *)(pl_config.slots + (1 + (mix(0, self) >> 16 & (pl_config.slot_count - 1))) *
								    pl_config.slot_stride);

	if (likely(__atomic_load_n(&slot->owner, __ATOMIC_RELAXED) == self &&
		   slot->code_generation == __atomic_load_n(&control()->code_generation, __ATOMIC_ACQUIRE)))
		return slot;
	return pl_thread_slot();
}

/* The raw domain and native allocators may run with the GIL or without. The state of the thread if it has
 * the GIL, by what its own slot knows; never a look into the state of a thread that may be another's and
 * about to be freed. */
inlined u64 running_thread(const struct pl_inline_slot *own)
{
	u64 thread = current_thread(false);

	if (!thread || !pl_config.thread_current)
		return thread;
	if (pl_config.thread_own)
		return thread_word(pl_config.thread_own) == thread ? thread : 0;
	return own && own->thread == thread && load64(thread, LAYOUT->thread_id) == thread_self() ? thread : 0;
}

/*
 * The state of this thread where it has let go of the GIL, as in most calls of numpy.zeros() and of tensors: while it is
 * in native code its frames are those of the line that called. Of the first thread, whose state ends with the last
 * interpreter, and by itself.
 */
inlined u64 detached_thread(void)
{
	if (thread_pointer() != pl_config.leader || !pl_config.leader_thread || control()->leader_gone)
		return 0;
	if (unlikely(!*(const volatile u64 *)pl_config.interpreters_head)) {
		/* Another interpreter may begin, with another state. */
		control()->leader_gone = 1;
		return 0;
	}
	return pl_config.leader_thread;
}

/*
 * The same for any other thread. Its own slot knows the state that it had the last time it allocated with the GIL; that one
 * is still its own unless
 *  - the thread has deleted it: state_freed() sees that;
 *  - Py_Finalize() does, which does not wait for daemon threads. It says so in a word before that, and what it then frees
 *    goes through the hooks of the raw domain and of munmap (the frames of 3.11+): these look, after it, who is reading,
 *    and if anybody is they keep what they were to free. One of the two always sees the other;
 *  - another interpreter is or was there, which anybody may end; or the thread died within Python frames, and this is a
 *    new one at its place: then the kernel's name of it is another one (3.11+; earlier frames are objects, and stay).
 * True: until the byte is cleared; false: nothing may be looked at.
 */
inlined bool reading_begin(const struct pl_inline_slot *own)
{
	u8 *reading;
	u64 thread;

	if (!own || !own->thread || !pl_config.finalizing)
		return false;
	thread = own->thread;
	reading = (u8 *)pl_config.reading + own->number;
	(void)__atomic_exchange_n(reading, 1, __ATOMIC_SEQ_CST);
	/* Dekker: who frees says so and then looks for readers. The loads below must not come before the byte is out. */
	fence_after_exchange();
	if (likely(!*(const volatile u64 *)pl_config.finalizing && !*(const volatile u64 *)&control()->workers_gone &&
		   *(const volatile u64 *)pl_config.interpreters_head == pl_config.main_interpreter &&
		   load64(thread, LAYOUT->thread_id) == thread_self() &&
		   load64(thread, LAYOUT->thread_interpreter) == pl_config.main_interpreter &&
		   (!pl_config.thread_tid || load32(thread, pl_config.thread_native_id) ==
						     load32(thread_pointer(), pl_config.thread_tid))))
		return true;
	__atomic_store_n(reading, 0, __ATOMIC_RELEASE);
	return false;
}

/* The state of this thread, which has not got the GIL, if its frames may be looked at until detached_end(); else 0. */
inlined u64 detached_begin(const struct pl_inline_slot *own, bool *ret_reading)
{
	u64 thread = own ? detached_thread() : 0;

	*ret_reading = !thread && reading_begin(own);
	return *ret_reading ? own->thread : thread;
}

inlined void detached_end(const struct pl_inline_slot *own, bool reading)
{
	if (reading)
		__atomic_store_n((u8 *)pl_config.reading + own->number, 0, __ATOMIC_RELEASE);
}

/* Whether what is to be freed must stay: see above. */
inlined bool must_stay(void)
{
	return pl_config.finalizing && unlikely(*(const volatile u64 *)pl_config.finalizing) && pl_anyone_is_reading();
}

/* Of the raw domain, where thread states are. */
inlined void state_freed(struct pl_inline_slot *own, u64 pointer)
{
	if (own->thread == pointer)
		own->thread = 0;
	/* Or the next state at this address would not be seen as another one. */
	if (slot_zero()->thread == pointer)
		slot_zero()->thread = 0;
}

/* The slot, unless this is a signal handler that interrupted a hook of the same thread at work on it: deeper on the same
 * stack, or on an alternate one, which may lie on either side. */
inlined struct pl_inline_slot *claim(struct pl_inline_slot *own)
{
	/* A little above what stands there, or far above on what is known to be the same stack: a hook that somebody jumped
	 * out of. */
	if (!own || unlikely(own->busy && stack_pointer() - own->busy > SAME_STACK && !pl_is_above(own->busy)))
		return NULL;
	own->busy = stack_pointer();
	return own;
}

/* Whether the plain totals may be added to: `thread`, which runs here, has the main GIL. An interpreter that no hook of
 * the GIL has seen yet may have one of its own. */
inlined bool has_main_gil(u64 thread)
{
	if (!thread || __atomic_load_n(&control()->mode, __ATOMIC_RELAXED) & PL_INLINE_MANY)
		return false;
	return !pl_config.gil || load64(thread, LAYOUT->thread_interpreter) == slot_zero()->interpreter;
}

inlined bool is_armed(void) { return pl_inline_is_armed(__atomic_load_n(&control()->mode, __ATOMIC_RELAXED)); }
inlined u32 sampling(void) { return pl_inline_sampling(control()->mode); }

/* By what this allocation is one of the sample, its size has been taken off the countdown; 0: it is none. A block of
 * no bytes counts as one byte, or it could never be found. */
static cold u32 sample_fires(struct pl_inline_slot *slot, u64 size)
{
	const u32 now = sampling();
	u32 taken = slot->drawn;

	if (!now)
		return 0; /* disarmed meanwhile */
	if (!taken) {
		taken = now;
		slot->countdown = pl_sample_draw(slot, now) - (int64_t)(size | !size);
		if (slot->countdown >= 0) {
			slot->drawn = now;
			return 0;
		}
	}
	/* Memoryless: how far it went below zero does not matter. */
	slot->countdown = pl_sample_draw(slot, now);
	slot->drawn = now;
	slot->fired = taken;
	return taken;
}

inlined bool sample_counts_down(struct pl_inline_slot *slot, u64 size)
{
	slot->countdown -= (int64_t)(size | !size);
	return slot->countdown < 0;
}

/* Tells apart the rows of one trace by the size of their blocks: to the byte below 1 KiB, to 1/64
 * above, so that one probability holds for all blocks of a row; and by the rate, which is in the lowest byte. */
#define SALT_SAMPLED(hash, taken) (((hash) & ~(u64)0xff) | (taken) << 1 | 1)
#define SALT_EXACT(hash) ((hash) & ~(u64)1)
static __attribute__((unused)) cold u64 sample_salt(u64 size, u32 taken)
{
	u32 shift = size < 1024 ? 0 : 57 - (u32)__builtin_clzll(size);

	return SALT_SAMPLED(mix(mix(4, shift), size >> shift), taken);
}

#endif
