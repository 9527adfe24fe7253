/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "heap_private.h"
#include "pyleak/cleanup.h"

/*
 * The memory of glibc's malloc, chunk by chunk. The main arena is in [heap]; each other one is made of heaps that are
 * aligned to 64 MiB and begin with a struct heap_info (malloc/arena.c).
 */

enum { PIECE_PAGES = 64, PIECE = PIECE_PAGES * PL_PAGE };
#define HEAP_ALIGNMENT (UINT64_C(64) << 20)
#define ARENA_HEADER_MAX 4096

struct heap_info {
	uint64_t arena, previous, size, writable;
};

/* Page by page, from one that is in memory to the next that is not. */
void heaps_walk(const struct moment *moment, const struct heap *heap, const uint8_t *pages, struct heap_walk *walk)
{
	pl_autofree uint8_t *bytes = malloc(PIECE);
	uint64_t count = (heap->range.end - heap->range.start) / PL_PAGE;

	walk->next = heap->first;
	for (uint64_t page = 0, length; bytes && page < count; page += length) {
		uint64_t address = heap->range.start + page * PL_PAGE;

		length = 1;
		/* Within a chunk, or not in memory. */
		if (walk->next >= address + PL_PAGE || !pages[page])
			continue;
		while (length < PIECE_PAGES && page + length < count && pages[page + length])
			length++;
		if (pl_space_read(moment->reader->python->space, address, bytes, length * PL_PAGE) < 0)
			continue;

		const struct heap_piece piece = {
			.bytes = bytes,
			.address = address,
			.length = length * PL_PAGE,
			.end = heap->range.end,
			.other_arena = heap->other_arena,
		};

		heap_walk(&piece, walk);
	}
}

/*
 * Where the chunks of a heap begin: behind its head, or in the first heap of an arena behind that, whose size is 0x890,
 * since glibc 2.27 0x898, and in 2.43, without fast bins, 0x840. To look for them would be no good: in a large free chunk stand the headers of all that
 * it once was.
 */
static uint64_t first_chunk(struct pl_space *space, uint64_t heap, const struct heap_info *info)
{
	static const uint64_t ends[] = {0x840, 0x890, 0x8a0};
	uint64_t head = info->arena % HEAP_ALIGNMENT, size;

	if (info->arena - head != heap)
		return heap + head;
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		if (pl_space_read_u64(space, info->arena + ends[i] + 8, &size) == 0 && (size & 1) && size < info->size)
			return info->arena + ends[i];
	return 0;
}

/* Where memory ends that begins in this mapping: advice to the kernel (numpy's, of huge pages) makes several of one. */
static uint64_t end_of(const struct pl_maps *maps, const struct pl_map *map)
{
	while (map + 1 < maps->items + maps->count && map[1].start == map->end && pl_map_is_anonymous(map + 1) &&
		strcmp(map[1].path, map->path) == 0)
		map++;
	return map->end;
}

/* A heap of another arena that begins at this address, in this mapping? */
static bool other_heap(const struct moment *moment, const struct pl_map *map, uint64_t address, struct heap *ret)
{
	struct pl_space *space = moment->reader->python->space;
	struct heap_info info;

	if (pl_space_read(space, address, &info, sizeof(info)) < 0 ||
		info.size > HEAP_ALIGNMENT || info.size % PL_PAGE || info.size < ARENA_HEADER_MAX ||
		info.size > end_of(moment->maps, map) - address || info.writable < info.size || info.writable > HEAP_ALIGNMENT ||
		info.arena % HEAP_ALIGNMENT < sizeof(info) || info.arena % HEAP_ALIGNMENT > ARENA_HEADER_MAX ||
		info.previous % HEAP_ALIGNMENT)
		return false;
	*ret = (struct heap){
		.range = {address, address + info.size},
		.first = first_chunk(space, address, &info),
		.other_arena = true,
		.arena = info.arena,
	};
	return true;
}

bool heaps_is_libc(const struct pl_map *map)
{
	const char *name = strrchr(map->path, '/');

	return name && (strcmp(name, "/libc.so.6") == 0 || strncmp(name, "/libc-2.", 8) == 0);
}

static bool is_glibc(const struct pl_maps *maps)
{
	for (size_t i = 0; i < maps->count; i++)
		if (heaps_is_libc(&maps->items[i]))
			return true;
	return false;
}

size_t heaps_find(const struct moment *moment, struct heap *heaps, size_t max)
{
	size_t count = 0;
	uint8_t present;

	if (!is_glibc(moment->maps))
		return 0;
	for (size_t i = 0; i < moment->maps->count; i++) {
		const struct pl_map *map = &moment->maps->items[i];
		uint64_t address = (map->start + HEAP_ALIGNMENT - 1) & ~(HEAP_ALIGNMENT - 1);

		if (!pl_map_is_anonymous(map))
			continue;
		if (strcmp(map->path, "[heap]") == 0) {
			if (count && !heaps[count - 1].other_arena && heaps[count - 1].range.end == map->start)
				heaps[count - 1].range.end = map->end;
			else if (count < max)
				heaps[count++] = (struct heap){.range = {map->start, map->end}, .first = map->start};
			continue;
		}
		for (; address < map->end && count < max; address += HEAP_ALIGNMENT) {
			const struct pl_range first = {address, address + PL_PAGE};

			if (pl_space_pages(moment->reader->python->space, first, &present) == 0 && present &&
				other_heap(moment, map, address, &heaps[count]))
				count++;
		}
	}
	return count;
}

int pl_heap_places(const struct pl_heap_reader *reader, const struct pl_maps *maps, struct pl_range **ret, size_t *ret_arenas,
	size_t *ret_count)
{
	const struct moment moment = {reader, maps};
	pl_autofree struct heap *heaps = calloc(HEAPS_MAX, sizeof(*heaps));
	struct pl_range *places = NULL, *grown;
	ssize_t arenas;
	size_t count;

	if (!heaps)
		return -ENOMEM;
	arenas = arenas_places(&moment, &places);
	if (arenas < 0)
		return (int)arenas;
	count = heaps_find(&moment, heaps, HEAPS_MAX);
	grown = reallocarray(places, (size_t)arenas + count + 1, sizeof(*places));
	if (!grown) {
		free(places);
		return -ENOMEM;
	}
	for (size_t i = 0; i < count; i++)
		grown[(size_t)arenas + i] = heaps[i].range;
	*ret = grown;
	*ret_arenas = (size_t)arenas;
	*ret_count = (size_t)arenas + count;
	return 0;
}
