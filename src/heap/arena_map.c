/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "heap_private.h"
#include "pyleak/cleanup.h"
#include "pyleak/page.h"
#include "pyleak/units.h"

/*
 * struct pl_arena_map is static, and without a symbol after strip; in 3.12 a part of the main interpreter's state, from
 * 3.13 on of what lies beside it. So it is found by what it must say of the arenas that there are, in the interpreter's own
 * writable data: the way through it to an arena ends in words that follow from the arena's address.
 *
 * The recorder follows it in the process, so nothing is taken on trust: all of each leaf that has an arena must be, to the
 * last word, what pymalloc would write for the arenas that there are. (That each arena was in it was no proof: of maps of
 * the other shape, what lay there did as well.)
 */

enum {
	ARENA_BITS = 20,
	LEAF_PAGES = 34, /* a leaf of 2^14 words, which need not begin with a page */
	CHECKED_MAX = 64, /* leaves */
	WAYS_MAX = 1 << 16, /* tried, of all words */
	LOOKS_MAX = 1024, /* at whole leaves: those whose word of the first arena is right, mere chance seldom makes */
	TRIES = 16,
};
#define ARENA_BYTES (UINT64_C(1) << ARENA_BITS)
#define TRY_PAUSE_NSEC 1000000

struct search {
	const struct moment *moment;
	struct arena *arenas;
	size_t count;
	struct pl_arena_map found;
	size_t ways, looks;
};

/* Of a MiB: an arena from this byte on (-1: all of it; 0: none), and one that ends before this byte. */
struct part {
	int32_t high, low;
};

/* IGNORE_BITS 16 and 0: of addresses of 48 bits (3.10), and of all. */
static const struct pl_arena_map shapes[] = {{.node_bits = 10, .leaf_bits = 8}, {.node_bits = 15, .leaf_bits = 14}};

static bool points_to_memory(const struct pl_maps *maps, uint64_t word)
{
	const struct pl_map *map = word % 8 ? NULL : pl_maps_find(maps, word);

	return map && map->flags & PL_MAP_READ && pl_map_is_anonymous(map);
}

/* The node or leaf that a word of the map leads to; 0: none. */
static uint64_t follow(struct pl_space *space, uint64_t node, uint64_t index)
{
	uint64_t next;

	return node && pl_space_read_u64(space, node + 8 * index, &next) == 0 ? next : 0;
}

static uint64_t leaf_of(struct pl_space *space, const struct pl_arena_map *map, uint64_t address)
{
	const uint64_t node = address >> ARENA_BITS >> map->leaf_bits;

	return follow(space, follow(space, map->root, node >> map->node_bits), node & ((1U << map->node_bits) - 1));
}

/* arena_map_mark_used(): which part of its MiB an arena has, and which of the next. */
static void mark(struct part *parts, uint64_t first, size_t count, uint64_t address)
{
	const int32_t tail = (int32_t)(address % ARENA_BYTES);
	const uint64_t at = (address >> ARENA_BITS) - first;

	if (at < count)
		parts[at].high = tail ? tail : -1;
	if (tail && at + 1 < count)
		parts[at + 1].low = tail;
}

/* What a leaf says, where it is in memory. */
static bool read_leaf(struct pl_space *space, uint64_t leaf, struct part *parts, size_t count)
{
	const struct pl_range range = {leaf & ~(uint64_t)(PL_PAGE - 1), pl_page_end(leaf + count * sizeof(*parts))};
	const uint64_t end = leaf + count * sizeof(*parts);
	uint8_t pages[LEAF_PAGES] = {0};

	if (leaf % 8 || range.end - range.start > LEAF_PAGES * PL_PAGE || pl_space_pages(space, range, pages) < 0)
		return false;
	for (uint64_t at = leaf, next; at < end; at = next) {
		next = (at & ~(uint64_t)(PL_PAGE - 1)) + PL_PAGE;
		next = next < end ? next : end;
		if (pages[(at - range.start) / PL_PAGE] && pl_space_read(space, at, (uint8_t *)parts + (at - leaf), next - at) < 0)
			return false;
	}
	return true;
}

/* The one word of a leaf that an arena's address alone decides: enough to reject nearly all that is no map, and there is
 * much: the words of static types lead to dicts, tuples and code, and those on. (Whole leaves were counted before: on a
 * kernel whose mappings lie so that a thousand of them led to memory, the map of 3.13.0 was not found.) */
static bool leaf_has(struct search *search, uint64_t leaf, const struct pl_arena_map *map, uint64_t address)
{
	const uint64_t index = address >> ARENA_BITS & (((uint64_t)1 << map->leaf_bits) - 1);
	struct part said, expected = {0};

	mark(&expected, address >> ARENA_BITS, 1, address);
	return leaf % 8 == 0 &&
	       pl_space_read(search->moment->reader->python->space, leaf + index * sizeof(said), &said, sizeof(said)) == 0 &&
	       said.high == expected.high;
}

