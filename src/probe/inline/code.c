/* SPDX-License-Identifier: MIT */
#include "record.h"
#include "tables.h"
#include "walk.h"

/*
 * Code objects: a number for what one is (file, name, line table), found by its address while it
 * lives. Its block's entry in the shadow map is marked, so that its free takes the address out again
 * before another code object can have it.
 */

enum { ENTRY_NEVER, ENTRY_FREE, ENTRY_BUSY };

static struct pl_inline_code_entry *map_at(u64 hash, u32 i)
{
	return (struct pl_inline_code_entry *)pl_config.code_map + pl_inline_place(hash, i, pl_config.code_map_mask);
}

static u64 hash_bytes(u64 hash, const u8 *bytes, u64 size)
{
	u64 word, i = 0;

	for (; i + 8 <= size; i += 8) {
		__builtin_memcpy(&word, bytes + i, 8);
		hash = mix(hash, word);
	}
	for (word = 0; i < size; i++)
		word = word << 8 | bytes[i];
	return mix(mix(hash, word), size);
}

struct piece {
	const u8 *bytes;
	u32 size;
	u8 kind;
	bool cut;
};

/* The characters of a str object as they lie in memory (PEP 393). */
static struct piece string_piece(u64 object, u32 max)
{
	struct piece piece = {0};
	u32 state, kind;
	bool compact, ascii;
	u64 length;

	if (!object)
		return piece;
	state = load32(object, LAYOUT->string_state);
	if (LAYOUT->string_state_wide) {
		kind = state >> 8 & 7;
		compact = state >> 11 & 1;
		ascii = state >> 12 & 1;
	} else {
		kind = state >> 2 & 7;
		compact = state >> 5 & 1;
		ascii = state >> 6 & 1;
	}
	if (kind != 1 && kind != 2 && kind != 4)
		return piece;
	length = load64(object, LAYOUT->string_length);
	piece.cut = length > max / kind;
	if (piece.cut)
		length = max / kind;
	piece.kind = (u8)kind;
	piece.size = (u32)length * kind;
	if (!compact)
		piece.bytes = (const u8 *)load64(object, LAYOUT->string_data_pointer);
	else
		piece.bytes =
			(const u8 *)(object + (u64)(ascii ? LAYOUT->string_ascii_data : LAYOUT->string_compact_data));
	if (!piece.bytes)
		piece.size = 0;
	return piece;
}

static struct piece bytes_piece(u64 object, u32 max)
{
	struct piece piece = {0};
	u64 size;

	if (!object)
		return piece;
	size = load64(object, LAYOUT->bytes_size);
	piece.cut = size > max;
	piece.size = piece.cut ? max : (u32)size;
	piece.bytes = (const u8 *)(object + (u64)LAYOUT->bytes_data);
	return piece;
}

/* A row that was used before, with room for so much text; 0: there is none, or none that is not far too large. */
static u32 code_take_spare(u64 size)
{
	enum { LARGER = 8 }; /* four times as large */
	const u32 least = pl_inline_text_room(size);

	for (u32 room = least; room < PL_INLINE_TEXT_ROOMS && room <= least + LARGER; room++) {
		const u32 number = spare_take(&control()->spare_codes[room], pl_config.code_limit,
			pl_config.codes + offsetof(struct pl_inline_code, next), sizeof(struct pl_inline_code));

		if (number)
			return number;
	}
	return 0;
}

/* A row that nobody else has, with room for so much text; LOST: there is none. */
static u32 code_take(u64 size)
{
	const u32 room = pl_inline_text_room(size);
	const u64 bytes = pl_inline_text_bytes(room);
	struct pl_inline_code *row;
	u64 number, data;
	u32 spare = code_take_spare(size);

	if (spare)
		return spare;
	if (PL_INLINE_CODE_FIRST + __atomic_load_n(&control()->next_code, __ATOMIC_RELAXED) >= pl_config.code_limit ||
		__atomic_load_n(&control()->next_arena, __ATOMIC_RELAXED) + bytes > pl_config.arena_size)
		return PL_INLINE_CODE_LOST;
	number = PL_INLINE_CODE_FIRST + __atomic_fetch_add(&control()->next_code, 1, __ATOMIC_RELAXED);
	data = __atomic_fetch_add(&control()->next_arena, bytes, __ATOMIC_RELAXED);
	if (number >= pl_config.code_limit || data + bytes > pl_config.arena_size)
		return PL_INLINE_CODE_LOST;
	row = (struct pl_inline_code *)pl_config.codes + number;
	row->data = data;
	row->room = room;
	return (u32)number;
}

static u32 content_add(const struct piece piece[3], int32_t first_line, u64 hash)
{
	const u32 number = code_take((u64)piece[0].size + piece[1].size + piece[2].size);
	struct pl_inline_code *row = (struct pl_inline_code *)pl_config.codes + number;
	u8 *to;

	if (number == PL_INLINE_CODE_LOST)
		return number;
	to = (u8 *)pl_config.arena + row->data;
	for (u32 i = 0; i < 3; i++) {
		copy_bytes(to, piece[i].bytes, piece[i].size);
		to += piece[i].size;
	}
	row->filename_bytes = piece[0].size;
	row->name_bytes = piece[1].size;
	row->lines_bytes = piece[2].size;
	row->first_line = first_line;
	row->filename_kind = piece[0].kind;
	row->name_kind = piece[1].kind;
	row->flags = (uint16_t)((piece[0].cut ? PL_INLINE_CODE_CUT_FILENAME : 0) |
				(piece[1].cut ? PL_INLINE_CODE_CUT_NAME : 0) |
				(piece[2].cut ? PL_INLINE_CODE_CUT_LINES : 0));
	__atomic_store_n(&row->hash, hash, __ATOMIC_RELEASE);
	return number;
}

