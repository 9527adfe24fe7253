/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_ARROW_POOLS_H
#define PYLEAK_ENGINE_ARROW_POOLS_H

#include <stdint.h>

#include "pyleak/got.h"
#include "pyleak/maps.h"
#include "pyleak/space.h"

/* Names of the words that are found, from the one given on. */
enum arrow_function { ARROW_ALLOCATE, ARROW_REALLOCATE, ARROW_FREE, ARROW_FUNCTIONS };

/*
 * Apache Arrow takes its memory from an arrow::MemoryPool, most often one of mimalloc or jemalloc that is linked into
 * libarrow: its blocks come from nobody else's malloc. Each kind of pool is a class of its own, and code calls its
 * functions by the words of that class's vtable, which are hooked like those of a GOT. Pools that wrap another one are left
 * alone.
 *
 * Adds these words of the last object of `got`, named first_name + enum arrow_function; none if it is not libarrow, or one
 * whose classes look different (before 10.0). -ENOMEM.
 */
int arrow_pools_add(struct pl_space *space, const struct pl_maps *maps, uint32_t first_name, struct pl_got *got);

#endif
