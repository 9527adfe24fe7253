/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_INLINE_STACKS_H
#define PYLEAK_ENGINE_INLINE_STACKS_H

#include "inline_asks.h"
#include "inline_memory.h"
#include "inline_read.h"
#include "native_caller.h"
#include "stack_samples.h"

/*
 * Native stacks of the inline engine: grants the recorder copies of stacks, unwinds them outside of the process, and
 * gives the sites theirs. How the two halves play together is in inline_abi.h. Nobody stops.
 *
 * Why not by rare stops. Measured on two cores of an EPYC, three rounds in turns: a loop of malloc and free through ctypes
 * takes 2.87 to 2.89 of its bare time without copies and 2.80 to 2.90 with them, while a stop takes 24 µs at best (the
 * breakpoint engine's, with an idle processor for the tracer) and 190 to 270 µs where the processors are busy, and needs
 * a tracer that is attached all the time.
 *
 * Of a thread of a library's own it is said what it runs, and which line was busy meanwhile, but not whom it works for. What
 * could be known of that is who started it, and who woke it at last. Measured on jax's CPU backend with a library that was
 * preloaded (condition variables, semaphores, futexes; one run of 200 steps, of a line that keeps arrays and one beside it
 * that does not): who started it is none of the two; who woke it at last was right for 151 of the 200 arrays that are kept,
 * and blamed the wrong line of the two for the others, as for 25 of 200 of those that are not.
 */
struct inline_stacks {
	struct inline_memory *memory; /* of the engine */
	const char *python; /* path of the interpreter's object */
	int limit;     /* frames wanted of each; 0: no stacks at all */
	bool looked;
	uint64_t seen; /* claims that were read, or given up */
	int64_t waiting_since_ns; /* for a claim that is not complete; 0: for none */
	uint64_t bounds_seen;
	int64_t next_bounds_ns, next_look_ns;
	struct stack_samples samples; /* by the recorder's number */
	size_t cursor;                /* of them: where the next review begins */
	struct inline_asks asks;      /* of Python's own allocators */
	uint64_t random;
	size_t growing[PL_INLINE_STACKS]; /* sites of which a stack was read in this look, and more are wanted at once */
	size_t growing_count;
	uint64_t count;       /* stacks unwound, … */
	int64_t unwound_ns;   /* … which took so long */
};

void inline_stacks_init(struct inline_stacks *stacks, const struct pl_python *python, struct inline_memory *memory, int limit);
void inline_stacks_free(struct inline_stacks *stacks);
/* Every 20 ms: reads what there is, and grants more. `claimed`: the process is this pyleak's. `paced`: what is unwound is in no
 * hurry (trace.h). */
void inline_stacks_look(struct inline_stacks *stacks, const struct pl_inline_reader *reader,
			struct native_callers *callers, bool claimed, bool paced);
/* After a pass of the reader, some of the sites in turn: which samples still live, which stack the site has, and
 * whether more of it are wanted. */
void inline_stacks_review(struct inline_stacks *stacks, const struct pl_inline_reader *reader, bool claimed, size_t count);
/* Nothing is copied any more. */
void inline_stacks_end(struct inline_stacks *stacks, const struct pl_inline_reader *reader, bool claimed);

#endif
