/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <string.h>

#include "pyleak/pools.h"

static void expect_name(const char *path, const char *wanted)
{
	size_t length;
	const char *name = pl_pool_name(path, &length);

	cr_assert(length == strlen(wanted) && memcmp(name, wanted, length) == 0, "%s: %.*s", path, (int)length, name);
}

Test(pools, names)
{
	expect_name("/usr/lib/python3/dist-packages/polars/polars.abi3.so", "polars");
	expect_name("/a/site-packages/_duckdb.abi3.so", "duckdb");
	expect_name("/a/site-packages/b/site-packages/c/d.so", "c");
	expect_name("/opt/lib/libmine.so.2", "libmine");
	expect_name("plain", "plain");
	expect_name("", "");
}

static struct pl_sites *sites;

static void map(const char *object, const char *file, int line, uint64_t size)
{
	const struct pl_native_caller caller = {.module = pl_sites_string(sites, object), .symbol = "jemalloc"};
	const struct pl_frame frames[2] = {
		{pl_sites_string(sites, "/usr/lib/python3.11/json/decoder.py"), "decode", 7},
		{pl_sites_string(sites, file), "work", line},
	};
	uint32_t site = pl_sites_intern_pool(sites, line ? frames : NULL, line ? 2 : 0, false, &caller);

	pl_sites_totals(sites, site)->allocated_size += size;
	pl_sites_totals(sites, site)->allocated_count++;
}

Test(pools, what_grew_and_meanwhile)
{
	const struct pl_rows_options options = {.python = true, .native = true};
	struct pl_snapshot *before, *now;
	struct pl_pools pools;
	struct pl_rows rows;

	sites = pl_sites_new();
	map("/site-packages/a/a.so", "/app/x.py", 1, 1000);
	before = pl_snapshot_take(sites);
	map("/site-packages/a/a.so", "/app/x.py", 2, 3000);
	map("/site-packages/a/a.so", "/app/x.py", 3, 5000);
	map("/site-packages/a/a.so", "/app/y.py", 1, 100);
	map("/site-packages/a/a.so", "/app/x.py", 4, 4000);
	map("/site-packages/b/b.so", "", 0, 3900); /* in a thread of its own: no line */
	now = pl_snapshot_take(sites);

	pl_pools_make(now, before, 8000, &pools);
	cr_assert_eq(pools.count, 2);
	cr_assert_str_eq(pools.items[0].module, "/site-packages/a/a.so");
	cr_assert_str_eq(pools.items[0].allocator, "jemalloc");
	cr_assert_eq(pools.items[0].mapped, 12100);
	cr_assert_eq(pools.items[0].size, 8000 * 12100LL / 16000);
	cr_assert_eq(pools.items[0].line_count, 3);
	cr_assert_eq(pools.items[0].lines[0]->line, 3);
	cr_assert_eq(pools.items[0].lines[1]->line, 4);
	cr_assert_eq(pools.items[0].lines[2]->line, 2);
	cr_assert_eq(pools.items[1].line_count, 0);

	pl_pools_make(now, NULL, 500, &pools);
	cr_assert_eq(pools.items[0].mapped, 13100);

	/* In no row. */
	cr_assert_eq(pl_rows_make(now, NULL, &options, &rows), 0);
	cr_assert_eq(rows.count, 0);
	cr_assert_eq(rows.total.size, 0);
	pl_rows_free(&rows);
	pl_snapshot_free(before);
	pl_snapshot_free(now);
	pl_sites_free(sites);
}

/* Nothing is mapped: memory that was there before fills up. */
Test(pools, who_allocates)
{
	const struct pl_native_caller other = {.module = "/site-packages/b/b.so"};
	struct pl_native_caller caller = {.symbol = "arrow::AllocateBuffer"};
	struct pl_snapshot *before, *now;
	struct pl_pools pools;

	sites = pl_sites_new();
	caller.module = pl_sites_string(sites, "/site-packages/a/a.so");
	map("/site-packages/a/a.so", "", 0, 1000);
	for (int line = 1; line <= 5; line++) {
		const struct pl_frame frame = {pl_sites_string(sites, "/app/x.py"), "work", line};
		uint32_t site = pl_sites_intern_native(sites, &frame, 1, false, line == 4 ? &other : &caller);

		pl_sites_totals(sites, site)->allocated_size = line == 1 ? 9000 : 0;
	}
	before = pl_snapshot_take(sites);
	for (uint32_t site = 2; site < pl_sites_count(sites); site++) {
		pl_sites_totals(sites, site)->allocated_size = 1000 * site;
		pl_sites_totals(sites, site)->freed_size = 1000 * site;
	}
	now = pl_snapshot_take(sites);
	pl_pools_make(now, before, 500, &pools);
	cr_assert_eq(pools.count, 1);
	cr_assert_eq(pools.items[0].lines_by, PL_POOL_ALLOCATED);
	cr_assert_eq(pools.items[0].line_count, 3);
	cr_assert_eq(pools.items[0].lines[0]->line, 5);
	cr_assert_eq(pools.items[0].lines[1]->line, 3);
	cr_assert_eq(pools.items[0].lines[2]->line, 2);
	pl_snapshot_free(before);
	pl_snapshot_free(now);
	pl_sites_free(sites);
}

