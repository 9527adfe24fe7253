/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"
#include "pyleak/memory.h"
#include "pyleak/resident.h"
#include "shadow.h"
#include "unseen.h"

/* Of live blocks the shadow map is read where it is in memory: 4 KiB for 16 KiB of heap. Of more than this, a part. */
enum {
	PAGES_MAX = 1 << 16,
	SMALL_MAX = 8192,
	LARGE_MAX = 32768,
};

struct scan {
	pid_t pid;
	const struct pl_inline_reader *reader;
	struct unseen_blocks *ret;
	uint8_t *native; /* by site number */
	size_t small_count, small_seen, large_count;
	uint64_t random;
	const struct pl_range *heaps; /* see unseen_blocks_read() */
	size_t heap_count;
};

/* xorshift: which blocks are the sample, the same in each look at the same blocks. */
static uint64_t draw(struct scan *scan)
{
	scan->random ^= scan->random << 13;
	scan->random ^= scan->random >> 7;
	scan->random ^= scan->random << 17;
	return scan->random;
}

/* The sample in front, the large ones behind it. */
static void keep_block(struct scan *scan, const struct unseen_block *block)
{
	struct unseen_block *items = scan->ret->items;
	uint64_t place;

	if (!block->small) {
		if (scan->large_count < LARGE_MAX)
			items[SMALL_MAX + scan->large_count++] = *block;
		return;
	}
	scan->ret->small_alive[block->entry >> PL_INLINE_SITE_SHIFT]++;
	scan->small_seen++;
	place = scan->small_count < SMALL_MAX ? scan->small_count++ : draw(scan) % scan->small_seen;
	if (place < SMALL_MAX)
		items[place] = *block;
}

/* A large block with a mapping of its own begins 16 bytes into a page; those of Arrow's pools lie at multiples of 64, or at the
 * alignment that was asked for, and large ones of mimalloc and jemalloc at pages. */
static bool is_glibcs(const struct scan *scan, const struct unseen_block *block)
{
	size_t low = 0, high = scan->heap_count;

	if (!scan->heaps || (!block->small && block->address % PL_PAGE == 16))
		return true;
	while (low < high) {
		size_t middle = (low + high) / 2;

		if (scan->heaps[middle].end <= block->address)
			low = middle + 1;
		else
			high = middle;
	}
	return low < scan->heap_count && block->address >= scan->heaps[low].start;
}

/* The first of `count` entries is that of a native block at `address`. */
static void look_at_entry(struct scan *scan, const uint32_t *entries, size_t count, uint64_t entry_at, uint64_t address)
{
	struct unseen_block block = {.address = address, .entry_at = entry_at, .entry = entries[0]};
	const bool spilled = (block.entry & PL_INLINE_SIZE_SPILLED) == PL_INLINE_SIZE_SPILLED;

	if (spilled && count <= PL_INLINE_SPILL_WORDS)
		return;
	block.size = shadow_size(entries, count);
	block.small = block.size < UNSEEN_LARGE;
	if (!is_glibcs(scan, &block))
		return;
	/* What begins with a page may be a mapping, in front of which are no marks. The others of its site stand for it. */
	if (address % PL_PAGE)
		keep_block(scan, &block);
	else if (block.small)
		scan->ret->small_alive[block.entry >> PL_INLINE_SITE_SHIFT]++;
}

static void see(void *context, const uint32_t *entries, size_t count, uint64_t shadow, uint64_t address)
{
	struct scan *scan = context;

	for (size_t i = 0; i < count; i++) {
		uint32_t entry = entries[i], site = entry >> PL_INLINE_SITE_SHIFT;

		if (site < scan->ret->sites && scan->native[site] && !(entry & (PL_INLINE_ENTRY_ODD | PL_INLINE_ENTRY_CODE)))
			look_at_entry(scan, entries + i, count - i, shadow + i * sizeof(entry), address + 16 * i);
	}
}

/* Which of the recorder's sites are of native allocators. */
static int find_native_sites(struct scan *scan)
{
	const uint32_t sites = scan->ret->sites;
	pl_autofree struct pl_inline_site *rows = calloc(sites, sizeof(*rows));
	int code;

	if (!rows)
		return -ENOMEM;
	code = pl_memory_read(scan->pid, scan->reader->config.sites, rows, sites * sizeof(*rows));
	for (uint32_t i = PL_INLINE_SITE_FIRST; code == 0 && i < sites; i++)
		scan->native[i] = rows[i].hash && rows[i].kind == 1 && scan->reader->local[i] != UINT32_MAX;
	return code;
}

int unseen_blocks_read(pid_t pid, const struct pl_inline_reader *reader, const struct pl_range *heaps, size_t heap_count,
	struct unseen_blocks *ret)
{
	pl_autofree struct scan *scan = calloc(1, sizeof(*scan));
	pl_autofree uint8_t *native = calloc(reader->known + 1, 1);
	pl_autoclose int pagemap = pl_resident_open(pid);
	int code;

	*ret = (struct unseen_blocks){
		.items = calloc(SMALL_MAX + LARGE_MAX, sizeof(*ret->items)),
		.small_alive = calloc(reader->known + 1, sizeof(*ret->small_alive)),
		.sites = (uint32_t)reader->known,
	};
	if (!scan || !native || !ret->items || !ret->small_alive)
		return -ENOMEM;
	if (pagemap < 0)
		return pagemap;
	*scan = (struct scan){
		.pid = pid, .reader = reader, .ret = ret, .native = native, .random = 88172645463325252u, .heaps = heaps, .heap_count = heap_count};
	struct shadow_walk walk = {.pid = pid,
		.pagemap = pagemap,
		.config = &reader->config,
		.pages_left = PAGES_MAX,
		.see = see,
		.context = scan};
	code = find_native_sites(scan);
	if (code == 0)
		code = shadow_walk(&walk);
	memmove(ret->items + scan->small_count, ret->items + SMALL_MAX, scan->large_count * sizeof(*ret->items));
	ret->count = scan->small_count + scan->large_count;
	return code;
}

void unseen_blocks_free(struct unseen_blocks *blocks)
{
	free(blocks->items);
	free(blocks->small_alive);
	*blocks = (struct unseen_blocks){0};
}
