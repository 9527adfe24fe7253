/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_PROBE_INLINE_WALK_H
#define PYLEAK_PROBE_INLINE_WALK_H

#include "probe.h"

/*
 * From the running thread to the number of its site, when the caches know it: the chain of callers
 * is compared frame by frame with one walked before, then (chain, top frame) is looked up.
 *
 * The walk follows the addresses that the cache remembers and only checks that the frames still link
 * to them. So the loads do not wait for each other as a walk along `previous` would: 16 frames cost
 * what their loads cost, not 16 times the latency of the cache.
 */

#define LAYOUT (&pl_config.layout)
#define OWNER_SHIFT 56

inlined u64 frame_code(u64 frame)
{
	return load64(frame, LAYOUT->frame_code) & LAYOUT->code_mask;
}
inlined u64 frame_previous(u64 frame)
{
	return load64(frame, LAYOUT->frame_previous);
}

/* The instruction as the frame has it; from 3.11 on with the owner of the frame in the top byte,
 * which decides with it whether the frame is a complete one. */
inlined u64 frame_instruction(u64 frame)
{
	if (LAYOUT->instruction_is_index)
		return load32(frame, LAYOUT->frame_instruction);
	return load64(frame, LAYOUT->frame_instruction) | (u64)load8(frame, LAYOUT->frame_owner) << OWNER_SHIFT;
}

/* Whether an instruction says by itself whose it is: it is an address in the code object, and the caches
 * forget a code object that dies. Not an index (<= 3.10), and not an address in a thread's own copy of the
 * bytecode (free-threaded 3.14+), which can go while the code object stays. */
inlined bool instruction_is_enough(void)
{
	return !LAYOUT->instruction_is_index && LAYOUT->code_tlbc < 0;
}

/* The first of the chains that may be this caller's: callers differ by their frame and by where in it they are. */
inlined struct pl_inline_chain *chain_set(struct pl_inline_slot *slot, u64 caller)
{
	u64 key = 0;

	if (likely(caller)) {
		key = LAYOUT->instruction_is_index ? load32(caller, LAYOUT->frame_instruction)
						   : load64(caller, LAYOUT->frame_instruction);
		/* No multiplication: what comes after this waits for it. */
		key = (caller >> 4 ^ key >> 1) & ((1 << PL_INLINE_CHAIN_BITS) - 1);
	}
	return (struct pl_inline_chain *)((u64)(slot + 1) + key * pl_config.set_stride);
}

inlined const struct pl_inline_chain *chain_way(const struct pl_inline_chain *first, u32 way)
{
	return (const struct pl_inline_chain *)((u64)first + way * pl_config.chain_stride);
}

/*
 * Whether the frames from `frame` on are the chain's. The owner of a frame need not be compared: a frame at the
 * same address with the same code is still of the same kind (a generator's lies in its object, a shim has other
 * code).
 *
 * Each address is taken from the chain and not from the frame before it, which is only compared with it; so
 * nothing is read from a frame that the one above has not just linked to. The address is hidden from the compiler
 * before it learns that the two are equal, or it goes on with the loaded one.
 */
inlined bool chain_matches(const struct pl_inline_chain *chain, u64 frame, const bool is_index, const bool enough)
{
	const u32 words = enough ? 2 : PL_INLINE_LINK_WORDS;
	const u64 *link = chain->link, *end = link + chain->count * words;
	const u64 mask = LAYOUT->code_mask, code = (u64)(int64_t)LAYOUT->frame_code,
		  instruction = (u64)(int64_t)LAYOUT->frame_instruction, previous = (u64)(int64_t)LAYOUT->frame_previous;
	u64 at;

	if (unlikely(link == end))
		return chain->cut || !frame;
	if (frame != *link)
		return false;
#define AT(base, offset) (*(const u64 *)((base) + (offset)))
#define MATCH                                                                                                          \
	do {                                                                                                           \
		at = link[0];                                                                                          \
		__asm__("" : "+r"(at));                                                                                \
		if (!enough && (AT(at, code) & mask) != link[2])                                                       \
			return false;                                                                                  \
		if (is_index ? (u32)AT(at, instruction) != (u32)link[1] : AT(at, instruction) != link[1])              \
			return false;                                                                                  \
		link += words;                                                                                         \
	} while (0)
#define FOLLOW                                                                                                         \
	do {                                                                                                           \
		if (AT(at, previous) != *link)                                                                         \
			return false;                                                                                  \
	} while (0)
	/* Four at a time: what is left is six instructions a frame. */
	while (end - link > 4 * words) {
		MATCH;
		FOLLOW;
		MATCH;
		FOLLOW;
		MATCH;
		FOLLOW;
		MATCH;
		FOLLOW;
	}
	for (;;) {
		MATCH;
		if (link == end)
			return chain->cut || !AT(at, previous);
		FOLLOW;
	}
#undef FOLLOW
#undef MATCH
#undef AT
}

inlined bool chain_holds(const struct pl_inline_slot *slot, const struct pl_inline_chain *chain, u64 frame)
{
	if (unlikely(chain->generation - 1 != slot->chain_generation))
		return false;
	if (likely(instruction_is_enough()))
		return chain_matches(chain, frame, false, true);
	return LAYOUT->instruction_is_index ? chain_matches(chain, frame, true, false)
					    : chain_matches(chain, frame, false, false);
}

/* Which set, and which key: see struct pl_inline_top. */
inlined u64 top_hash(u64 instruction, u64 chain)
{
	return (instruction ^ chain) * 0x9e3779b97f4a7c15ull;
}

inlined struct pl_inline_top *top_set(struct pl_inline_slot *slot, u64 hash)
{
	return slot->top[hash >> (64 - PL_INLINE_TOP_BITS)];
}

/* The site that the set knows of this code object and hash, or 0. */
inlined u32 top_site(const struct pl_inline_top *set, u64 code, u64 hash)
{
	const u64 mask = ((u64)1 << PL_INLINE_TOP_KEY_SHIFT) - 1, key = hash << PL_INLINE_TOP_BITS;

	for (u32 i = 0; i < PL_INLINE_TOP_WAYS; i++)
		if (set[i].code == code && (set[i].key ^ key) <= mask)
			return (u32)(set[i].key & mask);
	return 0;
}

inlined u64 thread_frame(u64 thread)
{
	u64 frame = load64(thread, LAYOUT->thread_frame);

	if (LAYOUT->cframe_frame >= 0 && frame)
		frame = load64(frame, LAYOUT->cframe_frame);
	return frame;
}

/* salt: 0, or what tells apart the rows of one trace (sampling, native callers). native: the address that
 * a native allocator was called from, 0: a Python one. */
inlined u32 trace(struct pl_inline_slot *slot, u64 thread, u64 salt, u64 native)
{
	u64 frame = thread_frame(thread), code, instruction, hash = salt;
	u32 site;

	if (unlikely(!frame))
		return pl_trace_nowhere(salt, native);
	code = frame_code(frame);
	instruction = frame_instruction(frame);
	if (pl_config.frame_limit > 1) {
		u64 caller = frame_previous(frame);
		const struct pl_inline_chain *chain = chain_set(slot, caller);

		if (unlikely(!chain_holds(slot, chain, caller))) {
			chain = pl_chain_other_way(slot, caller);
			if (unlikely(!chain))
				return pl_trace_slow(slot, frame, salt, native);
		}
		hash = chain->hash ^ salt;
	}
	hash = top_hash(instruction, hash);
	site = top_site(top_set(slot, hash), code, hash);
	if (likely(site))
		return site;
	return pl_trace_slow(slot, frame, salt, native);
}

#endif