/* All of the leaf of arena `of` is as it follows from the arenas that there are. */
static bool is_leaf(struct search *search, const struct pl_arena_map *map, uint64_t leaf, size_t of)
{
	struct pl_space *space = search->moment->reader->python->space;
	const size_t count = (size_t)1 << map->leaf_bits;
	const uint64_t first = search->arenas[of].address >> ARENA_BITS & ~(uint64_t)(count - 1);
	pl_autofree struct part *said = NULL, *expected = NULL;

	if (!leaf || !points_to_memory(search->moment->maps, leaf) ||
		!leaf_has(search, leaf, map, search->arenas[of].address) || search->looks++ >= LOOKS_MAX)
		return false;
	said = calloc(count, sizeof(*said));
	expected = calloc(count, sizeof(*expected));
	if (!said || !expected)
		return false;
	for (size_t i = 0; i < search->count; i++)
		mark(expected, first, count, search->arenas[i].address);
	return read_leaf(space, leaf, said, count) && memcmp(said, expected, count * sizeof(*said)) == 0;
}

/* `leaf`: that of the first arena. */
static bool is_map(struct search *search, const struct pl_arena_map *map, uint64_t leaf)
{
	struct pl_space *space = search->moment->reader->python->space;
	uint64_t before = UINT64_MAX;
	size_t checked = 0;

	for (size_t i = 0; i < search->count && checked < CHECKED_MAX; i++) {
		const uint64_t number = search->arenas[i].address >> ARENA_BITS >> map->leaf_bits;

		if (number == before)
			continue;
		if (!is_leaf(search, map, i ? leaf_of(space, map, search->arenas[i].address) : leaf, i))
			return false;
		before = number;
		checked++;
	}
	return checked > 0;
}

/* A word through which the way to the first arena may lead, and what it would lead to next. */
struct way {
	struct pl_arena_map map;
	uint64_t leaf;
};

static void try_ways(struct search *search, struct way *ways, const struct pl_memory_piece *leaves, size_t count)
{
	struct pl_space *space = search->moment->reader->python->space;

	/* Where one of them is not mapped, each by itself. */
	if (count && pl_space_read_pieces(space, leaves, count) < 0)
		for (size_t i = 0; i < count; i++)
			if (pl_space_read(space, leaves[i].address, leaves[i].buffer, leaves[i].length) < 0)
				ways[i].leaf = 0;
	for (size_t i = 0; i < count && !search->found.root; i++)
		if (is_map(search, &ways[i].map, ways[i].leaf))
			search->found = ways[i].map;
}

/* Of nearly all words the second step shows already that they are none, and each read is a system call: many at once. */
static void look_at_page(void *context, uint64_t page, const uint64_t *words)
{
	enum { SHAPES = sizeof(shapes) / sizeof(shapes[0]), WAYS = 64 * SHAPES };
	struct search *search = context;
	const uint64_t number = search->arenas[0].address >> ARENA_BITS;
	struct pl_memory_piece leaves[WAYS];
	struct way ways[WAYS];
	size_t count = 0;

	for (size_t i = 0; i < PL_PAGE / sizeof(*words); i++) {
		if (!words[i] || search->found.root || !points_to_memory(search->moment->maps, words[i]) ||
			search->ways++ >= WAYS_MAX)
			continue;
		for (size_t shape = 0; shape < SHAPES; shape++) {
			struct pl_arena_map map = shapes[shape];
			const uint64_t node = number >> map.leaf_bits;
			const uint64_t leaf = words[i] + 8 * (node & ((1U << map.node_bits) - 1));

			if (!points_to_memory(search->moment->maps, leaf))
				continue;
			map.root = page + 8 * i - 8 * (node >> map.node_bits);
			ways[count] = (struct way){.map = map};
			leaves[count] = (struct pl_memory_piece){leaf, &ways[count].leaf, sizeof(ways[count].leaf)};
			count++;
		}
		if (count > WAYS - SHAPES) {
			try_ways(search, ways, leaves, count);
			count = 0;
		}
	}
	try_ways(search, ways, leaves, count);
}

struct pl_arena_map pl_heap_arena_map(const struct pl_heap_reader *reader, const struct pl_maps *maps)
{
	const struct moment moment = {reader, maps};
	struct search search = {.moment = &moment};

	/* Arenas come and go while it is looked at: each time those that are there now. */
	for (int tries = 0; reader->arena_word_count && reader->python->minor >= 10 && !search.found.root && tries < TRIES; tries++) {
		ssize_t count = arenas_read(&moment, &search.arenas);

		if (count > 0 && !(search.arenas[0].address >> 48)) {
			search.count = (size_t)count;
			data_visit(reader, maps, look_at_page, &search);
		}
		free(PL_TAKE(search.arenas));
		if (!search.found.root)
			pl_sleep_ns(TRY_PAUSE_NSEC);
	}
	return search.found;
}
