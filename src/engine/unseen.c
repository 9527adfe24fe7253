/* SPDX-License-Identifier: MIT */
#include "unseen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "pyleak/cleanup.h"
#include "pyleak/log.h"
#include "pyleak/memory.h"
#include "pyleak/units.h"

/* Of the time between two looks, in nanoseconds: one part in so many. */
#define LOOK_SHARE 50
/* Between the two looks that must agree: whoever is about to give a block back, or out, has done it by then. */
#define AGAIN_NSEC (3 * PL_NSEC_PER_MSEC)
/* Of a site's sample so many must be free to stand for the rest of the site. */
#define STANDS_FOR_REST 8

struct tally {
	uint64_t size, count;             /* of all that are free */
	uint64_t small_size, small_count; /* of the sample's among them */
	uint32_t sampled;
};

static bool has_pools(const struct pl_inline_config *config)
{
	for (uint32_t entry = PL_INLINE_FIRST_POOL_ALLOCATE; entry <= PL_INLINE_LAST_POOL_FREE; entry++)
		if (config->original[entry])
			return true;
	return false;
}

static int by_start(const void *a, const void *b)
{
	const struct pl_range *left = a, *right = b;

	return (left->start > right->start) - (left->start < right->start);
}

/* Where glibc's heaps are, among others that have an owner (none of them Arrow's pools; test_pools.py: what lives in these was
 * taken for freed), in order. -ENOENT: it cannot be told. */
static int find_heaps(const struct old_pools *pools, pid_t pid, struct pl_range **ret, size_t *ret_count)
{
	struct pl_maps maps = {0};
	struct pl_range *places, *grown;
	bool found = false;
	int code = pools->places ? pools->places(pools->context, &places, ret_count) : -ENOENT;

	if (code < 0)
		return code;
	grown = reallocarray(places, *ret_count + 1, sizeof(*places));
	if (!grown) {
		free(places);
		return -ENOMEM;
	}
	*ret = grown;
	code = pl_maps_read(pid, &maps);
	for (size_t i = 0; code == 0 && i < maps.count; i++)
		if (strcmp(maps.items[i].path, "[heap]") == 0) {
			/* Advice to the kernel makes several mappings of one. */
			if (!found)
				grown[(*ret_count)++] = (struct pl_range){maps.items[i].start, maps.items[i].end};
			grown[*ret_count - 1].end = maps.items[i].end;
			found = true;
		}
	pl_maps_free(&maps);
	qsort(grown, *ret_count, sizeof(*grown), by_start);
	return code;
}

/* Those that are free in both looks, with the same entry throughout, go to the tallies of their sites. */
static void look_twice(pid_t pid, const struct unseen_blocks *blocks, struct tally *tallies)
{
	pl_autofree bool *is_free = calloc(blocks->count + 1, sizeof(*is_free));
	size_t found = 0;

	if (!is_free)
		return;
	unseen_look_at_marks(pid, blocks->items, blocks->count, is_free);
	for (size_t i = 0; i < blocks->count; i++) {
		tallies[blocks->items[i].entry >> PL_INLINE_SITE_SHIFT].sampled += blocks->items[i].small;
		found += is_free[i];
	}
	if (!found)
		return;
	pl_sleep_ns(AGAIN_NSEC);
	for (size_t i = 0; i < blocks->count; i++) {
		const struct unseen_block *block = &blocks->items[i];
		struct tally *tally = &tallies[block->entry >> PL_INLINE_SITE_SHIFT];
		bool still = false;
		uint32_t entry;

		if (!is_free[i])
			continue;
		unseen_look_at_marks(pid, block, 1, &still);
		if (!still || pl_memory_read(pid, block->entry_at, &entry, sizeof(entry)) < 0 || entry != block->entry)
			continue;
		tally->size += block->size;
		tally->count++;
		tally->small_size += block->small ? block->size : 0;
		tally->small_count += block->small;
	}
}

/* What the sample's stand for is added. */
static void scale(struct tally *tally, uint32_t small_alive)
{
	double factor = tally->sampled ? (double)small_alive / tally->sampled : 1;

	if (tally->small_count < STANDS_FOR_REST || factor <= 1)
		return;
	tally->size += (uint64_t)((factor - 1) * (double)tally->small_size);
	tally->count += (uint64_t)((factor - 1) * (double)tally->small_count);
}

static uint64_t freed_size(const struct pl_inline_totals *row)
{
	return row->freed_size + row->shared_freed_size + row->first_freed_size;
}

static uint64_t freed_count(const struct pl_inline_totals *row)
{
	return row->freed_count + row->shared_freed_count + row->first_freed_count;
}

static uint64_t allocated_size(const struct pl_inline_totals *row)
{
	return row->allocated_size + row->shared_allocated_size + row->first_allocated_size;
}

static uint64_t allocated_count(const struct pl_inline_totals *row)
{
	return row->allocated_count + row->shared_allocated_count + row->first_allocated_count;
}

/* What is shown as freed never becomes less: what the recorder has found since counts as what was corrected. */
static uint64_t bounded(uint64_t wanted, uint64_t shown, uint64_t freed, uint64_t allocated)
{
	uint64_t live = allocated > freed ? allocated - freed : 0;

	if (shown > freed && shown - freed > wanted)
		wanted = shown - freed;
	return wanted < live ? wanted : live;
}

static struct unseen_correction *find(struct unseen *unseen, uint32_t number)
{
	for (size_t i = 0; i < unseen->item_count; i++)
		if (unseen->items[i].number == number)
			return &unseen->items[i];
	return NULL;
}