/* The number of a code object by its content. */
static u32 content_find(u64 code)
{
	const struct index index = {(u32 *)pl_config.code_index, pl_config.code_index_mask, pl_config.codes,
		sizeof(struct pl_inline_code)};
	int32_t first_line = (int32_t)load32(code, LAYOUT->code_first_line);
	struct place place;
	u32 number = 0, found;
	u64 hash = (u32)first_line;
	struct piece piece[3] = {
		string_piece(load64(code, LAYOUT->code_filename), PL_INLINE_FILENAME_MAX),
		string_piece(load64(code, LAYOUT->code_name), PL_INLINE_NAME_MAX),
		bytes_piece(load64(code, LAYOUT->code_line_table), PL_INLINE_LINES_MAX),
	};

	for (u32 i = 0; i < 3; i++)
		hash = hash_bytes(mix(hash, piece[i].kind), piece[i].bytes, piece[i].size);
	hash |= 1;
	for (u32 tries = 0; tries < INDEX_TRIES; tries++) {
		found = index_find(index, hash, &place);
		if (found)
			return found;
		if (!place.word)
			break;
		if (!number)
			number = content_add(piece, first_line, hash);
		if (number == PL_INLINE_CODE_LOST)
			break;
		if (index_put(place, number))
			return number;
	}
	return PL_INLINE_CODE_LOST;
}

/* Marks the block of a code object, so that its death is seen. */
static bool code_mark(u64 code)
{
	u32 *entry, bits = PL_INLINE_ENTRY_CODE;

	if ((code & 15) == 8)
		bits |= PL_INLINE_ENTRY_ODD;
	else if (code & 15)
		return false;
	entry = granule_make((code + 8) & ~(u64)15);
	if (!entry)
		return false;
	/* An atomic or: two threads may meet a code object at the same moment. */
	(void)__atomic_fetch_or(entry, bits, __ATOMIC_RELAXED);
	return true;
}

static cold u32 code_learn(u64 code)
{
	u64 at = mix(0, code);
	u32 number = content_find(code);

	if (number == PL_INLINE_CODE_LOST)
		goto lost;
	for (u32 i = 0; i < PL_INLINE_PROBES; i++) {
		struct pl_inline_code_entry *entry = map_at(at, i);
		u64 found = __atomic_load_n(&entry->address, __ATOMIC_RELAXED);

		if (found > ENTRY_FREE || !__atomic_compare_exchange_n(&entry->address, &found, (u64)ENTRY_BUSY, false,
						  __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
			continue;
		if (!code_mark(code)) {
			__atomic_store_n(&entry->address, (u64)ENTRY_FREE, __ATOMIC_RELEASE);
			goto lost;
		}
		entry->code = number;
		__atomic_store_n(&entry->address, code, __ATOMIC_RELEASE);
		return number;
	}
lost:
	count_up(&control()->lost_codes);
	return PL_INLINE_CODE_LOST;
}

u32 pl_code_record(u64 code)
{
	u64 at = mix(0, code);

	for (u32 i = 0; i < PL_INLINE_PROBES; i++) {
		const struct pl_inline_code_entry *entry = map_at(at, i);
		u64 found = __atomic_load_n(&entry->address, __ATOMIC_ACQUIRE);

		if (found == code)
			return entry->code;
		if (found == ENTRY_NEVER)
			break;
	}
	return code_learn(code);
}

/* The caches of the GIL's slot forget the code object. Other slots do so by themselves when they see
 * the generation change. */
static void slot_zero_forget(u64 code)
{
	struct pl_inline_slot *slot = slot_zero();

	for (u32 i = 0; i < PL_INLINE_TOPS; i++)
		for (u32 k = 0; k < PL_INLINE_TOP_WAYS; k++)
			if (slot->top[i][k].code == code)
				slot->top[i][k].key = 0;
	pl_walks_forget(slot);
}

void pl_code_died(u64 code)
{
	u64 at = mix(0, code);

	/* All of them: two threads that met it at the same moment have made two entries. */
	for (u32 i = 0; i < PL_INLINE_PROBES; i++) {
		struct pl_inline_code_entry *entry = map_at(at, i);
		u64 found = __atomic_load_n(&entry->address, __ATOMIC_ACQUIRE);

		if (found == code)
			__atomic_store_n(&entry->address, (u64)ENTRY_FREE, __ATOMIC_RELEASE);
		if (found == ENTRY_NEVER)
			break;
	}
	(void)__atomic_fetch_add(&control()->code_generation, 1, __ATOMIC_ACQ_REL);
	if (!(control()->mode & PL_INLINE_MANY))
		slot_zero_forget(code);
}
