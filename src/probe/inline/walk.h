/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_PROBE_INLINE_WALK_H
#define PYLEAK_PROBE_INLINE_WALK_H

#include "probe.h"

/*
 * From the running thread to the number of its site, when the caches know it: the callers are compared
 * frame by frame with the stack as it was seen last, then (callers, top frame) is looked up.
 *
 * The walk follows the addresses that are remembered and only checks that the frames still link
 * to them. So the loads do not wait for each other as a walk along `previous` would: 16 frames cost
 * what their loads cost, not 16 times the latency of the cache.
 *
 * One stack and not a table of many: between two allocations a frame or two have changed, whatever the
 * program does, and what is compared stays in the nearest cache.
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

inlined u16 *level_hint(struct pl_inline_slot *slot, u64 frame)
{
	return &slot->level_of[frame >> 3 & (PL_INLINE_LEVEL_HASHES - 1)];
}

/* The level of a frame whose callers are all known; PL_INLINE_LEVELS: there is none. */
inlined u32 level_of(struct pl_inline_slot *slot, u64 frame)
{
	u32 number = *level_hint(slot, frame);

	if (number >= slot->levels || slot->level[number].frame != frame || slot->window[number].low == PL_INLINE_LEVELS)
		return PL_INLINE_LEVELS;
	return number;
}

/*
 * Whether the stack still is what the levels say, from this one down. The owner of a frame need not be compared: a
 * frame at the same address with the same code is still of the same kind (a generator's lies in its object, a shim has
 * other code).
 *
 * Each address is taken from the level and not from the frame above, which is only compared with it; so nothing is read
 * from a frame that the one above has not just linked to. The address is hidden from the compiler before it learns that
 * the two are equal, or it goes on with the loaded one.
 */
inlined bool levels_match(const struct pl_inline_slot *slot, u32 number, const bool is_index, const bool enough)
{
	const struct pl_inline_level *level = &slot->level[number];
	const struct pl_inline_window *window = &slot->window[number];
	const struct pl_inline_level *low = &slot->level[window->low];
	const u64 mask = LAYOUT->code_mask, code = (u64)(int64_t)LAYOUT->frame_code,
		  instruction = (u64)(int64_t)LAYOUT->frame_instruction, previous = (u64)(int64_t)LAYOUT->frame_previous;
	u64 at;

#define AT(base, offset) (*(const u64 *)((base) + (offset)))
#define MATCH                                                                                                          \
	do {                                                                                                           \
		at = level->frame;                                                                                     \
		__asm__("" : "+r"(at));                                                                                \
		if (!enough && (AT(at, code) & mask) != level->code)                                                   \
			return false;                                                                                  \
		if (is_index ? (u32)AT(at, instruction) != (u32)level->instruction                                     \
			     : AT(at, instruction) != level->instruction)                                              \
			return false;                                                                                  \
	} while (0)
#define FOLLOW                                                                                                         \
	do {                                                                                                           \
		level--;                                                                                               \
		if (AT(at, previous) != level->frame)                                                                  \
			return false;                                                                                  \
	} while (0)
	/* Four at a time: what is left is six instructions a frame. */
	while (level - low >= 4) {
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
		if (level == low)
			return (AT(at, previous) != 0) == window->cut;
		FOLLOW;
	}
#undef FOLLOW
#undef MATCH
#undef AT
}

inlined bool levels_hold(const struct pl_inline_slot *slot, u32 number)
{
	if (likely(instruction_is_enough()))
		return levels_match(slot, number, false, true);
	return LAYOUT->instruction_is_index ? levels_match(slot, number, true, false)
					    : levels_match(slot, number, false, false);
}

/* The hash of no callers at all. */
#define NO_CALLERS 1

/* Which set, and which key: see struct pl_inline_top. */
inlined u64 top_hash(u64 instruction, u64 callers)
{
	return (instruction ^ callers) * 0x9e3779b97f4a7c15ull;
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
		u64 caller = frame_previous(frame), callers = NO_CALLERS;

		if (likely(caller)) {
			const u32 number = level_of(slot, caller);

			if (unlikely(number == PL_INLINE_LEVELS || !levels_hold(slot, number)))
				return pl_trace_slow(slot, frame, salt, native);
			callers = slot->window[number].hash;
		}
		hash = callers ^ salt;
	}
	hash = top_hash(instruction, hash);
	site = top_site(top_set(slot, hash), code, hash);
	if (likely(site))
		return site;
	return pl_trace_slow(slot, frame, salt, native);
}

#endif
