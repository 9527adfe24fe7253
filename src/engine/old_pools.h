/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_OLD_POOLS_H
#define PYLEAK_ENGINE_OLD_POOLS_H

#include <stdbool.h>
#include <stddef.h>

#include "native.h"
#include "pyleak/resident.h"
#include "pyleak/stats.h"

/*
 * What an allocator that is linked into an object had mapped before its mmap was hooked: it goes on filling that. Whose such
 * a mapping is, the object's static data say: jemalloc's and mimalloc's arenas, or pointers to them, lie there, and in these
 * the addresses of all that they have. So what the data point into, and what that points into, is the object's, as far as
 * nobody else is known for it: not CPython's arenas, glibc's heaps and its large chunks, stacks, and the data of other
 * objects. A mapping that is taken for a pool and is none does no harm as long as it does not grow: it is by how much more
 * of it is in memory, beside blocks that are recorded, that counts.
 */
struct old_pool {
	struct pl_range range;
	uint32_t owner; /* of `owners` */
};
struct old_pool_owner {
	uint64_t start; /* of the object */
	const char *module, *allocator; /* interned; the latter as pl_elf_linked_allocator() has it */
	uint32_t site;
	uint64_t before;   /* what of its mappings was in memory when they were found */
	int64_t told;      /* growth that the site has */
};
struct old_pools {
	int (*places)(void *context, struct pl_range **ret, size_t *ret_count); /* see struct pl_engine_options; NULL: none are looked for */
	void *context;
	struct old_pool *items; /* by address; none overlaps another */
	size_t count;
	struct old_pool_owner *owners;
	size_t owner_count;
	/* What there was when it was first looked: later that is nobody's new. */
	struct pl_range *first;
	size_t first_count;
	bool looked;
};
void old_pools_free(struct old_pools *pools);

/* Looks for the pools of the objects that `native` knows. Of one that was looked at nothing is done. */
void old_pools_look(struct old_pools *pools, const struct native *native, struct pl_sites *sites);

/* The pool with this address, or NULL. */
const struct old_pool *old_pools_at(const struct old_pools *pools, uint64_t address);

/* By how much more of all of them is in memory, but for `within` bytes of blocks that are recorded, of each owner; tells the
 * sites of each. `within` has owner_count numbers. */
int64_t old_pools_grown(struct old_pools *pools, pid_t pid, struct pl_sites *sites, const uint64_t *within);

#endif
