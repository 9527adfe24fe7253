/* SPDX-License-Identifier: MIT */
#include "inline_blocks.h"

#include <errno.h>
#include <unistd.h>

#include "pyleak/cleanup.h"
#include "pyleak/resident.h"
#include "shadow.h"

/* Of the shadow map, what is read at most: 4 KiB for 16 KiB of heap, so some 20 ms. */
enum { PAGES_MAX = 1 << 14 };

struct gathering {
	const struct pl_inline_reader *reader;
	const uint32_t *group_of_site;
	size_t site_count;
	struct pl_live_blocks *blocks;
	uint64_t random;
};

/* xorshift: the same in each look at the same blocks. */
static uint64_t draw(struct gathering *gathering)
{
	gathering->random ^= gathering->random << 13;
	gathering->random ^= gathering->random >> 7;
	gathering->random ^= gathering->random << 17;
	return gathering->random;
}

static bool find_group(const struct gathering *gathering, uint32_t number, size_t *ret)
{
	uint32_t site = number < gathering->reader->known ? gathering->reader->local[number] : UINT32_MAX;

	if (site >= gathering->site_count || gathering->group_of_site[site] >= gathering->blocks->groups)
		return false;
	*ret = gathering->group_of_site[site];
	return true;
}

static void see(void *context, const uint32_t *entries, size_t count, uint64_t shadow, uint64_t address)
{
	struct gathering *gathering = context;
	struct pl_live_blocks *blocks = gathering->blocks;

	(void)shadow;
	for (size_t i = 0; i < count; i++) {
		uint64_t size, place;
		size_t group;

		if (!(entries[i] >> PL_INLINE_SITE_SHIFT) ||
			!find_group(gathering, entries[i] >> PL_INLINE_SITE_SHIFT, &group))
			continue;
		size = shadow_size(entries + i, count - i);
		if (!size)
			continue;
		place = blocks->seen[group]++;
		if (place >= blocks->most)
			place = draw(gathering) % blocks->seen[group];
		if (place < blocks->most)
			blocks->items[group * blocks->most + place] = (struct pl_live_block){
				address + 16 * i - (entries[i] & PL_INLINE_ENTRY_ODD ? 8 : 0), size,
				pl_inline_rate(gathering->reader->totals[entries[i] >> PL_INLINE_SITE_SHIFT].sampling,
					gathering->reader->config.sample)};
	}
}

int inline_blocks_read(pid_t pid, const struct pl_inline_reader *reader, const uint32_t *group_of_site, size_t site_count,
	struct pl_live_blocks *blocks)
{
	pl_autoclose int pagemap = pl_resident_open(pid);
	struct gathering gathering = {reader, group_of_site, site_count, blocks, 88172645463325252u};
	struct shadow_walk walk = {.pid = pid,
		.pagemap = pagemap,
		.config = &reader->config,
		.pages_left = PAGES_MAX,
		.see = see,
		.context = &gathering};

	if (pagemap < 0)
		return pagemap;
	walk.step = (shadow_pages(&walk) + PAGES_MAX - 1) / PAGES_MAX;
	return shadow_walk(&walk);
}
