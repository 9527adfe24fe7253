/* SPDX-License-Identifier: MIT */
#include "tables.h"
#include "walk.h"

/* The walk when a cache misses, the site table. */

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

	if (likely(seen->code == code && seen->instruction == instruction && seen->generation - 1 == slot->generation))
		return (struct known){code, (u32)(seen->word >> 32), (u32)seen->word};
	known = resolve(frame, instruction);
	if (known.record != PL_INLINE_CODE_NONE && LAYOUT->code_tlbc < 0) {
		seen->generation = slot->generation;
		seen->code = code;
		seen->instruction = instruction;
		seen->word = frame_word(&known);
		seen->generation = slot->generation + 1;
	}
	return known;
}

/*
 * The hash of a window is a polynomial in its words, the highest level's with the power 0: what the sums over all levels
 * up to its highest and below its lowest leave of each other, whatever those were. So it takes a window and not a walk
 * over it when a frame moves on. The words are mixed before, and the whole after that.
 */
static u64 window_hash(const struct pl_inline_slot *slot, u32 number)
{
	const struct pl_inline_window *window = &slot->window[number];
	u64 hash = window->sum;

	if (window->low)
		hash -= slot->window[window->low - 1].sum * pl_config.window_power;
	return mix(mix(NO_CALLERS, hash), window->cut);
}

/* Writes the level above those that are there. */
static void level_push(struct pl_inline_slot *slot, u32 number, u64 frame)
{
	const u64 instruction = frame_instruction(frame), limit = pl_config.frame_limit - 1;
	const struct pl_inline_window *below = number ? &slot->window[number - 1] : NULL;
	struct pl_inline_window *window = &slot->window[number];
	struct known known = resolve_seen(slot, frame, instruction);
	u32 low = below && below->low != PL_INLINE_LEVELS ? below->low : 0;
	bool all;

	slot->level[number] = (struct pl_inline_level){frame, instruction & POINTER_MASK, known.code};
	window->visible = below ? below->visible : 0;
	window->sum = below ? below->sum : 0;
	window->word = 0;
	if (known.record != PL_INLINE_CODE_NONE) {
		window->word = frame_word(&known);
		window->sum = window->sum * PL_INLINE_WINDOW_BASE + mix(0, window->word);
		window->visible++;
	}
	/* As few levels as hold as many words as are wanted. */
	while (low < number && window->visible - slot->window[low].visible >= limit)
		low++;
	all = window->visible - (low ? slot->window[low - 1].visible : 0) >= limit || !slot->below;
	window->low = (u16)(all ? low : PL_INLINE_LEVELS);
	window->cut = low || slot->below;
	if (all)
		window->hash = window_hash(slot, number);
	*level_hint(slot, frame) = (u16)number;
}

/*
 * How many of the levels are still the stack's, from below, where that of `number` is on the stack now: all that are
 * not say only what their frames were at. 0: other frames are below it.
 */
inlined u32 levels_kept(const struct pl_inline_slot *slot, u32 number, const bool is_index, const bool enough)
{
	const struct pl_inline_level *level = &slot->level[number], *low = &slot->level[slot->window[number].low];
	const struct pl_inline_level *kept = level + 1;
	u64 frame, instruction;

	for (;; level--) {
		frame = level->frame;
		/* As in levels_match(). */
		__asm__("" : "+r"(frame));
		instruction = is_index ? load32(frame, LAYOUT->frame_instruction)
				       : load64(frame, LAYOUT->frame_instruction);
		if (instruction != level->instruction || (!enough && level->code != frame_code(frame)))
			kept = level;
		if (level == low)
			break;
		if (frame_previous(frame) != level[-1].frame)
			return 0;
	}
	/* What is lower was not looked at, and if the lowest has changed that may have, too. */
	return (frame_previous(frame) != 0) == slot->window[number].cut && kept != low ? (u32)(kept - slot->level) : 0;
}

/* The levels of the fresh frames, on top of `number` that are there. */
static u32 levels_push(struct pl_inline_slot *slot, u32 number, u32 fresh)
{
	while (fresh)
		level_push(slot, number++, slot->fresh[--fresh]);
	slot->levels = number;
	return number - 1;
}

