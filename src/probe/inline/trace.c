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

/* What a frame turned out to be. */
struct known {
	u64 code;
	u32 record, offset; /* record PL_INLINE_CODE_NONE: a shim or incomplete, not part of the trace */
};

/* What the trace says of a frame at this instruction; record PL_INLINE_CODE_NONE if tracemalloc would not
 * show it. */
static struct known resolve(u64 frame, u64 instruction)
{
	struct known known = {.code = frame_code(frame)};
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

static u64 frame_word(const struct known *known)
{
	return (u64)known->record << 32 | known->offset;
}

/* The same, remembered: what a code object has at an instruction does not change while it lives. Not where threads
 * have copies of the bytecode, which may go before the code object does. */
static struct known resolve_seen(struct pl_inline_slot *slot, u64 frame, u64 instruction)
{
	u64 code = frame_code(frame);
	struct pl_inline_seen *seen = &slot->seen[(code ^ instruction << 3) * 0x9e3779b97f4a7c15ull >>
						  (64 - PL_INLINE_SEEN_BITS)];
	struct known known;

	if (likely(seen->code == code && seen->instruction == instruction && seen->word))
		return (struct known){code, (u32)(seen->word >> 32), (u32)seen->word};
	known = resolve(frame, instruction);
	if (known.record != PL_INLINE_CODE_NONE && LAYOUT->code_tlbc < 0) {
		seen->word = 0;
		seen->code = code;
		seen->instruction = instruction;
		seen->word = frame_word(&known);
	}
	return known;
}

static void chain_walk(struct pl_inline_slot *slot, struct pl_inline_chain *chain, u64 frame)
{
	u64 hash = 1, limit = pl_config.frame_limit - 1, found = 0, *link = chain->link;
	u32 count = 0, walk = (u32)PL_INLINE_WALK(pl_config.frame_limit);
	const bool enough = instruction_is_enough();

	chain->generation = slot->chain_generation;
	for (; frame && found < limit && count < walk; count++) {
		u64 instruction = frame_instruction(frame);
		struct known known = resolve_seen(slot, frame, instruction);

		*link++ = frame;
		*link++ = instruction & POINTER_MASK;
		if (!enough)
			*link++ = known.code;
		if (known.record) {
			hash = mix(hash, frame_word(&known));
			found++;
		}
		frame = frame_previous(frame);
	}
	chain->cut = frame != 0;
	chain->count = (uint16_t)count;
	chain->hash = mix(hash, chain->cut);
	chain->generation = slot->chain_generation + 1;
}

/* The chain of these callers, if it is in another than the first place of its set. */
const struct pl_inline_chain *pl_chain_other_way(struct pl_inline_slot *slot, u64 caller)
{
	const struct pl_inline_chain *chain = chain_set(slot, caller);

	for (u32 i = 1; i < PL_INLINE_CHAIN_WAYS; i++) {
		chain = chain_way(chain, 1);
		if (chain_holds(slot, chain, caller))
			return chain;
	}
	return NULL;
}

/* The chain of these callers, walked if it is not known. */
static const struct pl_inline_chain *chain_of(struct pl_inline_slot *slot, u64 caller)
{
	struct pl_inline_chain *first = chain_set(slot, caller), *victim;
	const struct pl_inline_chain *chain = chain_holds(slot, first, caller) ? first : pl_chain_other_way(slot, caller);

	if (chain)
		return chain;
	victim = (struct pl_inline_chain *)chain_way(first, slot->chain_victim++ % PL_INLINE_CHAIN_WAYS);
	chain_walk(slot, victim, caller);
	return victim;
}

/* The words of the chain's frames, which are those on the stack now; to NULL: only how many. */
static u64 chain_words(struct pl_inline_slot *slot, const struct pl_inline_chain *chain, u64 *to)
{
	const u32 words = instruction_is_enough() ? 2 : PL_INLINE_LINK_WORDS;
	u64 count = 0;

	for (u32 i = 0; i < chain->count; i++) {
		u64 frame = chain->link[i * words];
		struct known known = resolve_seen(slot, frame, frame_instruction(frame));

		if (known.record == PL_INLINE_CODE_NONE)
			continue;
		if (to)
			to[count] = frame_word(&known);
		count++;
	}
	return count;
}

/* What a trace is made of. chain NULL: of no callers. */
struct trace {
	struct pl_inline_slot *slot;
	const struct known *top; /* NULL: no Python frame at all */
	const struct pl_inline_chain *chain;
	bool more;
	u64 native;
};

static bool site_fill(u32 site, u64 hash, const struct trace *trace)
{
	struct pl_inline_site *row = (struct pl_inline_site *)pl_config.sites + site;
	u64 *frames = (u64 *)pl_config.frames;
	u64 count = trace->top != NULL, first;

	if (trace->chain)
		count += chain_words(trace->slot, trace->chain, NULL);
	first = __atomic_fetch_add(&control()->next_frame, count + (trace->native != 0), __ATOMIC_RELAXED);
	if (first + count + (trace->native != 0) > pl_config.frames_limit)
		return false;
	if (trace->native)
		frames[first++] = trace->native;
	row->frames = (u32)first;
	row->count = (uint16_t)count;
	row->more = trace->more;
	row->domain = trace->native != 0;
	if (trace->top)
		frames[first++] = frame_word(trace->top);
	if (trace->chain)
		chain_words(trace->slot, trace->chain, frames + first);
	__atomic_store_n(&row->hash, hash, __ATOMIC_RELEASE);
	return true;
}

/* The site with this hash. Two traces of one hash would share a row: at a million sites, one chance
 * in thirty million. */
static u32 site_find(u64 hash, const struct trace *trace)
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
				if (number >= pl_config.site_limit || !site_fill((u32)number, hash, trace))
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
	const struct trace trace = {.native = native};