static struct unseen_correction *add(struct unseen *unseen, uint32_t number)
{
	struct unseen_correction *items = reallocarray(unseen->items, unseen->item_count + 1, sizeof(*items));

	if (!items)
		return NULL;
	unseen->items = items;
	items[unseen->item_count] = (struct unseen_correction){.number = number, .local = UINT32_MAX};
	return &items[unseen->item_count++];
}

static void take_back(const struct unseen_correction *item, const struct pl_inline_reader *reader)
{
	struct pl_totals *totals = item->size || item->count ? pl_sites_totals(reader->sites, item->local) : NULL;

	if (totals) {
		totals->freed_size -= item->size;
		totals->freed_count -= item->count;
	}
}

static void set(struct unseen_correction *item, const struct pl_inline_reader *reader, uint64_t size, uint64_t count)
{
	const struct pl_inline_totals *row = &reader->totals[item->number];
	struct pl_totals *totals;

	/* The row is another site's, or will be: what was corrected is known by now, or nothing of it was right. */
	if (item->local != reader->local[item->number] || item->generation != row->generation) {
		take_back(item, reader);
		*item = (struct unseen_correction){
			.number = item->number, .local = reader->local[item->number], .generation = row->generation};
	}
	if (item->local == UINT32_MAX)
		return;
	totals = pl_sites_totals(reader->sites, item->local);
	size = bounded(size, item->shown_size, freed_size(row), allocated_size(row));
	count = bounded(count, item->shown_count, freed_count(row), allocated_count(row));
	totals->freed_size += size - item->size;
	totals->freed_count += count - item->count;
	item->size = size;
	item->count = count;
	item->shown_size = freed_size(row) + size;
	item->shown_count = freed_count(row) + count;
}

/* Nothing is known of rows that have become others'. */
static void carry_on(struct unseen *unseen, const struct pl_inline_reader *reader)
{
	for (size_t i = 0; i < unseen->item_count; i++) {
		struct unseen_correction *item = &unseen->items[i];
		const bool same = item->local == reader->local[item->number] &&
				  item->generation == reader->totals[item->number].generation;

		set(item, reader, same ? item->size : 0, same ? item->count : 0);
	}
}

static void sum_up(struct unseen *unseen)
{
	unseen->size = unseen->count = 0;
	for (size_t i = 0; i < unseen->item_count; i++) {
		unseen->size += unseen->items[i].size;
		unseen->count += unseen->items[i].count;
	}
}

static int look(struct unseen *unseen, pid_t pid, const struct pl_inline_reader *reader, const struct old_pools *pools)
{
	struct unseen_blocks blocks = {0};
	pl_autofree struct tally *tallies = calloc(reader->known + 1, sizeof(*tallies));
	const bool apart = has_pools(&reader->config);
	pl_autofree struct pl_range *heaps = NULL;
	size_t heap_count = 0;
	int code = tallies ? 0 : -ENOMEM;

	if (code == 0 && apart)
		code = find_heaps(pools, pid, &heaps, &heap_count);
	if (code == -ENOENT)
		return 0;
	if (code == 0)
		code = unseen_blocks_read(pid, reader, apart ? heaps : NULL, heap_count, &blocks);
	if (code == 0)
		look_twice(pid, &blocks, tallies);
	for (uint32_t i = 0; code == 0 && i < blocks.sites; i++) {
		struct unseen_correction *item = tallies[i].count || unseen->item_count ? find(unseen, i) : NULL;

		scale(&tallies[i], blocks.small_alive[i]);
		/* Of samples each block stands for others already. What was corrected was of another row of this number. */
		if (reader->totals[i].sampling)
			tallies[i] = (struct tally){0};
		if (!item && tallies[i].count)
			item = add(unseen, i);
		if (item)
			set(item, reader, tallies[i].size, tallies[i].count);
	}
	unseen_blocks_free(&blocks);
	return code;
}

void unseen_correct(struct unseen *unseen, pid_t pid, const struct pl_inline_reader *reader, const struct old_pools *pools)
{
	int64_t started = pl_now_ns(), taken;
	int code;

	/* Of samples each block stands for others already. */
	if (reader->config.sample || !reader->config.native)
		return;
	/* The bytes in front of another allocator's blocks are some other block's, and can say anything. */
	if (!pl_inline_is_glibcs(&reader->config)) {
		if (!unseen->said)
			pl_log_debug("blocks that are freed unseen are not looked for: malloc is not, or not everywhere, glibc's");
		unseen->said = true;
		return;
	}
	if (started < unseen->next_look_ns) {
		carry_on(unseen, reader);
		return;
	}
	code = look(unseen, pid, reader, pools);
	sum_up(unseen);
	taken = pl_now_ns() - started;
	unseen->next_look_ns = started + taken * LOOK_SHARE;
	if (code < 0)
		pl_log_debug("blocks that were freed unseen could not be looked for: %s", strerror(-code));
	else if (unseen->count)
		pl_log_debug("%llu blocks, %llu bytes, were freed unseen, as the C library's marks say (%.1f ms)",
			(unsigned long long)unseen->count, (unsigned long long)unseen->size, (double)taken / PL_NSEC_PER_MSEC);
}

void unseen_free(struct unseen *unseen, const struct pl_inline_reader *reader)
{
	for (size_t i = 0; reader && i < unseen->item_count; i++)
		take_back(&unseen->items[i], reader);
	free(unseen->items);
	*unseen = (struct unseen){0};
}
