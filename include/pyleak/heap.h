/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HEAP_H
#define PYLEAK_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pyleak/maps.h"
#include "pyleak/python.h"

/*
 * The memory of the allocators in an address space: CPython's arenas (pymalloc's pools), and the heaps of glibc's malloc.
 * Read without touching a page that is not there. What objects lie in them says census.h.
 *
 * The time it takes is bounded: of more than PL_HEAP_ARENAS_MAX arenas a part is looked at, the same each time, and stands
 * for the rest; more than PL_HEAP_BYTES_MAX of glibc's heaps are not counted.
 */
#define PL_HEAP_ARENAS_MAX 2048
#define PL_HEAP_BYTES_MAX (UINT64_C(1024) << 20)
enum { PL_HEAP_CLASSES = 65 }; /* by size in units of 8 bytes: blocks of up to 512 */

struct pl_heap_reader;
/* Finds what can be found once. 0, -ENOMEM, -ESRCH, -EPERM. `python` is borrowed. */
int pl_heap_open(const struct pl_python *python, struct pl_heap_reader **ret);
void pl_heap_close(struct pl_heap_reader *reader); /* NULL is allowed */

/* Bytes that are there. Free: the allocator holds it, and no block uses it. */
struct pl_arena_figures {
	int64_t used, free;
	int64_t overhead;   /* of the used part: what goes to headers of pools, and to their ends */
	uint32_t alignment; /* what pymalloc rounds to: 8 or 16 */
	uint64_t class_free[PL_HEAP_CLASSES]; /* free bytes in pools that also hold live blocks */
};
/* `maps` as they are now. False: there are none that can be found. */
bool pl_heap_count_arenas(const struct pl_heap_reader *reader, const struct pl_maps *maps, struct pl_arena_figures *ret);

/* pymalloc's map of its arenas. Its root is 0: it was not found, or does not have all of the arenas, or is of another shape. */
struct pl_arena_map pl_heap_arena_map(const struct pl_heap_reader *reader, const struct pl_maps *maps);

struct pl_chunk_figures {
	int64_t used, free;
};
bool pl_heap_count_chunks(const struct pl_heap_reader *reader, const struct pl_maps *maps, struct pl_chunk_figures *ret);

/* Where the arenas are, *ret_arenas of them, and behind them glibc's heaps: all, in no order. *ret is the caller's to free.
 * 0; -ENOENT: the arenas cannot be found; -ENOMEM. */
int pl_heap_places(const struct pl_heap_reader *reader, const struct pl_maps *maps, struct pl_range **ret, size_t *ret_arenas,
		   size_t *ret_count);

#endif
