/* SPDX-License-Identifier: MIT */
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
	PAGE = 4096,
};

/*
 * The size that pymalloc gave a block, by the header of its pool; 0: not known. Nothing is read but the page of the block
 * itself: a block of the C library may lie at the edge of what is mapped. So of pools of 16 KiB (3.10 and later) it is one
 * block in four, those of the first page.
 */
u64 pl_pymalloc_size(u64 pointer)
{
	u64 pool = pointer & ~(pl_config.pool_bytes - 1), size;
	u32 index;

	if (!pl_config.pool_bytes || pointer - pool >= PAGE || pointer - pool < POOL_HEADER)
		return 0;
	size = pl_config.pool_bytes - load32(pool, POOL_MAX_NEXT_OFFSET);
	index = load32(pool, POOL_SIZE_INDEX) + 1;
	/* Whatever lies there: no other page looks like this. */
	if (!size || size > POOL_BLOCK_MAX || size & 7 || (index * 8 != size && index * 16 != size) ||
		(pointer - pool - POOL_HEADER) % size || load32(pool, POOL_COUNT) - 1 >= pl_config.pool_bytes / size)
		return 0;
	return size;
}

/* `last`: the site that the thread allocated at last. size 0: not known. */
void pl_older_freed(u32 last, u64 size, bool plain)
{
	const u64 count = __atomic_load_n(&control()->next_site, __ATOMIC_RELAXED);
	u32 site;

	/* Those that are allocated at need the rest of the table. */
	if (last >= PL_INLINE_SITE_FIRST + count || count > pl_config.site_limit / 4 * 3)
		last = PL_INLINE_SITE_NONE;
	site = pl_trace_older(last, pl_inline_older_class(size));
	/* Full: these are none of what lives. */
	if (site == PL_INLINE_SITE_LOST)
		return;
	count_allocated(site, size, plain ? PLAIN : adder_without_gil());
}
