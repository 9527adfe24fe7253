/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_POOLS_H
#define PYLEAK_POOLS_H

#include "pyleak/stats.h"

/*
 * Allocators that are linked into an object (jemalloc in polars and duckdb). Code calls them where they are, by no word that
 * could be hooked: which line a block is of is not known. What they map is, and who worked when they did; that is a hint,
 * and no row: a pool takes memory when it is full, for whoever comes next.
 */
enum { PL_POOLS_MAX = 8, PL_POOL_LINES = 3 };

struct pl_pool {
	const char *module;    /* path of the object */
	const char *allocator; /* "jemalloc" */
	int64_t mapped;        /* bytes of address space that it took, since the snapshot before or the start */
	int64_t size;          /* of them in memory */
	/* A hint, by the first of these that gives any: the innermost lines that are no library's, most first. */
	const struct pl_frame *lines[PL_POOL_LINES];
	int64_t line_weight[PL_POOL_LINES];
	size_t line_count;
	enum pl_pool_lines {
		/* Of the blocks that are recorded below them in the object's package (its wrappers in Python, its own blocks of
		 * the C library) many stayed. */
		PL_POOL_KEPT,
		/* It mapped for them; the line that found it full is mostly not the one that had filled it. */
		PL_POOL_MAPPED,
		/* It has mapped nothing, because it fills what it had: the object's own code allocated for them, freed or not,
		 * as far as that is recorded (Apache Arrow's pools), and most of that has a line. */
		PL_POOL_ALLOCATED,
		/* The package allocated below them, whatever and wherever. */
		PL_POOL_WORKED,
	} lines_by;
};

struct pl_pools {
	struct pl_pool items[PL_POOLS_MAX]; /* largest first */
	size_t count;
};

/* `resident`: by how much the memory of all of them grew (struct pl_account, pools). before: NULL for the start. */
void pl_pools_make(const struct pl_snapshot *now, const struct pl_snapshot *before, int64_t resident, struct pl_pools *ret);

/* What a person calls the object: "polars" of …/site-packages/polars/polars.abi3.so. A part of `path`: *ret_length bytes. */
const char *pl_pool_name(const char *path, size_t *ret_length);

#endif
