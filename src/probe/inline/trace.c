/* SPDX-License-Identifier: MIT */
#include "walk.h"

/* The walk when a cache misses, the site table, the thread slots. */

#define POINTER_MASK (((u64)1 << OWNER_SHIFT) - 1)

/* Where the bytecode that `frame` runs begins: of the thread's own copy in free-threaded 3.14+. */
static u64 bytecode_start(u64 frame, u64 code)
{
	if (LAYOUT->code_tlbc >= 0 && LAYOUT->frame_tlbc_index >= 0) {
		u64 copies = load64(code, LAYOUT->code_tlbc);
		u32 index = load32(frame, LAYOUT->frame_tlbc_index);

		/* _PyCodeArray: size, then entries; entry 0 is the main copy. */
		if (copies && index < load64(copies, 0))
			return load64(copies, (int32_t)(8 + 8 * index));
	}
	return code + (u64)(int64_t)LAYOUT->code_bytecode;
}

/* What the trace says of a frame at this instruction; record PL_INLINE_CODE_NONE if tracemalloc would not
 * show it. */
static struct pl_inline_known resolve(u64 frame, u64 instruction)
{
	struct pl_inline_known known = {.code = frame_code(frame)};
	u64 owner = LAYOUT->instruction_is_index ? 0 : instruction >> OWNER_SHIFT;
	int64_t offset;

	if (owner >= LAYOUT->owner_skip_min || !known.code)
		return known;
	/* f_executable of 3.13+ may be None. */
	if (pl_config.code_type && load64(known.code, LAYOUT->object_type) != pl_config.code_type)
		return known;
	if (LAYOUT->instruction_is_index) {
		offset = (int64_t)(int32_t)instruction * LAYOUT->instruction_scale;
	} else {
		offset = (int64_t)((instruction & POINTER_MASK) - bytecode_start(frame, known.code));
		/* _PyFrame_IsIncomplete(): still copying cells and free variables, or making the generator. */
		if (owner != LAYOUT->owner_generator &&
			offset < 2 * (int64_t)(int32_t)load32(known.code, LAYOUT->code_first_traceable))
			return known;
	}
	if (offset < 0 || offset > INT32_MAX)
		offset = -1;
	known.offset = (u32)offset;
	known.record = pl_code_record(known.code);
	return known;
}

static u64 frame_word(const struct pl_inline_known *known)
{
	return (u64)known->record << 32 | known->offset;
}

static void chain_walk(struct pl_inline_chain *chain, u64 frame)
{
	u64 hash = 1, limit = pl_config.frame_limit - 1, found = 0;
	u32 count = 0, walk = (u32)PL_INLINE_WALK(pl_config.frame_limit);
	struct pl_inline_known *known = known_of(chain);

	chain->valid = 0;
	chain->cut = 1;
	while (found < limit && count < walk) {
		u64 instruction;

		if (!frame) {
			chain->cut = 0;
			break;
		}
		instruction = frame_instruction(frame);
		chain->link[count].frame = frame;
		chain->link[count].instruction = instruction & POINTER_MASK;
		known[count] = resolve(frame, instruction);
		if (known[count].record) {
			hash = mix(hash, frame_word(&known[count]));
			found++;
		}
		count++;
		frame = frame_previous(frame);
	}
	if (chain->cut && !frame)
		chain->cut = 0;
	chain->more = chain->cut;
	chain->count = count;
	chain->hash = hash;
	chain->valid = 1;
}

static bool site_fill(
	u32 site, u64 hash, const struct pl_inline_known *top, const struct pl_inline_chain *chain, bool more, u64 native)
{
	struct pl_inline_site *row = (struct pl_inline_site *)pl_config.sites + site;
	const struct pl_inline_known *known = chain ? known_of(chain) : NULL;
	u64 *frames = (u64 *)pl_config.frames;
	u64 count = top != NULL, first;

	for (u32 i = 0; chain && i < chain->count; i++)
		count += known[i].record != PL_INLINE_CODE_NONE;
	first = __atomic_fetch_add(&control()->next_frame, count + (native != 0), __ATOMIC_RELAXED);
	if (first + count + (native != 0) > pl_config.frames_limit)
		return false;
	if (native)
		frames[first++] = native;
	row->frames = (u32)first;
	row->count = (uint16_t)count;
	row->more = more;
	row->domain = native != 0;
	if (top)
		frames[first++] = frame_word(top);
	for (u32 i = 0; chain && i < chain->count; i++)
		if (known[i].record != PL_INLINE_CODE_NONE)
			frames[first++] = frame_word(&known[i]);
	__atomic_store_n(&row->hash, hash, __ATOMIC_RELEASE);
	return true;
}

