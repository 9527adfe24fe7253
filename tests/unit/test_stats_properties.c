/* SPDX-License-Identifier: MIT */
#include "sample.h"

/*
 * Random allocations and frees, counted once by the rooms under test and once here, plainly. What
 * must hold at any moment, for every grouping: no live figure is negative, rows sum to the total,
 * the total is what this file counted, and the order is the one that was asked for.
 */

enum { FILES = 5, LINES = 4, TRACES = 120, EVENTS = 20000, BLOCKS = 500, SEEDS = 6 };

struct block {
	uint32_t site;
	uint64_t size;
};

struct world {
	uint64_t random;
	struct pl_sites *sites;
	struct block blocks[BLOCKS]; /* live */
	size_t live;
	int64_t size;
	uint64_t allocated_size, allocated_count, freed_size, freed_count;
};

/* What world counted when a snapshot was taken. */
struct moment {
	struct pl_snapshot *snapshot;
	int64_t size, count;
	uint64_t allocated_size, allocated_count, freed_size, freed_count;
};

/* xorshift64* */
static uint64_t next(struct world *world, uint64_t below)
{
	world->random ^= world->random >> 12;
	world->random ^= world->random << 25;
	world->random ^= world->random >> 27;
	return (world->random * UINT64_C(0x2545f4914f6cdd1d) >> 32) % below;
}

static uint32_t some_site(struct world *world)
{
	struct pl_frame frames[4];
	size_t count = next(world, COUNT(frames) + 1);

	for (size_t i = 0; i < count; i++) {
		char file[32], function[32];

		(void)snprintf(file, sizeof(file), "/app/%d.py", (int)next(world, FILES));
		(void)snprintf(function, sizeof(function), "f%d", (int)next(world, 2));
		frames[i] = (struct pl_frame){
			.filename = pl_sites_string(world->sites, file),
			.function = pl_sites_string(world->sites, function),
			.line = (int)next(world, LINES),
		};
	}
	return pl_sites_intern(
		world->sites, next(world, 4) ? PL_SITE_PYTHON : PL_SITE_NATIVE, frames, count, next(world, 8) == 0);
}

static void happen(struct world *world)
{
	if (world->live < BLOCKS && (world->live == 0 || next(world, 2))) {
		struct block block = {some_site(world), next(world, 3) ? 48 : next(world, 100000)};

		sample_allocate(world->sites, block.site, block.size, 1);
		world->blocks[world->live++] = block;
		world->size += (int64_t)block.size;
		world->allocated_size += block.size;
		world->allocated_count++;
	} else {
		size_t which = next(world, world->live);
		struct block block = world->blocks[which];

		sample_free(world->sites, block.site, block.size, 1);
		world->blocks[which] = world->blocks[--world->live];
		world->size -= (int64_t)block.size;
		world->freed_size += block.size;
		world->freed_count++;
	}
}

static struct moment now(struct world *world)
{
	return (struct moment){
		.snapshot = pl_snapshot_take(world->sites),
		.size = world->size,
		.count = (int64_t)world->live,
		.allocated_size = world->allocated_size,
		.allocated_count = world->allocated_count,
		.freed_size = world->freed_size,
		.freed_count = world->freed_count,
	};
}

static uint64_t key(const struct pl_row *row, enum pl_sort sort)
{
	switch (sort) {
	case PL_SORT_SIZE:
		return (uint64_t)row->size;
	case PL_SORT_COUNT:
		return (uint64_t)row->count;
	case PL_SORT_AVERAGE:
		return (uint64_t)pl_row_average(row);
	case PL_SORT_SIZE_DIFF:
		return (uint64_t)llabs(row->size_diff);
	case PL_SORT_COUNT_DIFF:
		return (uint64_t)llabs(row->count_diff);
	case PL_SORT_CHURN:
		return row->window.allocated_size;
	case PL_SORT_AGE:
		return (uint64_t)(INT64_MAX - row->born_ns);
	}
	return 0;
}

static void check_row(const struct pl_rows *rows, size_t i, bool difference)
{
	const struct pl_row *row = &rows->items[i];

	cr_assert_geq(row->size, 0);
	cr_assert_geq(row->count, 0);
	cr_assert_geq(row->site_size, 0);
	cr_assert_leq(row->site_size, row->size);
	cr_assert_leq(row->site_count, row->count);
	if (difference) {
		cr_assert_leq(row->size_diff, row->size);
		cr_assert_eq(row->size_diff, (int64_t)(row->window.allocated_size - row->window.freed_size));
		cr_assert_eq(row->count_diff, (int64_t)(row->window.allocated_count - row->window.freed_count));
	} else {
		cr_assert_eq(row->size, (int64_t)(row->window.allocated_size - row->window.freed_size));
	}
}

