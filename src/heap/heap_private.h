/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HEAP_PRIVATE_H
#define PYLEAK_HEAP_PRIVATE_H

#include "pyleak/heap.h"

struct pl_heap_reader {
	const struct pl_python *python;
	/* Words of the interpreter that point into pymalloc's array of arenas. The lowest value is where it begins:
	 * it moves when it grows. */
	uint64_t arena_words[32];
	size_t arena_word_count;
};

/* What is looked at, and the maps as they are at that moment. */
struct moment {
	const struct pl_heap_reader *reader;
	const struct pl_maps *maps;
};

/* struct arena_object of Objects/obmalloc.c, the same from 3.6 to 3.15. */
struct arena {
	uint64_t address; /* 0: not allocated */
	uint64_t pool_address;
	uint32_t free_pools, total_pools;
	uint64_t free_list, next, previous;
};
enum { ARENA_POOLS = 64 };
/* Whether an entry of the array that begins at `array` can be one, and is allocated. */
enum arena_state { ARENA_WRONG, ARENA_UNUSED, ARENA_ALLOCATED };
enum arena_state arena_check(const struct arena *arena, uint64_t array, const struct pl_maps *maps);

/* Those that are allocated: how many. -ENOENT, -ENOMEM. *ret is the caller's. */
ssize_t arenas_read(const struct moment *moment, struct arena **ret);

/* Where the arenas are that are allocated: how many. -ENOENT, -ENOMEM. */
ssize_t arenas_places(const struct moment *moment, struct pl_range **ret);

/* Each page of the interpreter's own writable data that is in memory. */
void data_visit(const struct pl_heap_reader *reader, const struct pl_maps *maps,
	void (*see)(void *context, uint64_t page, const uint64_t *words), void *context);

/* Fills the reader's arena_words. */
void arenas_find(struct pl_heap_reader *reader, const struct pl_maps *maps);
/*
 * glibc's chunks in a piece of heap that was copied: `bytes` of it from `address` on. The pure part.
 *
 * From a known chunk on, or from the first place that can be one: several chunks in a row have to fit. What is read
 * while the process runs can be torn: the walk then looks for the next such place.
 */
struct heap_piece {
	const uint8_t *bytes;
	uint64_t address, length;
	uint64_t end;       /* of the heap that the piece is from: no chunk goes beyond */
	bool other_arena;   /* not the main one: its chunks may say so (those in use do) */
};
struct heap_walk {
	uint64_t next; /* where the next chunk begins: beyond the piece if it is known, 0 if not */
	uint64_t used, lost; /* bytes of chunks in use; bytes that no chunk was found for */
	void *context;
	/* Called for each free chunk, and for each that is in use; NULL: not called. */
	void (*free)(void *context, uint64_t start, uint64_t end);
	void (*use)(void *context, uint64_t start, uint64_t end);
	/* The last chunk: whether it is free stands in the next one. */
	uint64_t pending, pending_end;
};
void heap_walk(const struct heap_piece *piece, struct heap_walk *walk);

/* The memory that such chunks are in: one piece of the main arena, and those of the other ones. */
struct heap {
	struct pl_range range;
	uint64_t first; /* chunk; 0: not known */
	bool other_arena;
	uint64_t arena; /* its address; 0: the main one */
	uint8_t *pages; /* of its range, which are in memory; NULL: that was not asked */
};
enum { HEAPS_MAX = 1024 };
/* Whether this is a mapping of glibc's. */
bool heaps_is_libc(const struct pl_map *map);
/* How many, in order; 0 also where the C library is another. */
size_t heaps_find(const struct moment *moment, struct heap *heaps, size_t max);
/* Walks over what is in memory of it; `pages`: one byte for each page of its range, whether it is. */
void heaps_walk(const struct moment *moment, const struct heap *heap, const uint8_t *pages, struct heap_walk *walk);

/* The chunks of all these heaps that are free, the tops too, as malloc has them in its lists; which pages are in memory
 * must be known. False: they cannot be read just now, or are so many that a walk is as good. *ret is the caller's. */
struct free_chunk {
	size_t heap;
	uint64_t start, end;
};
bool bins_read(const struct moment *moment, const struct heap *heaps, size_t count, struct free_chunk **ret,
	size_t *ret_count);

#endif
