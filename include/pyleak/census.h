/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CENSUS_H
#define PYLEAK_CENSUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pyleak/error.h"
#include "pyleak/python.h"

/*
 * The objects that are alive in a process, by type, whenever they were allocated: every block in use of pymalloc's
 * arenas and of glibc's heap is looked at. An object is known by its header: it names its type, which must be one in
 * every respect. Read from outside, without a stop and without touching a page that is not in memory: what changes
 * meanwhile is seen as it was or as it will be.
 *
 * Not seen: objects that are part of the interpreter itself (small ints, types written in C), and those in other
 * allocators' memory (mimalloc, jemalloc, musl's).
 */
struct pl_census_row {
	char *name;     /* with its module, if it has one: "list", "collections.deque", "__main__.Report" */
	uint64_t count; /* objects */
	uint64_t size;  /* their blocks, and those of the tables and items that are theirs alone */
};

struct pl_census {
	struct pl_census_row *rows; /* one for each name */
	size_t count;
	uint64_t objects, object_size; /* over all rows */
	uint64_t other, other_size;    /* blocks in use that hold no object and belong to none of these */
	bool arenas, heap;             /* which of the two were found */
};

/* -ENOTSUP: no way to walk its memory (a build without a GIL; neither arenas nor heap); -ENOMEM, -ESRCH, -EPERM. */
int pl_census_take(const struct pl_python *python, struct pl_census *ret, struct pl_error *err);
void pl_census_free(struct pl_census *census);

/* The same of single blocks, also without a GIL: what lies in them. */
struct pl_block_types;
int pl_block_types_open(const struct pl_python *python, struct pl_block_types **ret); /* 0 or -errno */
/* The name of the type of the object in a block that an allocator gave out; NULL: there is none, or it cannot be known.
 * The name lasts until they are closed. */
const char *pl_block_type(struct pl_block_types *types, uint64_t address, uint64_t size);
/* The same of a traceback in it: how many there are from it on, each leading to the next, as far as the frame that raised;
 * at most PL_CHAIN_MAX, which is more than Python lets functions call each other. 0: there is no traceback in it. */
enum { PL_CHAIN_MAX = 1200 };
unsigned int pl_block_chain(struct pl_block_types *types, uint64_t address, uint64_t size);
void pl_block_types_close(struct pl_block_types *types); /* NULL is allowed */

#endif