static void check(const struct moment *late, const struct moment *early, enum pl_group group_by, enum pl_sort sort)
{
	const struct pl_rows_options options = {.group_by = group_by, .sort = sort, .python = true, .native = true};
	static const struct moment start = {0};
	const struct moment *from = early ? early : &start;
	struct pl_rows rows;
	struct pl_row sum = {0};

	cr_assert_eq(pl_rows_make(late->snapshot, early ? early->snapshot : NULL, &options, &rows), 0);
	for (size_t i = 0; i < rows.count; i++) {
		check_row(&rows, i, early != NULL);
		if (i)
			cr_assert_geq(key(&rows.items[i - 1], sort), key(&rows.items[i], sort));
		sum.size += rows.items[i].size;
		sum.size_diff += rows.items[i].size_diff;
		sum.count += rows.items[i].count;
		sum.count_diff += rows.items[i].count_diff;
		sum.window.allocated_size += rows.items[i].window.allocated_size;
		sum.window.freed_count += rows.items[i].window.freed_count;
	}
	cr_assert_eq(sum.size, late->size);
	cr_assert_eq(sum.count, late->count);
	cr_assert_eq(sum.size_diff, early ? late->size - early->size : 0);
	cr_assert_eq(sum.count_diff, early ? late->count - early->count : 0);
	cr_assert_eq(sum.window.allocated_size, late->allocated_size - from->allocated_size);
	cr_assert_eq(sum.window.freed_count, late->freed_count - from->freed_count);
	cr_assert_eq(rows.total.size, sum.size);
	cr_assert_eq(rows.total.size_diff, sum.size_diff);
	cr_assert_eq(rows.total.count, sum.count);
	cr_assert_eq(rows.total.count_diff, sum.count_diff);
	cr_assert_eq(rows.total.window.allocated_count, late->allocated_count - from->allocated_count);
	cr_assert_eq(rows.total.window.freed_size, late->freed_size - from->freed_size);
	pl_rows_free(&rows);
}

static void check_every_way(const struct moment *late, const struct moment *early)
{
	for (int group_by = PL_GROUP_LINE; group_by <= PL_GROUP_TRACEBACK; group_by++)
		for (int sort = PL_SORT_SIZE; sort <= PL_SORT_AGE; sort++)
			check(late, early, (enum pl_group)group_by, (enum pl_sort)sort);
}

Test(properties, rows_sum_to_what_happened)
{
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct world world = {.random = seed, .sites = pl_sites_new()};
		struct moment early = now(&world);

		for (int i = 0; i < EVENTS; i++) {
			struct moment late;

			happen(&world);
			if (next(&world, 4000))
				continue;
			late = now(&world);
			check_every_way(&late, NULL);
			check_every_way(&late, &early);
			pl_snapshot_free(early.snapshot);
			early = late;
		}
		pl_snapshot_free(early.snapshot);
		pl_sites_free(world.sites);
	}
}

/* Totals that no recorder would write: nothing overflows, and nothing live is negative. */
Test(properties, any_totals)
{
	struct world world = {.random = 784, .sites = pl_sites_new()};
	struct pl_snapshot *snapshots[2];

	for (int i = 0; i < TRACES; i++)
		(void)some_site(&world);
	for (int i = 0; i < 2; i++) {
		for (uint32_t site = 0; site < pl_sites_count(world.sites); site++) {
			uint64_t *totals = (uint64_t *)pl_sites_totals(world.sites, site);

			for (int j = 0; j < 4; j++)
				totals[j] = next(&world, 4) ? next(&world, UINT32_MAX) << next(&world, 33) : UINT64_MAX;
		}
		snapshots[i] = pl_snapshot_take(world.sites);
	}
	for (int group_by = PL_GROUP_LINE; group_by <= PL_GROUP_TRACEBACK; group_by++)
		for (int sort = PL_SORT_SIZE; sort <= PL_SORT_AGE; sort++) {
			const struct pl_rows_options options = {
				.group_by = (enum pl_group)group_by,
				.sort = (enum pl_sort)sort,
				.python = true,
				.native = true,
			};
			struct pl_rows rows;

			cr_assert_eq(pl_rows_make(snapshots[1], snapshots[0], &options, &rows), 0);
			for (size_t i = 0; i < rows.count; i++) {
				cr_assert_geq(rows.items[i].size, 0);
				cr_assert_geq(rows.items[i].count, 0);
				cr_assert_geq(pl_row_average(&rows.items[i]), 0);
			}
			pl_rows_free(&rows);
		}
	pl_snapshot_free(snapshots[0]);
	pl_snapshot_free(snapshots[1]);
	pl_sites_free(world.sites);
}