	return salt ? site_find(mix(3, salt), &trace) : PL_INLINE_SITE_UNKNOWN;
}

static u32 top_remember(struct pl_inline_top *set, u64 code, u64 hash, u32 site)
{
	for (u32 i = PL_INLINE_TOP_WAYS - 1; i; i--) {
		set[i].key = 0;
		set[i].code = set[i - 1].code;
		set[i].key = set[i - 1].key;
	}
	set[0].key = 0;
	set[0].code = code;
	set[0].key = hash << PL_INLINE_TOP_BITS >> PL_INLINE_TOP_KEY_SHIFT << PL_INLINE_TOP_KEY_SHIFT | site;
	return site;
}

/* The same for a thread that allocates so again and again. No code object is at an address of 0. */
u32 pl_trace_native(struct pl_inline_slot *slot, u64 salt, u64 native)
{
	u64 hash = top_hash(native, salt);
	struct pl_inline_top *set = top_set(slot, hash);
	u32 site = top_site(set, 0, hash);

	return likely(site) ? site : top_remember(set, 0, hash, pl_trace_nowhere(salt, native));
}

u32 pl_trace_slow(struct pl_inline_slot *slot, u64 frame, u64 salt, u64 native)
{
	u32 walk = (u32)PL_INLINE_WALK(pl_config.frame_limit), site;

	for (u32 i = 0; i < walk && frame; i++) {
		u64 caller = frame_previous(frame), instruction = frame_instruction(frame), hash = salt, key;
		struct known top = resolve_seen(slot, frame, instruction);
		struct trace trace = {slot, &top, NULL, caller != 0, native};
		struct pl_inline_top *set;

		if (top.record == PL_INLINE_CODE_NONE) {
			frame = caller;
			continue;
		}
		if (pl_config.frame_limit > 1) {
			trace.chain = chain_of(slot, caller);
			trace.more = trace.chain->cut;
			hash = trace.chain->hash ^ salt;
		}
		key = top_hash(instruction, hash);
		set = top_set(slot, key);
		site = top_site(set, top.code, key);
		return site ? site : top_remember(set, top.code, key, site_find(mix(mix(2, hash), frame_word(&top)), &trace));
	}
	return pl_trace_nowhere(salt, native);
}

/* All of them: to look for those that a code object is part of takes longer than to walk anew those that are still
 * wanted, where a program makes and drops code all the time. */
void pl_chains_forget(struct pl_inline_slot *slot)
{
	struct pl_inline_chain *chain = (struct pl_inline_chain *)(slot + 1);

	if (likely(++slot->chain_generation))
		return;
	/* Generations begin anew. */
	for (u32 i = 0; i < PL_INLINE_CHAIN_WAYS << PL_INLINE_CHAIN_BITS; i++)
		((struct pl_inline_chain *)chain_way(chain, i))->generation = 0;
}

static void slot_forget(struct pl_inline_slot *slot)
{
	for (u32 i = 0; i < PL_INLINE_TOPS; i++)
		for (u32 k = 0; k < PL_INLINE_TOP_WAYS; k++)
			slot->top[i][k].key = 0;
	for (u32 i = 0; i < PL_INLINE_SEEN; i++)
		slot->seen[i].word = 0;
	pl_chains_forget(slot);
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
