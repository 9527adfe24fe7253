/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <unistd.h>

#include "inline_engine.h"
#include "pyleak/cleanup.h"
#include "shadow.h"

enum {
	PAGES_MAX = 8192, /* of the shadow map */
	LARGE = 4 * PL_PAGE, /* blocks whose pages are looked at, as some may not be there */
	RUNS = 128,
};

struct looking {
	const struct inline_engine *self;
	const struct pl_range *ranges;
	size_t count;
	int64_t *sums;
	int pagemap;
	int64_t step;
};

static int64_t in_memory(const struct looking *looking, struct pl_range range)
{
	struct pl_range runs[RUNS];
	uint64_t end, sum = 0;
	size_t count;

	for (; range.start < range.end; range.start = end) {
		if (pl_resident_runs(looking->pagemap, range, false, runs, RUNS, &count, &end) < 0 || end <= range.start)
			break;
		for (size_t i = 0; i < count; i++)
			sum += runs[i].end - runs[i].start;
	}
	return (int64_t)sum;
}

/* The first range that ends above an address. */
static size_t first_above(const struct looking *looking, uint64_t address)
{
	size_t low = 0, high = looking->count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (looking->ranges[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* A block may begin in front of the range: its mapping's first page is the allocator's, or another range's. */
static bool wants(void *context, uint64_t start, uint64_t end)
{
	const struct looking *looking = context;
	size_t at = first_above(looking, start);

	return at < looking->count && looking->ranges[at].start < end;
}

static void see_block(struct looking *looking, uint64_t address, uint64_t size)
{
	size_t at = first_above(looking, address);

	for (; at < looking->count && looking->ranges[at].start < address + size; at++) {
		struct pl_range both = looking->ranges[at];

		both.start = both.start > address ? both.start : address;
		both.end = both.end < address + size ? both.end : address + size;
		if (both.end - both.start < LARGE) {
			/* With what malloc adds to it. */
			looking->sums[at] += (int64_t)((both.end - both.start + 8 + 15) / 16 * 16) * looking->step;
			continue;
		}
		/* The pages that it begins and ends in are there, as far as anything is. */
		both.start = both.start / PL_PAGE * PL_PAGE;
		both.end = (both.end + PL_PAGE - 1) / PL_PAGE * PL_PAGE;
		looking->sums[at] += in_memory(looking, both) * looking->step;
	}
}

static void see(void *context, const uint32_t *entries, size_t count, uint64_t shadow, uint64_t address)
{
	struct looking *looking = context;

	(void)shadow;
	for (size_t i = 0; i < count; i++) {
		uint64_t size = entries[i] >> PL_INLINE_SITE_SHIFT ? shadow_size(entries + i, count - i) : 0;

		/* What is in a pool is looked at with the pool. */
		if (size && size < UINT64_C(1) << 46 && !old_pools_at(&looking->self->old_pools, address + 16 * i))
			see_block(looking, address + 16 * i - (entries[i] & PL_INLINE_ENTRY_ODD ? 8 : 0), size);
	}
}

/* Whole mappings: pyleak's, and what allocators that are linked in had before. */
static void see_mapping(struct looking *looking, struct pl_range range)
{
	for (size_t at = first_above(looking, range.start); at < looking->count && looking->ranges[at].start < range.end; at++) {
		struct pl_range both = looking->ranges[at];

		both.start = both.start > range.start ? both.start : range.start;
		both.end = both.end < range.end ? both.end : range.end;
		looking->sums[at] += in_memory(looking, both);
	}
}

/* By how much more is in memory of them than was at first: as much is known of their owners (struct pl_touched). */
static void see_old_pools(struct looking *looking)
{
	const struct old_pools *pools = &looking->self->old_pools;

	for (size_t owner = 0; owner < pools->owner_count; owner++) {
		size_t at = looking->count;

		for (size_t i = 0; i < pools->count; i++) {
			if (pools->items[i].owner != owner)
				continue;
			see_mapping(looking, pools->items[i].range);
			if (at == looking->count)
				at = first_above(looking, pools->items[i].range.start);
		}
		if (at < looking->count)
			looking->sums[at] -= (int64_t)pools->owners[owner].before;
	}
}

int inline_owned_look(const struct inline_engine *self, const struct pl_range *ranges, size_t count, int64_t *ret)
{
	const struct pl_inline_config *config = &self->reader.config;
	pl_autoclose int pagemap = pl_resident_open(self->python->pid);
	struct looking looking = {self, ranges, count, ret, pagemap, 1};
	struct shadow_walk walk = {
		.pid = self->python->pid,
		.pagemap = pagemap,
		.config = config,
		.pages_left = PAGES_MAX,
		.see = see,
		.wants = wants,
		.context = &looking,
	};
	int code;

	for (size_t i = 0; i < count; i++)
		ret[i] = 0;
	if (pagemap < 0)
		return pagemap;
	walk.step = (shadow_pages(&walk) + PAGES_MAX - 1) / PAGES_MAX;
	looking.step = walk.step > 1 ? (int64_t)walk.step : 1;
	code = shadow_walk(&walk);
	see_mapping(&looking, (struct pl_range){self->probe.base, self->probe.base + config->code_size});
	see_mapping(&looking, (struct pl_range){config->data_start, config->data_start + config->data_size});
	see_old_pools(&looking);
	return code;
}