/* Brings the levels up to the stack of which `caller` is the highest frame, and returns its level. */
static u32 levels_update(struct pl_inline_slot *slot, u64 caller)
{
	const u32 walk = (u32)PL_INLINE_WALK(pl_config.frame_limit);
	u32 fresh = 0, number = PL_INLINE_LEVELS, kept = 0, low;
	u64 frame = caller;

	/* Most often one frame or two are new. */
	for (; frame && fresh < walk; fresh++, frame = frame_previous(frame)) {
		number = level_of(slot, frame);
		if (number != PL_INLINE_LEVELS)
			break;
		slot->fresh[fresh] = frame;
	}
	if (number < PL_INLINE_LEVELS && number + fresh < PL_INLINE_LEVELS)
		kept = instruction_is_enough()		? levels_kept(slot, number, false, true)
		       : LAYOUT->instruction_is_index ? levels_kept(slot, number, true, false)
						      : levels_kept(slot, number, false, false);
	slot->levels = 0;
	if (kept) {
		low = slot->window[number].low;
		for (u32 i = kept; i <= number; i++)
			level_push(slot, i, slot->level[i].frame);
		number = levels_push(slot, number + 1, fresh);
		/* Lower than what has been looked at: frames are in there that are part of a trace no more. */
		if (slot->window[number].low >= low && slot->window[number].low < PL_INLINE_LEVELS)
			return number;
	}
	slot->levels = 0;
	for (fresh = 0, frame = caller; frame && fresh < walk; frame = frame_previous(frame))
		slot->fresh[fresh++] = frame;
	slot->below = frame;
	number = levels_push(slot, 0, fresh);
	/* More shims than frames: what a walk has looked at is enough. */
	if (slot->window[number].low == PL_INLINE_LEVELS) {
		slot->window[number].low = 0;
		slot->window[number].hash = window_hash(slot, number);
	}
	return number;
}

/* What a trace is made of. */
struct trace {
	const struct pl_inline_slot *slot;
	const struct known *top; /* NULL: no Python frame at all */
	u32 level;               /* the highest caller's; PL_INLINE_LEVELS: of no callers */
	bool more;
	u64 native;
	const struct pl_inline_site *like; /* NULL, or the site whose frames it has */
	u8 kind;                           /* 0, or that of its row: blocks older than the probe */
	u8 sampling;                       /* of its row */
};

/* The words that its frames take. */
static u64 trace_words(const struct trace *trace)
{
	const struct pl_inline_window *window = trace->slot ? trace->slot->window : NULL;
	const u32 end = trace->level < PL_INLINE_LEVELS ? trace->level + 1 : 0, low = end ? window[end - 1].low : 0;
	u64 words = (trace->top != NULL) + (trace->native != 0);

	for (u32 i = low; i < end; i++)
		words += window[i].word != 0;
	return words;
}

/* `first`: where its frames have room. */
static void site_fill(u32 site, u64 hash, u64 first, const struct trace *trace)
{
	struct pl_inline_site *row = (struct pl_inline_site *)pl_config.sites + site;
	u64 *frames = (u64 *)pl_config.frames, *word = frames + first;
	const struct pl_inline_window *window = trace->slot ? trace->slot->window : NULL;
	/* The levels of its callers: none, where nobody called. */
	const u32 end = trace->level < PL_INLINE_LEVELS ? trace->level + 1 : 0, low = end ? window[end - 1].low : 0;

	if (trace->kind) {
		row->frames = trace->like ? trace->like->frames : 0;
		row->count = trace->like ? trace->like->count : 0;
		row->more = trace->like ? trace->like->more : 0;
		row->kind = trace->kind;
		__atomic_store_n(&row->hash, hash, __ATOMIC_RELEASE);
		return;
	}
	if (trace->native)
		*word++ = trace->native;
	row->frames = (u32)(word - frames);
	if (trace->top)
		*word++ = frame_word(trace->top);
	for (u32 i = end; i-- > low;)
		if (window[i].word)
			*word++ = window[i].word;
	row->count = (uint16_t)(word - frames - row->frames);
	row->more = trace->more;
	row->kind = trace->native != 0;
	__atomic_store_n(&row->hash, hash, __ATOMIC_RELEASE);
}

