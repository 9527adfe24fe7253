/* SPDX-License-Identifier: MIT */
#include "inline_untouched.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "inline_rounding.h"
#include "pyleak/cleanup.h"
#include "pyleak/maps.h"
#include "pyleak/memory.h"
#include "pyleak/page.h"
#include "pyleak/resident.h"

enum {
	LEAST = 4 * PL_PAGE,
	ENTRIES = PL_PAGE / sizeof(uint32_t),
	GRANULE = 16,
	SPAN = ENTRIES * GRANULE, /* of the heap, that a page of the shadow map is for */
	CHUNK_PAGES = PL_INLINE_CHUNK_BYTES / PL_PAGE,
	BLOCK_PAGES = 1 << 20, /* of blocks that are looked at */
	PIECE = 1 << 12,
};
#define CHUNK_SPAN ((uint64_t)CHUNK_PAGES * SPAN)

struct look {
	pid_t pid;
	const struct pl_inline_reader *reader;
	const struct pl_inline_config *config;
	int pagemap;
	uint64_t number, step; /* of pages of the shadow map: each step-th is looked at */
	uint64_t block_pages;  /* that may yet be looked at */
	/* Bytes: looked at, of them not in memory, and what there was to be looked at. Of blocks, and of pools. */
	struct sums {
		uint64_t seen, missing, asked;
	} blocks, pools;
	uint64_t pool_end; /* of the mapping of a pool that was met last */
	uint64_t within;   /* bytes of blocks in such mappings that are in memory */
	const struct old_pools *old;
	uint64_t *old_within; /* the same for each owner of those */
	struct inline_touched *ret;
};

static bool is_pool(const struct look *look, uint32_t site)
{
	return site < look->reader->known && look->reader->local[site] != UINT32_MAX &&
	       pl_sites_domain(look->reader->sites, look->reader->local[site]) == PL_SITE_POOL;
}

/* How much of it is not in memory. */
static uint64_t look_at_block(struct look *look, struct sums *sums, uint64_t address, uint64_t size)
{
	uint64_t at = (address + PL_PAGE - 1) & ~(uint64_t)(PL_PAGE - 1), end = (address + size) & ~(uint64_t)(PL_PAGE - 1);
	const uint64_t missing = sums->missing;
	uint8_t pages[PIECE];

	if (address + size < address || at >= end)
		return 0;
	sums->asked += end - at;
	while (at < end && look->block_pages) {
		uint64_t count = (end - at) / PL_PAGE < PIECE ? (end - at) / PL_PAGE : PIECE;

		if (count > look->block_pages)
			count = look->block_pages;
		if (pl_resident_pages(look->pagemap, (struct pl_range){at, at + count * PL_PAGE}, pages) < 0)
			break;
		for (uint64_t i = 0; i < count; i++)
			sums->missing += pages[i] == PL_RESIDENT ? 0 : PL_PAGE;
		sums->seen += count * PL_PAGE;
		look->block_pages -= count;
		at += count * PL_PAGE;
	}
	return sums->missing - missing;
}

static void note_missing(const struct look *look, uint32_t number, uint64_t missing)
{
	uint32_t site = number < look->reader->known ? look->reader->local[number] : UINT32_MAX;

	if (look->ret->by_site && site < look->ret->site_count && missing < UINT64_C(1) << 48)
		look->ret->by_site[site] += (int64_t)(missing * look->step);
}

static void look_at_entries(struct look *look, const uint32_t *entries, uint64_t start)
{
	for (size_t i = 0; i < ENTRIES; i++) {
		const uint32_t site = entries[i] >> PL_INLINE_SITE_SHIFT;
		uint64_t size = site ? inline_rounding_size(entries, i) : 0, address = start + i * GRANULE;
		const struct old_pool *old = size ? old_pools_at(look->old, address) : NULL;

		if (size >= LEAST && is_pool(look, site)) {
			/* All of an old one is looked at as such. */
			if (!old)
				(void)look_at_block(look, &look->pools, address, size);
			look->pool_end = address + size;
			continue;
		}
		if (size >= LEAST) {
			uint64_t missing = look_at_block(look, &look->blocks, address, size);

			note_missing(look, site, missing);
			size -= missing;
		}
		if (old)
			look->old_within[old->owner] += size;
		else if (address < look->pool_end)
			look->within += size;
	}
}

