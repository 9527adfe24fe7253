/* SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "blocks.h"
#include "pyleak/cleanup.h"

/*
 * The blocks of glibc's malloc: those in heaps, chunk by chunk, and those with a mapping of their own, which begins
 * with a chunk that says so. A program that has called mallopt(3) can have smaller ones.
 */

enum {
	CHUNK_HEADER = 16,
	CHUNK_TAIL = 8,       /* of a chunk in use, the first word of the next one is its own */
	CHUNK_MAPPED = 2,
	CHUNK_FLAGS = 7,
	MAPPED_MIN = 128 << 10, /* DEFAULT_MMAP_THRESHOLD_MIN */
	BATCH = 256,
};
#define WINDOW (UINT64_C(1) << 30)

struct visit {
	const struct moment *moment;
	const struct block_visitor *visitor;
	size_t count;
	struct block blocks[BATCH];
	struct pl_memory_piece pieces[BATCH];
	uint8_t bytes[BATCH][BLOCK_LENGTH];
};

static void flush(struct visit *visit)
{
	struct pl_space *space = visit->moment->reader->python->space;
	bool whole = visit->count && pl_space_read_pieces(space, visit->pieces, visit->count) == 0;

	for (size_t i = 0; i < visit->count; i++) {
		const struct pl_memory_piece *piece = &visit->pieces[i];

		if (whole || pl_space_read(space, piece->address, piece->buffer, piece->length) == 0)
			visit->visitor->see(visit->visitor->context, &visit->blocks[i]);
	}
	visit->count = 0;
}

/* What of its beginning is in memory: the page of its header is. */
static size_t beginning(const struct visit *visit, uint64_t address, uint64_t size)
{
	uint64_t length = size < BLOCK_LENGTH ? size : BLOCK_LENGTH, left = PL_PAGE - address % PL_PAGE;
	struct pl_range next = {address + left, address + left + PL_PAGE};
	uint8_t present = 0;

	if (length > left && (pl_space_pages(visit->moment->reader->python->space, next, &present) < 0 || !present))
		length = left;
	return length;
}

static void add(struct visit *visit, uint64_t address, uint64_t size)
{
	size_t i = visit->count, length = beginning(visit, address, size);

	visit->blocks[i] = (struct block){address, size, visit->bytes[i], length};
	visit->pieces[i] = (struct pl_memory_piece){address, visit->bytes[i], length};
	if (++visit->count == BATCH)
		flush(visit);
}

static void add_chunk(void *context, uint64_t start, uint64_t end)
{
	struct visit *visit = context;

	if (end - start > CHUNK_HEADER)
		add(visit, start + CHUNK_HEADER, end - start - CHUNK_HEADER + CHUNK_TAIL);
}

static void visit_heap(struct visit *visit, const struct heap *heap)
{
	uint64_t count = (heap->range.end - heap->range.start) / PL_PAGE;
	pl_autofree uint8_t *pages = malloc(count ? count : 1);
	struct heap_walk walk = {.context = visit, .use = add_chunk};

	if (pages && pl_space_pages(visit->moment->reader->python->space, heap->range, pages) == 0)
		heaps_walk(visit->moment, heap, pages, &walk);
}

/* How much the chunk takes that has a mapping of its own from here on; 0: there is none. Its size is in whole pages,
 * in newer versions of glibc (2.43 does so) less a header. */
static uint64_t mapped_chunk(const struct visit *visit, const struct pl_map *map, uint64_t at)
{
	uint64_t header[2], size, pages;

	if (pl_space_read(visit->moment->reader->python->space, at, header, sizeof(header)) < 0)
		return 0;
	size = header[1] & ~(uint64_t)CHUNK_FLAGS;
	pages = pl_page_start(size + CHUNK_HEADER);
	if (header[0] || (header[1] & CHUNK_FLAGS) != CHUNK_MAPPED || size < MAPPED_MIN || pages - size > CHUNK_HEADER)
		return 0;
	return pages <= map->end - at ? pages : 0;
}

static void visit_mapping(struct visit *visit, const struct pl_map *map)
{
	pl_autofree uint8_t *pages = malloc(WINDOW / PL_PAGE);
	uint64_t next = map->start; /* behind the last chunk */

	/* A reservation may be a terabyte, and little of it be in memory. */
	for (uint64_t start = map->start; pages && start < map->end; start += WINDOW) {
		const struct pl_range range = {start, map->end - start < WINDOW ? map->end : start + WINDOW};

		if (pl_space_pages(visit->moment->reader->python->space, range, pages) < 0)
			return;
		for (uint64_t at = next > start ? next : start; at < range.end; next = at) {
			uint64_t size = pages[(at - start) / PL_PAGE] ? mapped_chunk(visit, map, at) : 0;

			if (size)
				add(visit, at + CHUNK_HEADER, size - CHUNK_HEADER);
			at += size ? size : PL_PAGE;
		}
	}
}

static bool holds_heap(const struct pl_map *map, const struct heap *heaps, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (heaps[i].range.start >= map->start && heaps[i].range.start < map->end)
			return true;
	return false;
}

bool heap_visit(const struct moment *moment, const struct block_visitor *visitor)
{
	pl_autofree struct heap *heaps = calloc(HEAPS_MAX, sizeof(*heaps));
	pl_autofree struct visit *visit = calloc(1, sizeof(*visit));
	size_t count;

	if (!heaps || !visit)
		return false;
	*visit = (struct visit){.moment = moment, .visitor = visitor};
	count = heaps_find(moment, heaps, HEAPS_MAX);
	for (size_t i = 0; i < count; i++)
		visit_heap(visit, &heaps[i]);
	for (size_t i = 0; count && i < moment->maps->count; i++) {
		const struct pl_map *map = &moment->maps->items[i];

		if (pl_map_is_anonymous(map) && !map->path[0] && !holds_heap(map, heaps, count))
			visit_mapping(visit, map);
	}
	flush(visit);
	return count != 0;
}
