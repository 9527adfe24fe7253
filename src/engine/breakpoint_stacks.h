/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_BREAKPOINT_STACKS_H
#define PYLEAK_ENGINE_BREAKPOINT_STACKS_H

#include "native_stack.h"
#include "pyleak/arch.h"
#include "stack_samples.h"

/*
 * Native stacks of the breakpoint engine: the thread stands still, and libunwind walks its stack where it is. For a
 * part of the allocations: each site's first one, then at random, and all in all a quarter of the time at most.
 */
struct breakpoint_stacks {
	struct pl_space *memory; /* of the process; borrowed */
	const char *python; /* path of the interpreter's object */
	int limit; /* frames wanted of each; 0: no stacks at all */
	struct pl_sites *sites;
	struct pl_unwinder *unwinder; /* NULL: not needed yet, as the two below */
	void *space;
	void *process;
	struct stack_samples samples; /* by the site's number */
	int64_t next_ns;
	uint64_t random;
};

void breakpoint_stacks_free(struct breakpoint_stacks *stacks);
/* After an allocation of this site, in a thread whose registers are those that the caller of the allocator will have.
 * True: the block was sampled. */
bool breakpoint_stacks_take(struct breakpoint_stacks *stacks, pid_t tid, const pl_registers *regs, uint32_t site,
			    uint64_t block);
/* Which samples still live is asked by `is_live`; then each site gets its stack. */
void breakpoint_stacks_review(struct breakpoint_stacks *stacks,
			      bool (*is_live)(void *context, uint32_t site, uint64_t block), void *context);

#endif
