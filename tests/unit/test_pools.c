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