/*
 * Whether no more of what has callers is to be given a row. A program that imports much has hundreds of thousands of
 * tracebacks, most of which nothing that lives has come from; but not a quarter of that many places. So when little room is
 * left, a traceback that is new is cut to the one frame, which is the line; and the line is what must not be lost.
 */
static bool is_short_of_rows(void)
{
	const u64 count = __atomic_load_n(&control()->next_site, __ATOMIC_RELAXED),
		  limit = __atomic_load_n(&control()->site_limit, __ATOMIC_RELAXED);

	return (limit && count >= limit) ||
	       pl_inline_is_short(&pl_config, count, __atomic_load_n(&control()->next_frame, __ATOMIC_RELAXED));
}

/* A row that was used before, with room for so many words; 0: there is none. Not by a hook without a flag: see the ABI. */
static u32 site_take_spare(u64 words)
{
	for (u64 room = (words + PL_INLINE_ROOM_WORDS - 1) / PL_INLINE_ROOM_WORDS; room < PL_INLINE_SITE_ROOMS; room++) {
		const u32 number = spare_take(&control()->spare_sites[room], pl_config.site_limit, (u64)&totals_of(0)->next,
			sizeof(struct pl_inline_totals));

		if (number)
			return number;
	}
	return 0;
}

/* A row for a trace that is new. LOST: the table is full; NONE: it is to be cut. */
static u32 site_make(u64 hash, const struct trace *trace)
{
	const u64 words = trace->kind ? 0 : trace_words(trace);
	const u64 room = (words + PL_INLINE_ROOM_WORDS - 1) / PL_INLINE_ROOM_WORDS;
	const bool cut = trace->level < PL_INLINE_LEVELS;
	u32 site = 0;
	u64 number, first;

	if (!trace->kind)
		site = site_take_spare(words);
	if (site) {
		const struct pl_inline_site *row = (const struct pl_inline_site *)pl_config.sites + site;

		totals_of(site)->sampling = trace->sampling;
		site_fill(site, hash, row->frames - (row->kind == 1), trace);
		return site;
	}
	if (cut && is_short_of_rows())
		return PL_INLINE_SITE_NONE;
	if (PL_INLINE_SITE_FIRST + __atomic_load_n(&control()->next_site, __ATOMIC_RELAXED) >= pl_config.site_limit)
		return PL_INLINE_SITE_LOST;
	number = PL_INLINE_SITE_FIRST + __atomic_fetch_add(&control()->next_site, 1, __ATOMIC_RELAXED);
	first = __atomic_fetch_add(&control()->next_frame, room * PL_INLINE_ROOM_WORDS, __ATOMIC_RELAXED);
	if (number >= pl_config.site_limit || first + room * PL_INLINE_ROOM_WORDS > pl_config.frames_limit)
		return PL_INLINE_SITE_LOST;
	totals_of((u32)number)->room = (u32)room;
	totals_of((u32)number)->sampling = trace->sampling;
	site_fill((u32)number, hash, first, trace);
	return (u32)number;
}

/* The site with this hash; NONE: it is a new one, and is to be cut. */
static u32 site_find(u64 hash, const struct trace *trace)
{
	const struct index index = {(u32 *)pl_config.index, pl_config.index_mask, pl_config.sites, sizeof(struct pl_inline_site)};
	struct place place;
	u32 site = 0, found;

	hash |= 1;
	for (u32 tries = 0; tries < INDEX_TRIES; tries++) {
		found = index_find(index, hash, &place);
		if (found)
			return found;
		if (!place.word)
			break;
		if (!site)
			site = site_make(hash, trace);
		if (site == PL_INLINE_SITE_NONE)
			return site;
		if (site == PL_INLINE_SITE_LOST)
			break;
		if (index_put(place, site))
			return site;
	}
	count_up(&control()->lost_sites);
	return PL_INLINE_SITE_LOST;
}

