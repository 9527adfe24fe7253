/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../src/heap/heap_private.h"
#include "pyleak/heap.h"
#include "pyleak/maps.h"
#include "pyleak/python.h"
#include "spaces.h"

/* -- glibc's chunks -------------------------------------------------------------------------------- */

enum { START = 0x10000, LENGTH = 4096, FREE = 1 << 20 };

static uint8_t bytes[LENGTH];
static struct heap_walk walk;
static uint64_t free_bytes, free_chunks;

static void count_free(void *context, uint64_t start, uint64_t end)
{
	(void)context;
	cr_assert(start < end);
	free_bytes += end - start;
	free_chunks++;
}

static void put(uint64_t at, uint64_t word)
{
	memcpy(bytes + at, &word, sizeof(word));
}

/* Chunks of these sizes from `at` on, FREE added to those that are free; where they end. */
static uint64_t lay(uint64_t at, const uint32_t *sizes, size_t count)
{
	uint64_t previous = 0, in_use = 1;

	for (size_t i = 0; i < count; i++) {
		uint64_t size = sizes[i] & ~(FREE | 7);

		put(at, in_use ? 0x4141414141414141 : previous);
		put(at + 8, size | in_use | (sizes[i] & 7));
		in_use = !(sizes[i] & FREE);
		previous = size;
		at += size;
	}
	return at;
}

/* The end of the heap is the top chunk. */
static void lay_top(uint64_t at, bool after_free, uint64_t previous)
{
	put(at, previous);
	put(at + 8, (LENGTH - at) | !after_free);
}

static void set_up(void)
{
	memset(bytes, 0x5a, sizeof(bytes));
	walk = (struct heap_walk){.free = count_free, .next = START};
	free_bytes = free_chunks = 0;
}

TestSuite(heap, .init = set_up);

static void walk_piece(uint64_t from, uint64_t length)
{
	const struct heap_piece piece = {
		.bytes = bytes + from, .address = START + from, .length = length, .end = START + LENGTH};

	heap_walk(&piece, &walk);
}

Test(heap, chunks)
{
	static const uint32_t sizes[] = {32, 64, 48 | FREE, 1024, 32, 512 | FREE, 64};

	lay_top(lay(0, sizes, 7), false, 0);
	walk_piece(0, LENGTH);
	cr_assert_eq(walk.used, 32 + 64 + 1024 + 32 + 64);
	cr_assert_eq(free_bytes, LENGTH - walk.used);
	cr_assert_eq(free_chunks, 3);
	cr_assert_eq(walk.lost, 0);
}

/* The same, whatever pieces it is read in. */
Test(heap, in_pieces)
{
	static const uint32_t sizes[] = {32, 64, 48 | FREE, 1024, 32, 512 | FREE, 64};

	lay_top(lay(0, sizes, 7), false, 0);
	for (uint64_t piece = 16; piece <= LENGTH; piece *= 2) {
		walk = (struct heap_walk){.free = count_free, .next = START};
		free_bytes = 0;
		for (uint64_t from = 0; from < LENGTH; from += piece)
			if (walk.next < START + from + piece)
				walk_piece(from, piece);
		cr_assert_eq(walk.used, 32 + 64 + 1024 + 32 + 64, "pieces of %llu", (unsigned long long)piece);
		cr_assert_eq(free_bytes, LENGTH - walk.used);
		cr_assert_eq(walk.lost, 0);
	}
}

Test(heap, found_in_the_midst)
{
	static const uint32_t sizes[] = {64, 64, 64, 64 | FREE, 64, 64, 64, 64, 64};

	lay_top(lay(256, sizes, 9), false, 0);
	walk.next = 0;
	walk_piece(0, LENGTH);
	cr_assert_eq(walk.lost, 256);
	cr_assert_eq(walk.used, 8 * 64);
}

/* A header that was being written is passed over. */
Test(heap, torn)
{
	uint32_t sizes[30];

	for (size_t i = 0; i < 30; i++)
		sizes[i] = 64;
	lay_top(lay(0, sizes, 30), false, 0);
	put(10 * 64 + 8, 0x1234567);
	walk_piece(0, LENGTH);
	cr_assert_eq(walk.lost, 64);
	/* Of the chunk before nobody says whether it is free: it counts as used. */
	cr_assert_eq(walk.used, 29 * 64);
	cr_assert_eq(free_bytes, LENGTH - 30 * 64);
}

/* A chunk that is free says its size twice. */
Test(heap, free_chunk_is_checked)
{
	static const uint32_t sizes[] = {64, 64 | FREE, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64};

	lay_top(lay(0, sizes, 12), false, 0);
	put(128, 96);
	walk_piece(0, LENGTH);
	cr_assert_eq(free_chunks, 1, "only the top");
}

