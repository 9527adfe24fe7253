/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "heap_private.h"
#include "pyleak/cleanup.h"

/*
 * What is free in glibc's heaps, by the lists in which malloc has it (struct malloc_state, malloc/malloc.c), and
 * without all that is in use: of 660,000 chunks in 110 MiB of a process that had imported torch, 24 were free. The same
 * as a walk over all chunks finds: what a thread cache or a fast bin has counts as used there, too.
 *
 * The lists change while they are read. So each chunk must say that it follows on the one before; and where anything
 * does not fit, or many chunks are free, there is no answer.
 */

enum {
	BINS = 127,
	TRIES = 8,
	DATA_MAX = 1 << 20, /* of the C library's */
	BATCH = 64,
	PAGES_FOR_EACH = 4, /* more chunks than that, and a walk takes no longer */
	CHUNKS_MIN = 64,
	SIZE_AT = 8, /* see chunks.c */
	SMALLEST = 32,
	PREVIOUS_IN_USE = 1,
	MAPPED = 2,
	FLAGS = 7,
};

/* From `top` on; before it is what differs by version. */
struct lists {
	uint64_t top, last_remainder;
	/* Each has a list's first chunk and its last one, as if it were a chunk that begins 16 bytes before. */
	uint64_t bins[BINS][2];
	uint32_t map[4];
	uint64_t next, next_free, threads, size, size_max;
};
_Static_assert(sizeof(struct lists) == 2104, "struct malloc_state from 2.23 on");

/* Where `top` is in other arenas: 2.43, which has no fast bins; up to 2.26; from 2.27 on. */
static const uint64_t top_at[] = {8, 88, 96};

struct search {
	const struct moment *moment;
	const struct heap *heaps;
	size_t count;
	struct chain {
		uint64_t bin, before, at; /* `before`: of `at` in its list */
		size_t heap;
	} *chains;
	size_t chain_count, chain_capacity;
	struct free_chunk *chunks;
	size_t chunk_count, chunk_max;
	size_t looks; /* at chunks, in all tries */
	uint64_t left; /* bytes: all chunks together cannot be more than the heaps */
};

