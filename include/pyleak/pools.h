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
	/* The lines that it mapped most for; the innermost that are no library's. */
	const struct pl_frame *lines[PL_POOL_LINES];
	int64_t line_mapped[PL_POOL_LINES];
	size_t line_count;
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