/* In the arenas of threads chunks in use say so; free ones, and the top, do not. */
Test(heap, other_arena)
{
	static const uint32_t sizes[] = {64 | 4, 64 | 4, 64, 64 | 4, 64 | 4, 64 | 4, 64 | 4, 64 | 4, 64 | 4, 64 | 4};
	struct heap_piece piece = {.bytes = bytes, .address = START, .length = LENGTH, .end = START + LENGTH};

	lay_top(lay(512, sizes, 10), false, 0);
	walk.next = 0;
	heap_walk(&piece, &walk);
	cr_assert_gt(walk.lost, 512, "not in the main one");
	walk = (struct heap_walk){.free = count_free};
	free_bytes = 0;
	piece.other_arena = true;
	heap_walk(&piece, &walk);
	cr_assert_eq(walk.lost, 512);
	cr_assert_eq(walk.used, 10 * 64);
	cr_assert_eq(free_bytes, LENGTH - 512 - 640);
}

/* What another allocator, or nobody, has written there. */
Test(heap, noise)
{
	srand(1);
	for (int round = 0; round < 2000; round++) {
		for (size_t i = 0; i < LENGTH; i += 8)
			put(i, rand() % 4 ? (uint64_t)rand() % 200 : (uint64_t)rand() << 33 | (uint64_t)rand());
		walk = (struct heap_walk){.free = count_free, .next = round % 2 ? START : 0};
		free_bytes = 0;
		walk_piece(0, LENGTH);
		cr_assert_leq(walk.used + walk.lost + free_bytes, LENGTH + 16);
	}
}

/* -- arenas ---------------------------------------------------------------------------------------- */

Test(arenas, entries)
{
	const uint64_t array = 0x7f0000001000;
	struct arena arena = {.address = 0x7f1200000000, .pool_address = 0x7f1200008000, .free_pools = 62, .total_pools = 64};

	cr_assert_eq(arena_check(&arena, array, NULL), ARENA_ALLOCATED);
	arena.free_pools = 65;
	cr_assert_eq(arena_check(&arena, array, NULL), ARENA_WRONG);
	arena.free_pools = 3;
	arena.total_pools = 65;
	cr_assert_eq(arena_check(&arena, array, NULL), ARENA_WRONG);
	arena.total_pools = 63;
	cr_assert_eq(arena_check(&arena, array, NULL), ARENA_ALLOCATED);
	arena.pool_address = arena.address - 1;
	cr_assert_eq(arena_check(&arena, array, NULL), ARENA_WRONG);
	arena = (struct arena){.next = array + 5 * sizeof(arena)};
	cr_assert_eq(arena_check(&arena, array, NULL), ARENA_UNUSED);
	arena.next++;
	cr_assert_eq(arena_check(&arena, array, NULL), ARENA_WRONG);
	arena.next = array - sizeof(arena);
	cr_assert_eq(arena_check(&arena, array, NULL), ARENA_WRONG);
}

/* -- pymalloc's map of its arenas ------------------------------------------------------------------- */

enum { NODE_BITS = 15, LEAF_BITS = 14, DECOYS = 3000, ARENAS = 3, ENTRIES = 1024 };

/* The interpreter's writable data: words of its types, whose objects lead on, and behind them the map. */
static uint64_t words[DECOYS + 1] = {1};

static void *map_zeros(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert(memory != MAP_FAILED);
	return memory;
}

/* However many words lead to something that could be a leaf. */
Test(heap, arena_map_behind_much_that_is_none)
{
	struct pl_maps maps = {0};
	const struct pl_python python = {.space = space_of(getpid()), .object_start = (uintptr_t)words, .minor = 13};
	struct pl_heap_reader reader = {.python = &python, .arena_word_count = 1};
	uint64_t *node = map_zeros(sizeof(*node) << NODE_BITS), *other_node = map_zeros(sizeof(*node) << NODE_BITS);
	int32_t *leaf = map_zeros(8 << LEAF_BITS), *other_leaf = map_zeros(8 << LEAF_BITS);
	struct arena *arenas = map_zeros(ENTRIES * sizeof(*arenas));
	uint64_t array = (uintptr_t)arenas, first = 0x7f1200000000; /* a leaf has 16 GiB */

	for (int i = 0; i < ARENAS; i++) {
		uint64_t address = first + 0x345000 + (uint64_t)i * 0x500000, at = address >> 20 & ((1U << LEAF_BITS) - 1);

		arenas[i] = (struct arena){.address = address, .pool_address = address + 0x8000, .free_pools = 60, .total_pools = 63};
		leaf[2 * at] = leaf[2 * (at + 1) + 1] = 0x45000;
	}
	node[first >> 34 & ((1U << NODE_BITS) - 1)] = (uintptr_t)leaf;
	other_node[first >> 34 & ((1U << NODE_BITS) - 1)] = (uintptr_t)other_leaf;
	for (int i = 0; i < DECOYS; i++)
		words[i] = (uintptr_t)other_node;
	words[DECOYS] = (uintptr_t)node;
	reader.arena_words[0] = (uintptr_t)&array;
	cr_assert_eq(pl_maps_read(getpid(), &maps), 0);
	cr_assert_eq(pl_heap_arena_map(&reader, &maps).root, (uintptr_t)&words[DECOYS]);
	/* One word of the leaf that is not as it follows from the arenas. */
	leaf[0] = 1;
	cr_assert_eq(pl_heap_arena_map(&reader, &maps).root, 0);
	pl_maps_free(&maps);
}
