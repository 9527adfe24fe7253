/* SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "heap_private.h"
#include "pyleak/cleanup.h"

/* How much of glibc's heaps is in use, and how much free, of what is in memory. */

struct counting {
	const struct heap *heap;
	uint64_t free, resident, lost;
};

/* Of a free chunk, what is in memory. */
static void count_free(void *context, uint64_t start, uint64_t end)
{
	struct counting *counting = context;

	for (uint64_t page = pl_page_start(start); page < end; page += PL_PAGE) {
		uint64_t from = page > start ? page : start, to = page + PL_PAGE < end ? page + PL_PAGE : end;

		if (page >= counting->heap->range.start && to <= counting->heap->range.end &&
			counting->heap->pages[(page - counting->heap->range.start) / PL_PAGE])
			counting->free += to - from;
	}
}

/* Which pages of all of them are in memory. */
static bool read_pages(const struct moment *moment, struct heap *heaps, size_t count, uint64_t *ret_resident)
{
	*ret_resident = 0;
	for (size_t i = 0; i < count; i++) {
		const uint64_t pages = (heaps[i].range.end - heaps[i].range.start) / PL_PAGE;

		heaps[i].pages = malloc(pages ? pages : 1);
		if (!heaps[i].pages || pl_space_pages(moment->reader->python->space, heaps[i].range, heaps[i].pages) < 0)
			return false;
		for (uint64_t page = 0; page < pages; page++)
			*ret_resident += heaps[i].pages[page] ? PL_PAGE : 0;
	}
	return true;
}

static void count_by_walk(const struct moment *moment, const struct heap *heaps, size_t count, struct counting *sums)
{
	for (size_t i = 0; i < count; i++) {
		struct heap_walk walk = {.context = sums, .free = count_free};

		sums->heap = &heaps[i];
		heaps_walk(moment, &heaps[i], heaps[i].pages, &walk);
		sums->lost += walk.lost;
	}
}

/* The same by malloc's own lists, if these can be read. */
static bool count_by_bins(const struct moment *moment, const struct heap *heaps, size_t count, struct counting *sums)
{
	pl_autofree struct free_chunk *chunks = NULL;
	size_t chunk_count = 0;

	if (!bins_read(moment, heaps, count, &chunks, &chunk_count))
		return false;
	for (size_t i = 0; i < chunk_count; i++) {
		sums->heap = &heaps[chunks[i].heap];
		count_free(sums, chunks[i].start, chunks[i].end);
	}
	return true;
}

static bool count_chunks(const struct moment *moment, struct heap *heaps, size_t count, struct pl_chunk_figures *ret)
{
	struct counting sums = {0};
	uint64_t size = 0;

	for (size_t i = 0; i < count; i++)
		size += heaps[i].range.end - heaps[i].range.start;
	if (size > PL_HEAP_BYTES_MAX || !read_pages(moment, heaps, count, &sums.resident))
		return false;
	if (!count_by_bins(moment, heaps, count, &sums))
		count_by_walk(moment, heaps, count, &sums);
	/* Another allocator's, if it holds few chunks. */
	if (sums.lost > sums.resident / 8)
		return false;
	sums.free = sums.free < sums.resident ? sums.free : sums.resident;
	*ret = (struct pl_chunk_figures){(int64_t)(sums.resident - sums.free), (int64_t)sums.free};
	return true;
}

bool pl_heap_count_chunks(const struct pl_heap_reader *reader, const struct pl_maps *maps, struct pl_chunk_figures *ret)
{
	const struct moment moment = {reader, maps};
	pl_autofree struct heap *heaps = calloc(HEAPS_MAX, sizeof(*heaps));
	size_t count = heaps ? heaps_find(&moment, heaps, HEAPS_MAX) : 0;
	bool counted = count && count_chunks(&moment, heaps, count, ret);

	for (size_t i = 0; i < count; i++)
		free(heaps[i].pages);
	return counted;
}