/* The one with this address, or `count`. They are in order. */
static size_t heap_at(const struct search *search, uint64_t address)
{
	size_t low = 0, high = search->count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (search->heaps[middle].range.end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low < search->count && address >= search->heaps[low].range.start ? low : search->count;
}

/* Where a chunk of this arena can be, whose head is in memory. */
static size_t heap_of_chunk(const struct search *search, uint64_t at, uint64_t arena)
{
	size_t i = at % 16 ? search->count : heap_at(search, at);
	const struct heap *heap = &search->heaps[i < search->count ? i : 0];
	uint64_t first = (at - heap->range.start) / PL_PAGE, last = (at + SMALLEST - 1 - heap->range.start) / PL_PAGE;

	if (i == search->count || heap->arena != arena || heap->range.end - at < SMALLEST)
		return search->count;
	return heap->pages[first] && heap->pages[last] ? i : search->count;
}

static bool add_chunk(struct search *search, size_t heap, uint64_t start, uint64_t size)
{
	if (search->chunk_count == search->chunk_max || size > search->left)
		return false;
	search->left -= size;
	search->chunks[search->chunk_count++] = (struct free_chunk){heap, start, start + size};
	return true;
}

static bool add_chain(struct search *search, const struct chain *chain)
{
	if (search->chain_count == search->chain_capacity) {
		size_t capacity = search->chain_capacity ? 2 * search->chain_capacity : BINS;
		struct chain *chains = reallocarray(search->chains, capacity, sizeof(*chains));

		if (!chains)
			return false;
		search->chains = chains;
		search->chain_capacity = capacity;
	}
	search->chains[search->chain_count++] = *chain;
	return true;
}

/* The size of the chunk from which new ones are cut, as far as it is in its heap; 0: it is not that. */
static uint64_t size_of_top(const struct search *search, const struct heap *heap, uint64_t top)
{
	uint64_t word, size, left = heap->range.end - top;

	if (pl_space_read_u64(search->moment->reader->python->space, top + SIZE_AT, &word) < 0)
		return 0;
	size = word & ~(uint64_t)FLAGS;
	/* The heap may have grown since the maps were read, or been trimmed. What ends with no page was the top. */
	if (!(word & PREVIOUS_IN_USE) || word & MAPPED || size < SMALLEST || (top + size) % PL_PAGE)
		return 0;
	return size < left ? size : left;
}

static bool add_bins(struct search *search, uint64_t address, uint64_t arena, const struct lists *lists)
{
	for (uint64_t i = 0; i < BINS; i++) {
		struct chain chain = {address + 16 * i, address + 16 * i, lists->bins[i][0], 0};

		if (lists->bins[i][0] == chain.bin && lists->bins[i][1] == chain.bin)
			continue;
		chain.heap = heap_of_chunk(search, chain.at, arena);
		if (chain.heap == search->count || heap_of_chunk(search, lists->bins[i][1], arena) == search->count ||
			!add_chain(search, &chain))
			return false;
	}
	return true;
}

/* The lists at this address, if they are an arena's. */
static bool add_lists(struct search *search, uint64_t address, uint64_t arena, const struct lists *lists)
{
	const size_t chains = search->chain_count, heap = heap_of_chunk(search, lists->top, arena);
	uint64_t size = heap < search->count ? size_of_top(search, &search->heaps[heap], lists->top) : 0;

	if (size && add_bins(search, address, arena, lists) && add_chunk(search, heap, lists->top, size))
		return true;
	search->chain_count = chains;
	return false;
}

/* One step in up to so many chains. */
static bool step(struct search *search, struct chain *chains, size_t count)
{
	struct {
		uint64_t size, next, previous;
	} heads[BATCH];
	struct pl_memory_piece pieces[BATCH];

	search->looks += count;
	for (size_t i = 0; i < count; i++)
		pieces[i] = (struct pl_memory_piece){chains[i].at + SIZE_AT, &heads[i], sizeof(heads[i])};
	if (pl_space_read_pieces(search->moment->reader->python->space, pieces, count) < 0)
		return false;
	for (size_t i = 0; i < count; i++) {
		struct chain *chain = &chains[i];
		const struct heap *heap = &search->heaps[chain->heap];
		uint64_t size = heads[i].size & ~(uint64_t)FLAGS;

		if (heads[i].previous != chain->before || !(heads[i].size & PREVIOUS_IN_USE) || heads[i].size & MAPPED)
			return false;
		if (size % 16 || size < SMALLEST || size > heap->range.end - chain->at)
			return false;
		if (!add_chunk(search, chain->heap, chain->at, size))
			return false;
		chain->before = chain->at;
		chain->at = heads[i].next;
		if (chain->at == chain->bin)
			continue;
		chain->heap = heap_of_chunk(search, chain->at, heap->arena);
		if (chain->heap == search->count)
			return false;
	}
	return true;
}

static bool follow_chains(struct search *search)
{
	while (search->chain_count) {
		size_t left = 0;

		for (size_t i = 0; i < search->chain_count; i += BATCH)
			if (!step(search, &search->chains[i],
				    search->chain_count - i < BATCH ? search->chain_count - i : BATCH))
				return false;
		for (size_t i = 0; i < search->chain_count; i++)
			if (search->chains[i].at != search->chains[i].bin)
				search->chains[left++] = search->chains[i];
		search->chain_count = left;
	}
	return true;
}

/* The main arena is static, and has no symbol after strip: it is known by its lists. `heap`: where its top is, which
 * says little of a heap that is for the most part another allocator's. */
static bool add_main(struct search *search, size_t heap)
{
	const struct pl_range range = search->heaps[heap].range;
	struct pl_space *space = search->moment->reader->python->space;
	const struct pl_maps *maps = search->moment->maps;

	for (size_t i = 0; i < maps->count; i++) {
		const struct pl_map *map = &maps->items[i];
		uint64_t size = map->end - map->start;
		pl_autofree uint8_t *bytes = NULL, *pages = NULL;

		if (!heaps_is_libc(map) || !(map->flags & PL_MAP_WRITE) || size > DATA_MAX)
			continue;
		bytes = malloc(size);
		pages = malloc(size / PL_PAGE + 1);
		if (!bytes || !pages || pl_space_pages(space, (struct pl_range){map->start, map->end}, pages) < 0)
			continue;
		if (memchr(pages, 0, size / PL_PAGE) || pl_space_read(space, map->start, bytes, size) < 0)
			continue;
		for (uint64_t at = 0; at + sizeof(struct lists) <= size; at += sizeof(uint64_t)) {
			struct lists lists;

			memcpy(&lists.top, bytes + at, sizeof(lists.top));
			if (lists.top % 16 || lists.top < range.start || lists.top >= range.end)
				continue;
			memcpy(&lists, bytes + at, sizeof(lists));
			if (lists.size < (range.end - range.start) / 8 * 7)
				continue;
			if (add_lists(search, map->start + at, 0, &lists))
				return true;
		}
	}
	return false;
}

static bool add_other(struct search *search, uint64_t arena)
{
	struct pl_space *space = search->moment->reader->python->space;
	struct lists lists;

	for (size_t i = 0; i < sizeof(top_at) / sizeof(top_at[0]); i++)
		if (pl_space_read(space, arena + top_at[i], &lists, sizeof(lists)) == 0 &&
			add_lists(search, arena + top_at[i], arena, &lists))
			return true;
	return false;
}

/* Each arena has one heap that is its first. */
static bool add_all(struct search *search)
{
	bool have_main = false;

	for (size_t i = 0; i < search->count; i++) {
		const struct heap *heap = &search->heaps[i];

		if (!heap->arena) {
			/* In pieces: which of them has the top is not known. */
			if (have_main || !add_main(search, i))
				return false;
			have_main = true;
		} else {
			size_t first = heap_at(search, heap->arena);

			if (first == search->count || search->heaps[first].arena != heap->arena ||
				(first == i && !add_other(search, heap->arena)))
				return false;
		}
	}
	return true;
}

bool bins_read(const struct moment *moment, const struct heap *heaps, size_t count, struct free_chunk **ret,
	size_t *ret_count)
{
	struct search search = {.moment = moment, .heaps = heaps, .count = count};
	uint64_t pages = 0, bytes = 0;
	bool done = false;

	for (size_t i = 0; i < count; i++) {
		const uint64_t heap_pages = (heaps[i].range.end - heaps[i].range.start) / PL_PAGE;

		bytes += heap_pages * PL_PAGE;
		for (uint64_t page = 0; page < heap_pages; page++)
			pages += heaps[i].pages[page] != 0;
	}
	search.chunk_max = pages / PAGES_FOR_EACH + CHUNKS_MIN;
	search.chunks = calloc(search.chunk_max, sizeof(*search.chunks));
	for (int tries = 0; search.chunks && !done && tries < TRIES; tries++) {
		search.chain_count = search.chunk_count = 0;
		search.left = bytes;
		done = add_all(&search) && follow_chains(&search);
		if (search.chunk_count == search.chunk_max || search.looks >= search.chunk_max)
			break;
	}
	free(search.chains);
	if (!done) {
		free(search.chunks);
		return false;
	}
	*ret = search.chunks;
	*ret_count = search.chunk_count;
	return true;
}