static void work(const char *library, const char *file, int line, uint64_t allocated, uint64_t freed)
{
	const struct pl_frame frames[2] = {
		{pl_sites_string(sites, library), "make", 7},
		{pl_sites_string(sites, file), "work", line},
	};
	uint32_t site = pl_sites_intern(sites, PL_SITE_PYTHON, frames, 2, false);

	pl_sites_totals(sites, site)->allocated_count += allocated;
	pl_sites_totals(sites, site)->freed_count += freed;
	pl_sites_totals(sites, site)->allocated_size += 48 * allocated;
	pl_sites_totals(sites, site)->freed_size += 48 * freed;
}

/* A line that allocates and frees finds the pool full; it was another one that has filled it, and whose wrappers stay. */
Test(pools, what_stays_of_the_package)
{
	static const char object[] = "/a/site-packages/_polars_runtime_32/x.so";
	struct pl_snapshot *before, *now;
	struct pl_pools pools;

	sites = pl_sites_new();
	work("/a/site-packages/polars/frame.py", "/app/x.py", 3, 5000, 0);
	before = pl_snapshot_take(sites);
	map(object, "/app/x.py", 2, 3000);
	work("/a/site-packages/polars/frame.py", "/app/x.py", 1, 100, 0);
	work("/a/site-packages/polars/frame.py", "/app/x.py", 2, 5000, 4998);
	/* Neither another library, nor the program's own file of that name. */
	work("/a/site-packages/polarity/frame.py", "/app/x.py", 4, 9000, 0);
	work("/app/polars/frame.py", "/app/x.py", 5, 9000, 0);
	now = pl_snapshot_take(sites);
	pl_pools_make(now, before, 500, &pools);
	cr_assert_eq(pools.count, 1);
	cr_assert_eq(pools.items[0].lines_by, PL_POOL_KEPT);
	cr_assert_eq(pools.items[0].line_count, 1);
	cr_assert_eq(pools.items[0].lines[0]->line, 1);
	pl_snapshot_free(before);
	pl_snapshot_free(now);
	pl_sites_free(sites);
}

/* Its own threads allocate, and nothing stays but in the pool. */
Test(pools, where_the_package_works)
{
	const char *object;
	struct pl_native_caller caller = {.symbol = "arrow::PoolBuffer::Reserve"};
	struct pl_frame frame;
	struct pl_snapshot *now;
	struct pl_pools pools;
	uint32_t site;

	sites = pl_sites_new();
	object = caller.module = pl_sites_string(sites, "/a/site-packages/pyarrow/libarrow.so.2100");
	frame = (struct pl_frame){pl_sites_string(sites, "/app/x.py"), "work", 2};
	map(object, "", 0, 1000);
	site = pl_sites_intern_native(sites, NULL, 0, false, &caller);
	pl_sites_totals(sites, site)->allocated_size = pl_sites_totals(sites, site)->freed_size = 80 << 20;
	pl_sites_totals(sites, site)->allocated_count = pl_sites_totals(sites, site)->freed_count = 20;
	site = pl_sites_intern_native(sites, &frame, 1, false, &caller);
	pl_sites_totals(sites, site)->allocated_size = pl_sites_totals(sites, site)->freed_size = 20000;
	pl_sites_totals(sites, site)->allocated_count = pl_sites_totals(sites, site)->freed_count = 120;
	work("/a/site-packages/pyarrow/pandas_compat.py", "/app/x.py", 1, 900, 899);
	now = pl_snapshot_take(sites);
	pl_pools_make(now, NULL, 500, &pools);
	cr_assert_eq(pools.items[0].lines_by, PL_POOL_WORKED);
	cr_assert_eq(pools.items[0].line_count, 1);
	cr_assert_eq(pools.items[0].lines[0]->line, 1);
	pl_snapshot_free(now);
	pl_sites_free(sites);
}
