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
	char *name;     /* tp_name: "list", "collections.deque"; of a class in Python its name alone */
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

#endif
