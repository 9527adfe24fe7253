/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "account_private.h"
#include "pyleak/cleanup.h"
#include "pyleak/resident.h"

enum {
	MAPS_MAX = 16384, /* of more, no names: 4 µs each */
	RUNS = 128,
	CHUNK_MAPPED = 2, /* malloc/malloc.c: IS_MMAPPED; the three lowest bits of a size are flags */
	CHUNK_FLAGS = 7,
};

struct taking {
	const struct pl_account_reader *reader;
	struct pl_space *space;
	int pagemap;
	const struct pl_range *owned; /* in order: arenas, heaps, stacks */
	size_t owned_count;
	struct pl_places *places;
	size_t capacity;
	int code;
};

/* Bytes of a range that are in memory. `own`: no file's, and those that were swapped out. */
static int64_t in_memory(const struct taking *taking, struct pl_range range, bool own)
{
	struct pl_range runs[RUNS];
	uint64_t end, sum = 0;
	size_t count;

	for (; range.start < range.end; range.start = end) {
		if (pl_resident_runs(taking->pagemap, range, own, runs, RUNS, &count, &end) < 0 || end <= range.start)
			break;
		for (size_t i = 0; i < count; i++)
			sum += runs[i].end - runs[i].start;
	}
	return (int64_t)sum;
}

static void add(struct taking *taking, enum pl_place_kind kind, const char *name, struct pl_range range, int64_t size)
{
	struct pl_places *places = taking->places;
	char *copy = size > 0 && !taking->code ? strdup(name) : NULL;

	if (!copy) {
		taking->code = size > 0 && !taking->code ? -ENOMEM : taking->code;
		return;
	}
	if (places->count == taking->capacity) {
		size_t capacity = taking->capacity ? 2 * taking->capacity : 256;
		struct pl_place *grown = reallocarray(places->items, capacity, sizeof(*grown));

		if (!grown) {
			free(copy);
			taking->code = -ENOMEM;
			return;
		}
		places->items = grown;
		taking->capacity = capacity;
	}
	places->items[places->count++] = (struct pl_place){kind, copy, size, range.start, range.end};
}

/* A block of glibc's malloc with a mapping of its own: its size, which is the mapping's, stands in front of it; from 2.43
 * on without the head. */
static bool is_large_block(const struct taking *taking, const struct pl_map *map, uint64_t at)
{
	uint64_t head[2], size;

	if (pl_space_read(taking->space, at, head, sizeof(head)) < 0 || !(head[1] & CHUNK_MAPPED))
		return false;
	size = head[1] & ~(uint64_t)CHUNK_FLAGS;
	return size && ((head[0] + size) % PL_PAGE == 0 || (size + sizeof(head)) % PL_PAGE == 0) && size <= map->end - at;
}

static void take_own(struct taking *taking, const struct pl_map *map, struct pl_range range, const char *object)
{
	int64_t size = in_memory(taking, range, false);
	bool large = size && !object && !map->path[0] && is_large_block(taking, map, range.start);

	add(taking, object ? PL_PLACE_DATA : large ? PL_PLACE_LARGE : PL_PLACE_OWN, object ? object : map->path, range, size);
}

/* What of an anonymous mapping has no owner yet. */
static void take_anonymous(struct taking *taking, const struct pl_map *map, const char *object)
{
	uint64_t at = map->start;

	for (size_t i = 0; i < taking->owned_count && at < map->end; i++) {
		const struct pl_range *owned = &taking->owned[i];

		if (owned->end <= at || owned->start >= map->end)
			continue;
		if (owned->start > at)
			take_own(taking, map, (struct pl_range){at, owned->start}, object);
		at = owned->end;
	}
	if (at < map->end)
		take_own(taking, map, (struct pl_range){at, map->end}, object);
}

static bool is_memory(const char *path)
{
	static const char *const starts[] = {"/dev/shm/", "/memfd:", "/SYSV", "/dev/zero", "/run/shm/", "[anon_shmem:"};

	for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++)
		if (strncmp(path, starts[i], strlen(starts[i])) == 0)
			return true;
	return false;
}

static void take(struct taking *taking, const struct pl_map *map, const struct pl_map *previous, const char *object)
{
	struct pl_range range = {map->start, map->end};
	bool bss = previous && previous->end == map->start && object && (map->flags & PL_MAP_WRITE);
	int64_t own, all;

	if (!map->inode) {
		/* [vvar], [vdso] and such are the kernel's; a stack is a stack. */
		if (map->path[0] == '[' && strncmp(map->path, "[anon", 5) != 0)
			return;
		if (map->flags & (PL_MAP_WRITE | PL_MAP_READ))
			take_anonymous(taking, map, bss && !map->path[0] ? object : NULL);
		return;
	}
	all = in_memory(taking, range, false);
	own = map->flags & PL_MAP_SHARED ? 0 : in_memory(taking, range, true);
	add(taking, is_memory(map->path) ? PL_PLACE_SHARED : PL_PLACE_FILE, map->path, range, all - own);
	add(taking, PL_PLACE_DATA, map->path, range, own);
}

int pl_account_name(const struct pl_account_reader *reader, struct pl_places *ret)
{
	pl_autofree struct pl_range *owned = NULL;
	struct taking taking = {.reader = reader, .places = ret, .pagemap = -1};
	struct pl_maps maps = {0};
	const char *object = NULL;
	int code = pl_account_places(reader, &owned, &taking.owned_count);

	*ret = (struct pl_places){.heap_tracked = -1};
	if (code < 0)
		return code;
	taking.owned = owned;
	taking.space = account_space(reader);
	code = pl_space_maps(taking.space, &maps);
	if (code == 0 && maps.count > MAPS_MAX)
		code = -E2BIG;
	if (code == 0)
		taking.pagemap = pl_resident_open(taking.space->pid);
	if (code == 0 && taking.pagemap < 0)
		code = taking.pagemap;
	for (size_t i = 0; code == 0 && i < maps.count; i++) {
		const struct pl_map *map = &maps.items[i], *previous = i ? &maps.items[i - 1] : NULL;

		/* What follows on an object's data is its .bss. */
		if (map->inode)
			object = map->path;
		else if (!previous || !previous->inode)
			object = NULL;
		take(&taking, map, previous, object);
		code = taking.code;
	}
	if (taking.pagemap >= 0)
		(void)close(taking.pagemap);
	pl_maps_free(&maps);
	if (code < 0)
		pl_places_free(ret);
	return code;
}
