/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "copies.h"
#include "pyleak/cleanup.h"
#include "pyleak/memory.h"
#include "pyleak/resident.h"

#define COPIES_MAX 1024
/* A quarter of a second, at the speed of process_vm_readv() and of the comparison. */
#define ELSEWHERE_MAX (1ULL << 30)

static int add(struct pl_copies *copies, uint64_t address, uint32_t hook)
{
	if (copies->count == COPIES_MAX)
		return 0;
	if (copies->count == copies->capacity) {
		size_t capacity = copies->capacity ? 2 * copies->capacity : 16;
		void *items = reallocarray(copies->items, capacity, sizeof(copies->items[0]));

		if (!items)
			return -ENOMEM;
		copies->items = items;
		copies->capacity = capacity;
	}
	copies->items[copies->count].address = address;
	copies->items[copies->count].hook = hook;
	copies->count++;
	return 0;
}

static int check_word(const struct pl_probe *probe, uint64_t address, uint64_t word, struct pl_copies *copies)
{
	if (word < probe->base || word >= probe->base + probe->header.code_size)
		return 0;
	for (uint32_t i = 0; i < pl_probe_hook_count(probe); i++)
		if (pl_probe_hook(probe, i)->address == address)
			return 0;
	for (uint32_t i = 0; i < pl_probe_hook_count(probe); i++)
		if (pl_probe_hook(probe, i)->entry == word)
			return add(copies, address, i);
	return 0;
}

enum { CHUNK = 1 << 18 };

/* Whether the process has written any page of a chunk: an allocator may reserve gigabytes in advance, and of the pages of a
 * file that are in memory nobody has put a pointer into one (489 MiB of torch 2's static data). */
static bool is_written(int pagemap, uint64_t at, uint64_t end)
{
	const struct pl_range range = {at, end - at < CHUNK ? end : at + CHUNK};
	uint8_t pages[CHUNK / PL_PAGE];

	if (pagemap < 0 || pl_resident_written(pagemap, range, pages) < 0)
		return true;
	for (uint64_t i = 0; i < (range.end - range.start) / PL_PAGE; i++)
		if (pages[i])
			return true;
	return false;
}

/* *budget, if any, is what may still be read. */
static int scan_map(const struct pl_probe *probe, const struct pl_map *map, int pagemap, uint64_t *budget,
	struct pl_copies *copies)
{
	pl_autofree uint64_t *words = malloc(CHUNK);

	if (!words)
		return -ENOMEM;
	for (uint64_t at = map->start; at < map->end; at += CHUNK) {
		if (!is_written(pagemap, at, map->end))
			continue;
		if (budget && *budget < CHUNK)
			return -EFBIG;
		if (budget)
			*budget -= CHUNK;

		ssize_t got = pl_memory_read_some(probe->pid, at, words, map->end - at < CHUNK ? map->end - at : CHUNK);

		if (got <= 0)
			break;
		for (size_t i = 0; i < (size_t)got / 8; i++) {
			int code = check_word(probe, at + 8 * i, words[i], copies);

			if (code < 0)
				return code;
		}
	}
	return 0;
}

static bool is_static_data(const struct pl_maps *maps, size_t i)
{
	const struct pl_map *map = &maps->items[i];

	/* .bss: anonymous, right behind the file's last mapping */
	return map->inode ||
	       (i > 0 && !map->path[0] && maps->items[i - 1].inode && maps->items[i - 1].end == map->start);
}

static bool is_own_memory(const struct pl_map *map)
{
	return (map->flags & (PL_MAP_READ | PL_MAP_WRITE | PL_MAP_SHARED)) == (PL_MAP_READ | PL_MAP_WRITE);
}

int pl_copies_find(const struct pl_probe *probe, const struct pl_maps *maps, struct pl_copies *ret)
{
	pl_autoclose int pagemap = pl_resident_open(probe->pid);

	*ret = (struct pl_copies){0};
	for (size_t i = 0; i < maps->count; i++) {
		const struct pl_map *map = &maps->items[i];

		if (!is_static_data(maps, i) || !is_own_memory(map))
			continue;

		int code = scan_map(probe, map, pagemap, NULL, ret);

		if (code < 0) {
			pl_copies_free(ret);
			return code;
		}
	}
	return 0;
}

void pl_copies_free(struct pl_copies *copies)
{
	free(copies->items);
	*copies = (struct pl_copies){0};
}

bool pl_copies_elsewhere(const struct pl_probe *probe, const struct pl_maps *maps)
{
	struct pl_copies copies = {0};
	uint64_t budget = ELSEWHERE_MAX;
	pl_autoclose int pagemap = pl_resident_open(probe->pid);
	int code = 0;

	for (size_t i = 0; code == 0 && copies.count == 0 && i < maps->count; i++) {
		const struct pl_map *map = &maps->items[i];

		if (is_static_data(maps, i) || !is_own_memory(map) ||
			(map->start >= probe->base && map->start < probe->base + probe->mapped_size) ||
			(map->start >= probe->tables && map->start < probe->tables + probe->tables_mapped_size))
			continue;
		code = scan_map(probe, map, pagemap, &budget, &copies);
	}

	bool found = code < 0 || copies.count > 0;

	pl_copies_free(&copies);
	return found;
}
