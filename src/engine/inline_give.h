/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_INLINE_GIVE_H
#define PYLEAK_ENGINE_INLINE_GIVE_H

#include "inline_memory.h"
#include "inline_read.h"
#include "pyleak/hook.h"

/*
 * Chunks of the recorder's map that came to hold nothing are given back to the system, while it goes on: how, and why that is
 * safe, is in inline_abi.h. A chunk is for 64 MiB of addresses: what one live block is in stays. It is looked for them
 * when much was freed since the last look.
 */
struct inline_give {
	uint64_t freed;   /* bytes, as of the last look */
	int64_t next_ns;
	bool wanted;      /* by the limit of the tables, before it has allocations sampled */
	uint64_t looks;   /* so far */
	uint64_t chunks, pages; /* given back, for --verbose */
};

/* After a pass of the reader. For how long a thread was held at most. */
int64_t inline_give_look(struct inline_give *give, const struct pl_probe *probe, struct inline_memory *memory,
			 const struct pl_inline_reader *reader, bool claimed);

#endif
