/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "heap_private.h"

/*
 * malloc/malloc.c of glibc: a chunk at p has the size of the chunk before it at p, if that is free, and its own at
 * p + 8, with three flags in the low bits. Blocks in a thread cache or a fast bin look as if they were in use.
 */

enum {
	HEADER = 16,
	SIZE_AT = 8,
	PREVIOUS_IN_USE = 1,
	MAPPED = 2,
	OTHER_ARENA = 4,
	FLAGS = 7,
	SMALLEST = 32,
	FENCEPOST = 16,  /* what ends a heap that is not the last one of its arena */
	IN_A_ROW = 8,    /* chunks that fit: then it is no accident */
};

static uint64_t word_at(const struct heap_piece *piece, uint64_t address)
{
	uint64_t word;

	memcpy(&word, piece->bytes + (address - piece->address), sizeof(word));
	return word;
}

static bool holds_header(const struct heap_piece *piece, uint64_t at)
{
	return at >= piece->address && at - piece->address <= piece->length - HEADER;
}

/* The size of the chunk at `at`, 0 if there can be none. `before`: the size of the one before it, 0 if not known. */
static uint64_t chunk_size(const struct heap_piece *piece, uint64_t at, uint64_t before)
{
	uint64_t word = word_at(piece, at + SIZE_AT), size = word & ~(uint64_t)FLAGS;

	if (size % HEADER || size < FENCEPOST || (size == FENCEPOST && at + SMALLEST < piece->end) || (word & MAPPED) ||
		((word & OTHER_ARENA) && !piece->other_arena) || size > piece->end - at)
		return 0;
	if (!(word & PREVIOUS_IN_USE) && before && word_at(piece, at) != before)
		return 0;
	return size;
}

static bool fits(const struct heap_piece *piece, uint64_t at)
{
	uint64_t before = 0;

	for (int i = 0; i < IN_A_ROW; i++) {
		if (!holds_header(piece, at))
			return i >= IN_A_ROW / 2 && at == piece->end;
		before = chunk_size(piece, at, before);
		if (!before)
			return false;
		at += before;
	}
	return true;
}

/* The first place from `at` on where chunks begin; the end of the piece if there is none. */
static uint64_t find_chunk(const struct heap_piece *piece, uint64_t at)
{
	while (holds_header(piece, at) && !fits(piece, at))
		at += HEADER;
	return holds_header(piece, at) ? at : piece->address + piece->length;
}

static void settle(struct heap_walk *walk, bool in_use)
{
	if (walk->pending && in_use) {
		walk->used += walk->pending_end - walk->pending;
		if (walk->use)
			walk->use(walk->context, walk->pending, walk->pending_end);
	} else if (walk->pending && walk->free) {
		walk->free(walk->context, walk->pending, walk->pending_end);
	}
	walk->pending = 0;
}

void heap_walk(const struct heap_piece *piece, struct heap_walk *walk)
{
	uint64_t at = walk->next;

	if (piece->length < HEADER)
		return;
	if (!at || at < piece->address) {
		settle(walk, true);
		at = find_chunk(piece, piece->address);
		walk->lost += at - piece->address;
	}
	while (holds_header(piece, at)) {
		uint64_t before = walk->pending ? walk->pending_end - walk->pending : 0;
		uint64_t size = chunk_size(piece, at, before);

		if (!size) {
			uint64_t found = find_chunk(piece, at + HEADER);

			settle(walk, true);
			walk->lost += found - at;
			at = found;
			continue;
		}
		settle(walk, word_at(piece, at + SIZE_AT) & PREVIOUS_IN_USE);
		walk->pending = at;
		walk->pending_end = at += size;
	}
	walk->next = holds_header(piece, at) || at != piece->address + piece->length || walk->pending ? at : 0;
	/* What reaches to the end of the heap is the top, from which new chunks are cut. */
	if (walk->pending && walk->pending_end == piece->end)
		settle(walk, false);
}