/* The pages of one chunk of the shadow map, of the heap from `start` to `end`; count: NULL to look at them. */
static void look_at_chunk(struct look *look, struct pl_range heap, uint64_t *count)
{
	uint64_t first = heap.start % CHUNK_SPAN / SPAN, last = (heap.end - 1) % CHUNK_SPAN / SPAN, chunk;
	uint8_t pages[CHUNK_PAGES];
	uint32_t entries[ENTRIES];

	if (heap.start / CHUNK_SPAN >= PL_INLINE_DIRECTORY_ENTRIES ||
		pl_memory_read_u64(look->pid, look->config->directory + heap.start / CHUNK_SPAN * sizeof(chunk), &chunk) < 0 ||
		(chunk = pl_inline_chunk(chunk)) < look->config->pool || chunk - look->config->pool >= look->config->chunk_count * PL_INLINE_CHUNK_BYTES ||
		pl_resident_pages(look->pagemap,
			(struct pl_range){chunk + first * PL_PAGE, chunk + (last + 1) * PL_PAGE}, pages + first) < 0)
		return;
	for (uint64_t page = first; page <= last; page++) {
		if (!pages[page])
			continue;
		if (count) {
			++*count;
			continue;
		}
		if (look->number++ % look->step == 0 &&
			pl_memory_read(look->pid, chunk + page * PL_PAGE, entries, sizeof(entries)) == 0)
			look_at_entries(look, entries, heap.start / CHUNK_SPAN * CHUNK_SPAN + page * SPAN);
	}
}

/* Where blocks can be: a page of the shadow map that two mappings share is looked at with the first. */
static void look_at_heap(struct look *look, const struct pl_maps *maps, uint64_t *count)
{
	uint64_t done = 0;

	for (size_t i = 0; i < maps->count; i++) {
		const struct pl_map *map = &maps->items[i];
		uint64_t at = map->start & ~(uint64_t)(SPAN - 1), end = (map->end + SPAN - 1) & ~(uint64_t)(SPAN - 1);

		if (!(map->flags & PL_MAP_WRITE) || map->inode ||
			(map->start >= look->config->data_start &&
				map->start - look->config->data_start < look->config->data_size))
			continue;
		for (at = at < done ? done : at; at < end; at = done) {
			uint64_t next = (at / CHUNK_SPAN + 1) * CHUNK_SPAN;

			done = next < end ? next : end;
			look_at_chunk(look, (struct pl_range){at, done}, count);
		}
	}
}

static uint64_t scaled(const struct look *look, const struct sums *sums, uint64_t bytes)
{
	double share = sums->seen ? (double)bytes / (double)sums->seen * (double)sums->asked * (double)look->step : 0;

	return share < 0x1p56 ? (uint64_t)share : UINT64_C(1) << 56;
}

void inline_untouched_look(pid_t pid, const struct pl_inline_reader *reader, struct old_pools *old, struct inline_touched *ret)
{
	struct look look = {
		.pid = pid, .reader = reader, .config = &reader->config, .step = 1, .block_pages = BLOCK_PAGES, .old = old};
	pl_autofree uint64_t *old_within = calloc(old->owner_count + 1, sizeof(*old_within));
	pl_autoclose int fd = pl_resident_open(pid);
	struct pl_maps maps = {0};
	uint64_t count = 0;

	ret->untouched = ret->pools = 0;
	look.ret = ret;
	look.old_within = old_within;
	if (old_within && fd >= 0 && pl_maps_read(pid, &maps) == 0) {
		look.pagemap = fd;
		look_at_heap(&look, &maps, &count);
		look.step = (count + INLINE_UNTOUCHED_PAGES - 1) / INLINE_UNTOUCHED_PAGES;
		if (look.step)
			look_at_heap(&look, &maps, NULL);
		ret->untouched = (int64_t)scaled(&look, &look.blocks, look.blocks.missing);
		ret->pools = (int64_t)scaled(&look, &look.pools, look.pools.seen - look.pools.missing) -
			     (int64_t)(look.within < UINT64_C(1) << 56 ? look.within * look.step : 0);
		if (ret->pools < 0)
			ret->pools = 0;
		for (size_t i = 0; i < old->owner_count; i++)
			old_within[i] = (old_within[i] < UINT64_C(1) << 48 ? old_within[i] : 0) * look.step;
		ret->pools += old_pools_grown(old, pid, reader->sites, old_within);
	}
	pl_maps_free(&maps);
}
