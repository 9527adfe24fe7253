/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_INLINE_STACKS_H
#define PYLEAK_ENGINE_INLINE_STACKS_H

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
 * What is written into the process is written through a file descriptor that is bound to its memory as it was when the
 * probe was found in it, so that no later program can be meant; by who has the claim, so that nobody removes the probe
 * meanwhile; and only into the probe's own data.
 */
struct inline_stacks {
	pid_t pid;
	uint64_t base; /* of the probe */
	const char *python; /* path of the interpreter's object */
	int limit;     /* frames wanted of each; 0: no stacks at all */
	int memory_fd; /* /proc/PID/mem; -1: not to be had */
	bool ready;
	bool looked;
	uint64_t seen; /* claims that were read, or given up */
	int64_t waiting_since_ns; /* for a claim that is not complete; 0: for none */
	uint64_t bounds_seen;
	int64_t next_bounds_ns, next_look_ns;
	struct stack_samples samples; /* by the recorder's number */
	size_t cursor;                /* of them: where the next review begins */
	uint64_t random;
	size_t growing[PL_INLINE_STACKS]; /* sites of which a stack was read in this look, and more are wanted at once */
	size_t growing_count;
	uint64_t chunk_high, chunk; /* of the shadow map, the last one that was asked for */
	uint64_t count;       /* stacks unwound, … */
	int64_t unwound_ns;   /* … which took so long */
};

/* The memory is opened when it is first needed. */
void inline_stacks_init(struct inline_stacks *stacks, const struct pl_python *python, uint64_t base, int limit);
void inline_stacks_free(struct inline_stacks *stacks);
/* Every 20 ms: reads what there is, and grants more. `claimed`: the process is this pyleak's. */
void inline_stacks_look(struct inline_stacks *stacks, const struct pl_inline_reader *reader,
			struct native_callers *callers, bool claimed);
/* After a pass of the reader, some of the sites in turn: which samples still live, which stack the site has, and
 * whether more of it are wanted. */
void inline_stacks_review(struct inline_stacks *stacks, const struct pl_inline_reader *reader, bool claimed, size_t count);
/* Nothing is copied any more. */
void inline_stacks_end(struct inline_stacks *stacks, const struct pl_inline_reader *reader, bool claimed);

#endif
