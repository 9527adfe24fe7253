/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include "pyleak/memory.h"
#include "unseen.h"

/*
 * glibc's chunks (malloc/malloc.c, the same since 2.3; looked at on 2.36, 2.41 and 2.43). In front of a block stand the size of the chunk before, if that
 * one is free, and the chunk's own size with three bits. Of a block in use hold: its size is what its request came to; the
 * next chunk says PREV_INUSE; and if its own head does not say so, the chunk before has the size that stands there
 * ("corrupted size vs. prev_size" is what free() calls the opposite). A free one breaks one of them: which one depends on
 * what it was merged with. In thread caches and fast bins a chunk stays marked as in use: those are not found.
 */

enum { PREV_INUSE = 1, MMAPPED = 2, BITS = 7, HEADER = 16, MIN_CHUNK = 32 };
/* What a chunk may be larger than its request: what an alignment leaves over, a page of pvalloc(). */
#define SLACK 8192

static uint64_t chunk_size(uint64_t head)
{
	return head & ~(uint64_t)BITS;
}

/* Of a size beyond all measure nothing follows that could be read. */
static bool has_neighbours(const struct unseen_marks *marks)
{
	return !(marks->head & MMAPPED) && chunk_size(marks->head) >= MIN_CHUNK && chunk_size(marks->head) < UINT64_C(1) << 46;
}

uint64_t unseen_next_at(uint64_t address, const struct unseen_marks *marks)
{
	return has_neighbours(marks) ? address - HEADER + chunk_size(marks->head) + 8 : 0;
}

uint64_t unseen_previous_at(uint64_t address, const struct unseen_marks *marks)
{
	return has_neighbours(marks) && !(marks->head & PREV_INUSE) && marks->previous_size < address ?
		       address - HEADER - marks->previous_size + 8 :
		       0;
}

enum unseen_state unseen_judge(uint64_t size, const struct unseen_marks *marks)
{
	uint64_t chunk = chunk_size(marks->head);

	/* With its own mapping: at its end no room is shared with the next. Rounded to pages, of any size (huge ones). */
	if (marks->head & MMAPPED)
		return chunk < size + HEADER ? UNSEEN_FREE : UNSEEN_IN_USE;
	if (chunk < MIN_CHUNK || chunk < size + 8 || chunk > size + SLACK || !has_neighbours(marks))
		return UNSEEN_FREE;
	if (!(marks->next_head & PREV_INUSE))
		return UNSEEN_FREE;
	return marks->head & PREV_INUSE || chunk_size(marks->previous_head) == marks->previous_size ? UNSEEN_IN_USE : UNSEEN_FREE;
}

static bool is_free(pid_t pid, const struct unseen_block *block)
{
	struct unseen_marks marks = {0};
	uint64_t head[2], at;
	int code = pl_memory_read(pid, block->address - HEADER, head, sizeof(head));

	if (code < 0)
		return code == -EFAULT;
	marks.previous_size = head[0];
	marks.head = head[1];
	/* What cannot be read is not what a chunk in use has beside it. */
	at = unseen_next_at(block->address, &marks);
	if (at) {
		code = pl_memory_read_u64(pid, at, &marks.next_head);
		if (code < 0)
			return code == -EFAULT;
	}
	at = unseen_previous_at(block->address, &marks);
	if (at) {
		code = pl_memory_read_u64(pid, at, &marks.previous_head);
		if (code < 0)
			return code == -EFAULT;
	}
	return unseen_judge(block->size, &marks) == UNSEEN_FREE;
}

/* Most blocks are in use, and their words can be read: many in one call. Those that do not look so are looked at one by
 * one. */
enum { BATCH = 128 };

static void look_at_batch(pid_t pid, const struct unseen_block *blocks, size_t count, bool *ret)
{
	struct pl_memory_piece pieces[2 * BATCH];
	uint64_t heads[BATCH][2];
	struct unseen_marks marks[BATCH];
	size_t piece_count = 0;

	for (size_t i = 0; i < count; i++)
		pieces[i] = (struct pl_memory_piece){blocks[i].address - HEADER, heads[i], sizeof(heads[i])};
	if (pl_memory_read_pieces(pid, pieces, count) < 0)
		goto one_by_one;
	for (size_t i = 0; i < count; i++) {
		uint64_t next, previous;

		marks[i] = (struct unseen_marks){.previous_size = heads[i][0], .head = heads[i][1]};
		next = unseen_next_at(blocks[i].address, &marks[i]);
		previous = unseen_previous_at(blocks[i].address, &marks[i]);
		if (next)
			pieces[piece_count++] = (struct pl_memory_piece){next, &marks[i].next_head, sizeof(uint64_t)};
		if (previous)
			pieces[piece_count++] = (struct pl_memory_piece){previous, &marks[i].previous_head, sizeof(uint64_t)};
	}
	if (pl_memory_read_pieces(pid, pieces, piece_count) < 0)
		goto one_by_one;
	for (size_t i = 0; i < count; i++)
		ret[i] = unseen_judge(blocks[i].size, &marks[i]) == UNSEEN_FREE;
	return;
one_by_one:
	for (size_t i = 0; i < count; i++)
		ret[i] = is_free(pid, &blocks[i]);
}

void unseen_look_at_marks(pid_t pid, const struct unseen_block *blocks, size_t count, bool *ret)
{
	for (size_t at = 0; at < count; at += BATCH)
		look_at_batch(pid, blocks + at, count - at < BATCH ? count - at : BATCH, ret + at);
}
