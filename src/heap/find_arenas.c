/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "heap_private.h"
#include "pyleak/cleanup.h"

/*
 * pymalloc's array of arenas, by what it looks like. Its variable `arenas` is static: strip removes the name, and in
 * which order the compiler lays static variables out is its own affair. But from 3.6 to 3.15 it is a word of the
 * interpreter's own writable data (in 3.12 of the state of the main interpreter, from 3.13 on of the state beside it,
 * both static), and an entry of the array holds so many things that must agree that nothing else looks like it.
 */

enum {
	DATA_MAX = 16 << 20,    /* of writable data looked through */
	PIECE = 64 * PL_PAGE,
	FIRST_ENTRIES = 16,     /* INITIAL_ARENA_OBJECTS: there are at least so many */
	ARENA_BYTES_MAX = 1 << 20,
	CANDIDATES = 64,
};

enum arena_state arena_check(const struct arena *arena, uint64_t array, const struct pl_maps *maps)
{
	if (!arena->address) {
		/* Those that are not in use are chained through `next`; the rest of them is stale. */
		uint64_t distance = arena->next - array;

		return !arena->next || (arena->next >= array && distance % sizeof(*arena) == 0 && distance < UINT64_C(1) << 32) ?
			       ARENA_UNUSED :
			       ARENA_WRONG;
	}
	/* An arena that is not aligned has one pool less. */
	if (arena->address % PL_PAGE || arena->total_pools > ARENA_POOLS || arena->total_pools + 1 < ARENA_POOLS ||
		arena->free_pools > arena->total_pools || arena->pool_address < arena->address ||
		arena->pool_address - arena->address > ARENA_BYTES_MAX)
		return ARENA_WRONG;
	if (!maps)
		return ARENA_ALLOCATED;

	const struct pl_map *map = pl_maps_find(maps, arena->address);

	return map && pl_map_is_anonymous(map) ? ARENA_ALLOCATED : ARENA_WRONG;
}

static bool is_array(const struct pl_heap_reader *reader, const struct pl_maps *maps, uint64_t address)
{
	struct arena entries[FIRST_ENTRIES];
	size_t allocated = 0, mapped = 0;

	if (pl_space_read(reader->python->space, address, entries, sizeof(entries)) < 0)
		return false;
	for (size_t i = 0; i < FIRST_ENTRIES; i++) {
		enum arena_state state = arena_check(&entries[i], address, NULL);

		if (state == ARENA_WRONG)
			return false;
		allocated += state == ARENA_ALLOCATED;
		mapped += state == ARENA_ALLOCATED && arena_check(&entries[i], address, maps) == ARENA_ALLOCATED;
	}
	/* Some may have come or gone since the maps were read. */
	return mapped && mapped * 2 >= allocated;
}

static bool may_point(const struct pl_maps *maps, uint64_t word)
{
	const struct pl_map *map = word && word % 16 == 0 ? pl_maps_find(maps, word) : NULL; /* malloc() gave it out */

	return map && pl_map_is_anonymous(map);
}

/* Words of a page, where they point to, and the first entry there: most are none, and it is cheap to read many at once. */
struct candidates {
	uint64_t at[CANDIDATES], array[CANDIDATES];
	struct arena entries[CANDIDATES];
	size_t count;
};

struct search {
	struct pl_heap_reader *reader;
	const struct pl_maps *maps;
	struct candidates candidates;
};

static void look_at_candidates(struct search *search)
{
	struct pl_heap_reader *reader = search->reader;
	struct candidates *candidates = &search->candidates;
	struct pl_memory_piece pieces[CANDIDATES];
	bool read;

	for (size_t i = 0; i < candidates->count; i++)
		pieces[i] = (struct pl_memory_piece){candidates->array[i], &candidates->entries[i], sizeof(candidates->entries[i])};
	/* One that is not there hides the others. */
	read = pl_space_read_pieces(reader->python->space, pieces, candidates->count) == 0;
	for (size_t i = 0; i < candidates->count; i++) {
		if (reader->arena_word_count == sizeof(reader->arena_words) / sizeof(reader->arena_words[0]))
			break;
		if (read && arena_check(&candidates->entries[i], candidates->array[i], NULL) == ARENA_WRONG)
			continue;
		if (is_array(reader, search->maps, candidates->array[i]))
			reader->arena_words[reader->arena_word_count++] = candidates->at[i];
	}
	candidates->count = 0;
}

static void look_at_page(void *context, uint64_t page, const uint64_t *words)
{
	struct search *search = context;
	struct candidates *candidates = &search->candidates;

	for (size_t i = 0; i < PL_PAGE / sizeof(*words); i++) {
		if (!may_point(search->maps, words[i]))
			continue;
		candidates->at[candidates->count] = page + i * sizeof(*words);
		candidates->array[candidates->count++] = words[i];
		if (candidates->count == CANDIDATES)
			look_at_candidates(search);
	}
}

static void visit_range(const struct pl_heap_reader *reader, struct pl_range range,
	void (*see)(void *context, uint64_t page, const uint64_t *words), void *context)
{
	enum { PAGES = PIECE / PL_PAGE };
	pl_autofree uint64_t *words = malloc(PIECE);
	uint8_t pages[PAGES];

	for (uint64_t at = range.start; words && at < range.end; at += PIECE) {
		const uint64_t length = range.end - at < PIECE ? range.end - at : PIECE, count = length / PL_PAGE;

		if (pl_space_pages(reader->python->space, (struct pl_range){at, at + length}, pages) < 0)
			return;
		for (uint64_t page = 0, next; page < count; page = next) {
			for (next = page + 1; next < count && !pages[next] == !pages[page]; next++)
				continue;
			if (!pages[page] || pl_space_read(reader->python->space, at + page * PL_PAGE, words, (next - page) * PL_PAGE) < 0)
				continue;
			for (uint64_t i = 0; i < next - page; i++)
				see(context, at + (page + i) * PL_PAGE, words + i * (PL_PAGE / sizeof(*words)));
		}
	}
}

void data_visit(const struct pl_heap_reader *reader, const struct pl_maps *maps,
	void (*see)(void *context, uint64_t page, const uint64_t *words), void *context)
{
	const struct pl_map *object = pl_maps_find(maps, reader->python->object_start);
	uint64_t looked = 0;
	bool ours = false;

	for (size_t i = 0; object && !reader->python->free_threaded && i < maps->count; i++) {
		const struct pl_map *map = &maps->items[i];
		bool follows = ours && map->start == maps->items[i - 1].end && pl_map_is_anonymous(map) && !map->path[0];

		/* .data, and .bss behind it, which has no file. */
		ours = pl_map_same_file(map, object) || follows;
		if (!ours || !(map->flags & PL_MAP_WRITE) || looked + (map->end - map->start) > DATA_MAX)
			continue;
		looked += map->end - map->start;
		visit_range(reader, (struct pl_range){map->start, map->end}, see, context);
	}
}

void arenas_find(struct pl_heap_reader *reader, const struct pl_maps *maps)
{
	struct search search = {.reader = reader, .maps = maps};

	data_visit(reader, maps, look_at_page, &search);
	look_at_candidates(&search);
}
