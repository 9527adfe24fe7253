/* SPDX-License-Identifier: MIT */
#include "record.h"

/* Copies of the native stack: what may be read, and when, is in inline_abi.h. */

/* Where the stack that `sp` is on ends; 0: not known. */
static u64 stack_end(const struct pl_inline_slot *slot, u64 sp)
{
	const u64 low = control()->main_low, high = control()->main_high, self = thread_pointer();
	struct pl_inline_bounds *bounds;

	if (sp >= low && sp < high)
		return control()->main_check == pl_inline_bounds_check(0, low, high) ? high : 0;
	bounds = (struct pl_inline_bounds *)pl_config.bounds + ((u64)slot - pl_config.slots) / pl_config.slot_stride;
	if (bounds->owner != self) {
		bounds->owner = self;
		count_up(&control()->bounds_wanted);
		return 0;
	}
	return bounds->check == pl_inline_bounds_check(self, bounds->low, bounds->high) && sp >= bounds->low && sp < self &&
			       self < bounds->high
		       ? self
		       : 0;
}

/* The next place in the ring, if the tracer has granted one; the claim + 1. */
static u64 claim_stack(struct pl_inline_stack **ret)
{
	u64 claim = __atomic_load_n(&control()->next_stack, __ATOMIC_RELAXED), left = control()->granted_stacks - claim;

	/* More than there are places: whoever wrote that is no tracer. */
	if (!left || left > PL_INLINE_STACKS ||
		!__atomic_compare_exchange_n(&control()->next_stack, &claim, claim + 1, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
		return 0;
	*ret = (struct pl_inline_stack *)pl_config.stacks + claim % PL_INLINE_STACKS;
	return claim + 1;
}

/* `frame` is that of the hook. */
cold void pl_stack_copy(const struct pl_inline_slot *slot, u32 site, u64 block, u64 size, u64 caller, u64 frame)
{
	const u64 sp = frame_caller_sp(frame), end = stack_end(slot, sp);
	const bool native = ((const struct pl_inline_site *)pl_config.sites)[site].kind == 1;
	uint16_t *skip = (uint16_t *)pl_config.skips + site;
	u32 *entry = block & 15 ? NULL : granule(block);
	u64 bytes = end - sp, sequence;
	struct pl_inline_stack *stack;

	/* Where a jump to the hook was made a call, its frame is not the one below the caller's. */
	if (!end || !entry || ENTRY_SITE(*entry) != site || frame_return(frame) != caller) {
		*skip = native ? PL_INLINE_SKIP_UNREADABLE : 0;
		return;
	}
	sequence = claim_stack(&stack);
	if (!sequence)
		return;
	if (bytes > sizeof(stack->copy))
		bytes = sizeof(stack->copy);
	/* The reader (engine/inline_stacks.c) looks at the sequence before and after: the new words must not be seen
	 * before the old sequence is gone. A release orders what comes before it. */
	__atomic_store_n(&stack->sequence, 0, __ATOMIC_RELAXED);
	fence_between_stores();
	stack->block = block;
	stack->size = size;
	stack->pc = caller;
	stack->sp = sp;
	stack->bp = frame_of_caller(frame);
	stack->site = site;
	stack->bytes = (u32)(bytes & ~(u64)7);
	stack->meanwhile = (u32)slot_zero()->last_site;
	stack->tid = pl_config.thread_tid ? load32(thread_pointer(), pl_config.thread_tid) : 0;
	copy_words(stack->copy, sp, bytes);
	*entry |= PL_INLINE_ENTRY_STACK;
	*skip = native ? PL_INLINE_SKIP_ALL : 0;
	__atomic_store_n(&stack->sequence, sequence, __ATOMIC_RELEASE);
}