/* As long as there is room for all of its frames, and else of its top alone. */
static u32 site_of(u64 hash, u64 salt, struct trace *trace)
{
	u32 site = site_find(mix(mix(2, hash), frame_word(trace->top)), trace);

	if (likely(site != PL_INLINE_SITE_NONE))
		return site;
	trace->level = PL_INLINE_LEVELS;
	trace->more = true;
	count_up(&control()->shortened);
	return site_find(mix(mix(7, salt), frame_word(trace->top)), trace);
}

/* The site of what has no Python frame. */
u32 pl_trace_nowhere(u64 salt, u64 native)
{
	const struct trace trace = {.level = PL_INLINE_LEVELS, .native = native, .sampling = (u8)salt_sampling(salt)};

	return salt ? site_find(mix(3, salt), &trace) : PL_INLINE_SITE_UNKNOWN;
}

/* Where blocks of this class from before the probe go, freed by a thread that allocated at `last` before. */
u32 pl_trace_older(u32 last, u32 size_class)
{
	const struct pl_inline_site *like = last >= PL_INLINE_SITE_FIRST ? (struct pl_inline_site *)pl_config.sites + last : NULL;
	const struct trace trace = {.level = PL_INLINE_LEVELS, .like = like, .kind = (u8)(PL_INLINE_KIND_OLDER + size_class)};

	return site_find(mix(mix(6, like ? like->hash | 1 : 0), size_class), &trace);
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

/* Whether this allocation's stack is wanted. As long as one is, no cache learns of the site. */
static u32 asked_for(u32 site, u16 *skip)
{
	u16 left = __atomic_load_n(skip, __ATOMIC_RELAXED);

	/* Another thread, or the tracer, may have come in between. */
	*skip = left ? left - 1 : 0;
	return left == 1 && control()->next_stack < control()->granted_stacks ? site | PL_TRACE_STACK : site;
}

u32 pl_trace_slow(struct pl_inline_slot *slot, u64 frame, u64 salt, u64 native)
{
	u32 walk = (u32)PL_INLINE_WALK(pl_config.frame_limit), site;

	for (u32 i = 0; i < walk && frame; i++) {
		u64 caller = frame_previous(frame), instruction = frame_instruction(frame), hash = salt, key;
		struct known top = resolve_seen(slot, frame, instruction);
		struct trace trace = {.slot = slot,
			.top = &top,
			.level = PL_INLINE_LEVELS,
			.more = caller != 0,
			.native = native,
			.sampling = (u8)salt_sampling(salt)};
		struct pl_inline_top *set;
		u16 *skip;

		if (top.record == PL_INLINE_CODE_NONE) {
			frame = caller;
			continue;
		}
		if (pl_config.frame_limit > 1) {
			hash = NO_CALLERS;
			if (caller) {
				trace.level = level_of(slot, caller);
				if (trace.level == PL_INLINE_LEVELS || !levels_hold(slot, trace.level))
					trace.level = levels_update(slot, caller);
				hash = slot->window[trace.level].hash;
				trace.more = slot->window[trace.level].cut;
			}
			hash ^= salt;
		}
		key = top_hash(instruction, hash);
		set = top_set(slot, key);
		site = top_site(set, top.code, key);
		if (site)
			return site;
		site = site_of(hash, salt, &trace);
		skip = (u16 *)pl_config.skips + site;
		return unlikely(!native && *skip) ? asked_for(site, skip) : top_remember(set, top.code, key, site);
	}
	return pl_trace_nowhere(salt, native);
}

/* What frames were, all of them: to look for those of one code object takes longer than to resolve anew what is
 * still wanted, where a program makes and drops code all the time. */
void pl_walks_forget(struct pl_inline_slot *slot)
{
	slot->levels = 0;
	if (likely(++slot->generation))
		return;
	/* Generations begin anew. */
	for (u32 i = 0; i < PL_INLINE_SEEN; i++)
		slot->seen[i].generation = 0;
}
