/* SPDX-License-Identifier: MIT */
#include "native.h"
#include "record.h"

/*
 * Blocks that are older than the probe, as they are freed: how many, by the site that their thread allocated at last
 * and by class of size. A cache that is full drops an old entry for each new one, in the same function: what comes there
 * and what goes stand side by side, and no stack is walked for it. Cold: a block is old once.
 */

enum {
	/* struct pool_header of Objects/obmalloc.c, the same from 3.6 to 3.15 */
	POOL_COUNT = 0, POOL_SIZE_INDEX = 36, POOL_MAX_NEXT_OFFSET = 44, POOL_HEADER = 48,
	POOL_BLOCK_MAX = 512,
	ARENA_BITS = 20,
	CHUNK_MIN = 32, /* of glibc's */
};
#define CHUNK_MAX (1ull << 46)

/* As pymalloc asks itself, of each block that it is given: arena_map_is_used(). Nodes of the map are never freed. */
static bool is_in_arena(u64 pointer)
{
	const u32 node_bits = pl_config.arena_node_bits, leaf_bits = pl_config.arena_leaf_bits;
	int32_t tail = (int32_t)(pointer & ((1u << ARENA_BITS) - 1)), high, low;
	u64 part = pointer >> ARENA_BITS, node = pl_config.arena_map;

	if (part >> leaf_bits >> node_bits >> node_bits)
		return false;
	node = load64(node + 8 * (part >> leaf_bits >> node_bits), 0);
	if (node)
		node = load64(node + 8 * (part >> leaf_bits & ((1u << node_bits) - 1)), 0);
	if (!node)
		return false;
	node += 8 * (part & ((1u << leaf_bits) - 1));
	high = (int32_t)load32(node, 0);
	low = (int32_t)load32(node, 4);
	return tail < low || (high && tail >= high);
}

/* By the header of its pool; 0: that does not look like one. */
static u64 pool_size(u64 pointer, u64 pool)
{
	u64 size = pl_config.pool_bytes - load32(pool, POOL_MAX_NEXT_OFFSET);
	u32 index = load32(pool, POOL_SIZE_INDEX) + 1;

	if (pointer - pool < POOL_HEADER || !size || size > POOL_BLOCK_MAX || size & 7 ||
		(index * 8 != size && index * 16 != size) || (pointer - pool - POOL_HEADER) % size ||
		load32(pool, POOL_COUNT) - 1 >= pl_config.pool_bytes / size)
		return 0;
	return size;
}

/* By what stands before it; 0: that does not look like a chunk's head. */
static u64 glibc_size(u64 pointer)
{
	u64 head = pointer & 15 ? 0 : load64(pointer, -8), size = head & ~(u64)GLIBC_BITS;

	if (size < CHUNK_MIN || size & 15 || size >= CHUNK_MAX)
		return 0;
	return size - (head & GLIBC_MMAPPED ? 16 : 8);
}

/*
 * The size that an allocator gave a block of Python's which is about to be freed, or to be moved; 0: not known.
 *
 * Nothing is read but what the original is about to read: pymalloc's map of its arenas says whether it has a pool's header
 * (then it is pymalloc's to read), or else a chunk's. Where the map is not known nothing is read but the page of the block
 * itself, as one of the C library may lie at the edge of what is mapped: of pools of 16 KiB (3.10 and later) that is one
 * block in four, those of the first page.
 */
u64 pl_older_size(u32 domain, u64 pointer)
{
	const bool glibc = pl_config.flags[domain * PL_INLINE_FUNCTIONS + PL_INLINE_FREE] & PL_INLINE_NATIVE_GLIBC;
	u64 pool = pointer & ~(pl_config.pool_bytes - 1), size;

	if (!pl_config.pool_bytes || domain == PL_INLINE_RAW)
		return glibc ? glibc_size(pointer) : 0;
	if (pl_config.arena_map) {
		if (is_in_arena(pointer))
			return pool_size(pointer, pool);
		/* An interpreter with a GIL of its own has a map of its own. */
		return glibc && !(control()->mode & PL_INLINE_MANY) ? glibc_size(pointer) : 0;
	}
	size = pointer - pool < PAGE ? pool_size(pointer, pool) : 0;
	/* All of a pool is one page, so what is none is a chunk. */
	return size || !glibc || pl_config.pool_bytes > PAGE ? size : glibc_size(pointer);
}

/* `last`: the site that the thread allocated at last. size 0: not known. */
void pl_older_freed(u32 last, u64 size, bool plain)
{
	const u64 count = __atomic_load_n(&control()->next_site, __ATOMIC_RELAXED);
	u32 site;

	/* Those that are allocated at need the rest of the table. */
	if (last >= PL_INLINE_SITE_FIRST + count || count > pl_config.site_limit / 2)
		last = PL_INLINE_SITE_NONE;
	site = pl_trace_older(last, pl_inline_older_class(size));
	/* Full: these are none of what lives. */
	if (site == PL_INLINE_SITE_LOST)
		return;
	count_allocated(site, size, plain ? PLAIN : adder_without_gil());
}
