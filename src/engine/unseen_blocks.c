/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"
#include "pyleak/memory.h"
#include "pyleak/resident.h"
#include "unseen.h"

/* Of live blocks the shadow map is read where it is in memory: 4 KiB for 16 KiB of heap. Of more than this, a part. */
enum {
	PAGES_MAX = 1 << 16,
	RUN_PAGES = 64,
	ENTRIES = PL_PAGE / sizeof(uint32_t),
	CHUNK_PAGES = PL_INLINE_CHUNK_BYTES / PL_PAGE,
	DIRECTORY_PAGES = PL_INLINE_DIRECTORY_ENTRIES * sizeof(uint64_t) / PL_PAGE,
	SMALL_MAX = 8192,
	LARGE_MAX = 32768,
};

struct scan {
	pid_t pid;
	int pagemap;
	const struct pl_inline_reader *reader;
	struct unseen_blocks *ret;
	uint8_t *native; /* by site number */
	size_t small_count, small_seen, large_count;
	uint64_t random, pages_left;
	uint32_t entries[RUN_PAGES * ENTRIES];
	uint8_t in_memory[CHUNK_PAGES];
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

/* The entry at `at` is that of a native block at `address`. `count` entries follow from it on. */
static void look_at_entry(struct scan *scan, const uint32_t *entries, size_t count, uint64_t entry_at, uint64_t address)
{
	struct unseen_block block = {.address = address, .entry_at = entry_at, .entry = entries[0]};

	block.size = block.entry & PL_INLINE_SIZE_SPILLED;
	if (block.size == PL_INLINE_SIZE_SPILLED) {
		if (count <= PL_INLINE_SPILL_WORDS)
			return;
		block.size = 0;
		for (unsigned int i = 0; i < PL_INLINE_SPILL_WORDS; i++)
			block.size |= (uint64_t)(entries[1 + i] & PL_INLINE_SIZE_SPILLED) << (i * PL_INLINE_SIZE_BITS);
	}
	block.small = block.size < UNSEEN_LARGE;
	/* What begins with a page may be a mapping, in front of which are no marks. The others of its site stand for it. */
	if (address % PL_PAGE)
		keep_block(scan, &block);
	else if (block.small)
		scan->ret->small_alive[block.entry >> PL_INLINE_SITE_SHIFT]++;
}

static int look_at_run(struct scan *scan, uint64_t shadow, uint64_t address, size_t pages)
{
	size_t count = pages * ENTRIES;
	int code = pl_memory_read(scan->pid, shadow, scan->entries, pages * PL_PAGE);

	for (size_t i = 0; code == 0 && i < count; i++) {
		uint32_t entry = scan->entries[i], site = entry >> PL_INLINE_SITE_SHIFT;

		if (site < scan->ret->sites && scan->native[site] && !(entry & (PL_INLINE_ENTRY_ODD | PL_INLINE_ENTRY_CODE)))
			look_at_entry(scan, scan->entries + i, count - i, shadow + i * sizeof(entry), address + 16 * i);
	}
	return code == -EFAULT ? 0 : code;
}

static int look_at_chunk(struct scan *scan, uint64_t shadow, uint64_t address)
{
	int code = pl_resident_pages(scan->pagemap, (struct pl_range){shadow, shadow + PL_INLINE_CHUNK_BYTES}, scan->in_memory);

	for (size_t i = 0; i < CHUNK_PAGES; i++)
		scan->in_memory[i] &= PL_RESIDENT;
	for (size_t i = 0, next; code == 0 && i < CHUNK_PAGES && scan->pages_left; i = next) {
		for (next = i + 1; next < CHUNK_PAGES && next - i < RUN_PAGES && scan->in_memory[next] == scan->in_memory[i]; next++)
			continue;
		if (!scan->in_memory[i])
			continue;
		scan->pages_left -= next - i < scan->pages_left ? next - i : scan->pages_left;
		code = look_at_run(scan, shadow + i * PL_PAGE, address + i * ENTRIES * 16, next - i);
	}
	return code;
}

static int look_at_directory(struct scan *scan)
{
	const struct pl_inline_config *config = &scan->reader->config;
	pl_autofree uint8_t *in_memory = malloc(DIRECTORY_PAGES);
	uint64_t chunks[PL_PAGE / sizeof(uint64_t)];
	int code = !in_memory ? -ENOMEM :
				pl_resident_pages(scan->pagemap,
					(struct pl_range){config->directory, config->directory + (uint64_t)DIRECTORY_PAGES * PL_PAGE},
					in_memory);

	for (uint64_t page = 0; code == 0 && page < DIRECTORY_PAGES; page++) {
		if (!(in_memory[page] & PL_RESIDENT))
			continue;
		code = pl_memory_read(scan->pid, config->directory + page * PL_PAGE, chunks, sizeof(chunks));
		for (uint64_t i = 0; code == 0 && i < PL_PAGE / sizeof(uint64_t); i++) {
			uint64_t chunk = chunks[i];

			/* It is the process's to overwrite. */
			if (chunk >= config->pool && (chunk - config->pool) % PL_INLINE_CHUNK_BYTES == 0 &&
				(chunk - config->pool) / PL_INLINE_CHUNK_BYTES < config->chunk_count)
				code = look_at_chunk(scan, chunk,
					(page * (PL_PAGE / sizeof(uint64_t)) + i) << PL_INLINE_CHUNK_SHIFT);
		}
	}
	return code;
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

int unseen_blocks_read(pid_t pid, const struct pl_inline_reader *reader, struct unseen_blocks *ret)
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
		.pid = pid, .pagemap = pagemap, .reader = reader, .ret = ret, .native = native, .random = 88172645463325252u,
		.pages_left = PAGES_MAX};
	code = find_native_sites(scan);
	if (code == 0)
		code = look_at_directory(scan);
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