/* The site with this hash. Two traces of one hash would share a row: at a million sites, one chance
 * in thirty million. */
static u32 site_find(
	u64 hash, const struct pl_inline_known *top, const struct pl_inline_chain *chain, bool more, u64 native)
{
	const struct pl_inline_site *sites = (const struct pl_inline_site *)pl_config.sites;
	u32 *index = (u32 *)pl_config.index;
	u64 number;
	u32 site = 0;

	hash |= !hash;
	for (u32 i = 0; i < PL_INLINE_PROBES; i++) {
		u32 *word = &index[(hash + i) & pl_config.index_mask];
		u32 found = __atomic_load_n(word, __ATOMIC_ACQUIRE);

		if (!found) {
			if (!site) {
				number =
					PL_INLINE_SITE_FIRST + __atomic_load_n(&control()->next_site, __ATOMIC_RELAXED);
				if (number >= pl_config.site_limit)
					break;
				number = PL_INLINE_SITE_FIRST +
					 __atomic_fetch_add(&control()->next_site, 1, __ATOMIC_RELAXED);
				if (number >= pl_config.site_limit || !site_fill((u32)number, hash, top, chain, more, native))
					break;
				site = (u32)number;
			}
			/* The loser of a race for the same trace leaves a row that nothing points to. */
			if (__atomic_compare_exchange_n(word, &found, site, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
				return site;
		}
		if (sites[found].hash == hash)
			return found;
	}
	count_up(&control()->lost_sites);
	return PL_INLINE_SITE_LOST;
}

/* The site of what has no Python frame. */
u32 pl_trace_nowhere(u64 salt, u64 native)
{
	return salt ? site_find(mix(3, salt), NULL, NULL, false, native) : PL_INLINE_SITE_UNKNOWN;
}

/* The same for a thread that allocates so again and again. No code object is at an address of 0. */
u32 pl_trace_native(struct pl_inline_slot *slot, u64 salt, u64 native)
{
	struct pl_inline_top *top = top_of(slot, 0, native, salt);

	if (likely(!top->code && top->instruction == native && top->chain == salt && top->site))
		return top->site;
	top->site = 0;
	top->code = 0;
	top->instruction = native;
	top->chain = salt;
	top->site = pl_trace_nowhere(salt, native);
	return top->site;
}

u32 pl_trace_slow(struct pl_inline_slot *slot, u64 frame, u64 salt, u64 native)
{
	u32 walk = (u32)PL_INLINE_WALK(pl_config.frame_limit);

	for (u32 i = 0; i < walk && frame; i++) {
		struct pl_inline_chain *chain = NULL;
		u64 caller = frame_previous(frame), instruction = frame_instruction(frame), hash = salt;
		struct pl_inline_known known = resolve(frame, instruction);
		struct pl_inline_top *top;

		if (known.record == PL_INLINE_CODE_NONE) {
			frame = caller;
			continue;
		}
		if (pl_config.frame_limit > 1) {
			chain = chain_of(slot, caller);
			if (!chain_holds(chain, caller))
				chain_walk(chain, caller);
			hash = chain->hash ^ salt;
		}
		top = top_of(slot, known.code, instruction, hash);
		if (top->code == known.code && top->instruction == instruction && top->chain == hash && top->site)
			return top->site;
		top->site = 0;
		top->code = known.code;
		top->instruction = instruction;
		top->chain = hash;
		top->site = site_find(mix(mix(2, hash), frame_word(&known)), &known, chain, chain ? chain->more : caller != 0,
			native);
		return top->site;
	}
	return pl_trace_nowhere(salt, native);
}

static void slot_forget(struct pl_inline_slot *slot)
{
	for (u32 i = 0; i < PL_INLINE_TOPS; i++)
		slot->top[i].site = 0;
	for (u32 i = 0; i < PL_INLINE_CHAINS; i++)
		((struct pl_inline_chain *)((u64)(slot + 1) + i * pl_config.chain_stride))->valid = 0;
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
		generation = __atomic_load_n(&control()->code_generation, __ATOMIC_ACQUIRE);
		if (unlikely(slot->code_generation != generation)) {
			slot_forget(slot);
			slot->code_generation = generation;
		}
		return slot;
	}
	return NULL;
}
