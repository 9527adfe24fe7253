/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/account.h"
#include "pyleak/places.h"

/* -- growth ---------------------------------------------------------------------------------------- */

enum { MIB = 1 << 20 };

static struct pl_account account_of(int64_t rss)
{
	struct pl_account account = {.taken = true, .rss = (uint64_t)rss, .alignment = 16};

	for (int part = 0; part < PL_ACCOUNT_PARTS; part++)
		account.known[part] = true;
	account.parts[PL_ACCOUNT_OTHER] = rss;
	return account;
}

static int64_t sum(const struct pl_rss_growth *growth)
{
	int64_t all = 0;

	for (int cause = 0; cause < PL_CAUSES; cause++)
		all += growth->causes[cause];
	return all;
}

Test(growth, a_leak)
{
	struct pl_account before = account_of(100 * MIB), now = account_of(137 * MIB);
	struct pl_rss_growth growth;

	now.parts[PL_ACCOUNT_ARENAS_FREE] = 6 * MIB;
	pl_rss_growth_compute(&before, &now, 29 * MIB, MIB / 2, 0, &growth);
	cr_assert(growth.known);
	cr_assert_eq(sum(&growth), 37 * MIB);
	cr_assert_eq(growth.causes[PL_CAUSE_UNEXPLAINED], 3 * MIB / 2);
	cr_assert_not(growth.fragmentation);
}

/* What is given out and not used yet is in the lines, and not in memory; pools are in memory, and in no line. */
Test(growth, untouched_and_pools)
{
	struct pl_account before = account_of(100 * MIB), now = account_of(130 * MIB);
	struct pl_rss_growth growth;

	before.untouched = 2 * MIB;
	now.untouched = 12 * MIB;
	now.pools = 8 * MIB;
	pl_rss_growth_compute(&before, &now, 30 * MIB, 0, 0, &growth);
	cr_assert_eq(growth.causes[PL_CAUSE_UNTOUCHED], -10 * MIB);
	cr_assert_eq(growth.causes[PL_CAUSE_POOLS], 8 * MIB);
	cr_assert_eq(growth.causes[PL_CAUSE_UNEXPLAINED], 2 * MIB);
	cr_assert_eq(sum(&growth), 30 * MIB);
}

/* A worker that comes brings 20 MiB, of which 6 MiB are free; what it grows by later is growth. One that ends takes them. */
Test(growth, processes_that_come_and_end)
{
	struct pl_account before = account_of(100 * MIB), now = account_of(123 * MIB);
	struct pl_rss_growth growth;

	now.parts[PL_ACCOUNT_ARENAS_FREE] = 7 * MIB;
	now.parts[PL_ACCOUNT_OTHER] = 116 * MIB;
	now.pools = 3 * MIB;
	now.apart[PL_ACCOUNT_ARENAS_FREE] = 6 * MIB;
	now.apart[PL_ACCOUNT_OTHER] = 14 * MIB;
	now.apart[PL_ACCOUNT_APART_POOLS] = 3 * MIB;
	pl_rss_growth_compute(&before, &now, 2 * MIB, 0, 0, &growth);
	cr_assert_eq(growth.causes[PL_CAUSE_PROCESSES], 20 * MIB);
	cr_assert_eq(growth.causes[PL_CAUSE_ARENAS_FREE], MIB);
	cr_assert_eq(growth.causes[PL_CAUSE_POOLS], 0);
	cr_assert_eq(growth.causes[PL_CAUSE_UNEXPLAINED], 0);
	cr_assert_eq(sum(&growth), 23 * MIB);
	pl_rss_growth_compute(&now, &before, -2 * MIB, 0, 0, &growth);
	cr_assert_eq(growth.causes[PL_CAUSE_PROCESSES], -20 * MIB);
	cr_assert_eq(growth.causes[PL_CAUSE_UNEXPLAINED], 0);
	/* What is free in one that comes is no fragmentation. */
	now = account_of(140 * MIB);
	now.parts[PL_ACCOUNT_ARENAS_FREE] = now.apart[PL_ACCOUNT_ARENAS_FREE] = 30 * MIB;
	pl_rss_growth_compute(&before, &now, 0, 0, 0, &growth);
	cr_assert_not(growth.fragmentation);
}

Test(growth, fragmentation)
{
	struct pl_account before = account_of(100 * MIB), now = account_of(140 * MIB);
	struct pl_rss_growth growth;

	now.parts[PL_ACCOUNT_ARENAS_FREE] = 30 * MIB;
	now.class_free[3] = 10 * MIB;
	now.class_free[6] = 16 * MIB;
	pl_rss_growth_compute(&before, &now, MIB, 0, 0, &growth);
	cr_assert(growth.fragmentation);
	cr_assert_eq(growth.class_size, 48);
	cr_assert_eq(sum(&growth), 40 * MIB);
	/* Where as much stays, or nobody knows what it is. */
	pl_rss_growth_compute(&before, &now, 16 * MIB, 0, 0, &growth);
	cr_assert_not(growth.fragmentation);
	now.parts[PL_ACCOUNT_ARENAS_FREE] = 22 * MIB;
	pl_rss_growth_compute(&before, &now, MIB, 0, 0, &growth);
	cr_assert_not(growth.fragmentation);
	now.parts[PL_ACCOUNT_ARENAS_FREE] = 30 * MIB;
	/* pyleak's own growth is no reason to call it something else. */
	now.rss += 200 * MIB;
	now.parts[PL_ACCOUNT_OWN] = 200 * MIB;
	pl_rss_growth_compute(&before, &now, MIB, 0, 0, &growth);
	cr_assert(growth.fragmentation);
	/* What was free before is no growth. */
	before.parts[PL_ACCOUNT_ARENAS_FREE] = 29 * MIB + 1;
	pl_rss_growth_compute(&before, &now, MIB, 0, 0, &growth);
	cr_assert_not(growth.fragmentation);
}

/* A part that one of both does not know is in what is left. */
Test(growth, unknown_parts)
{
	struct pl_account before = account_of(100 * MIB), now = account_of(140 * MIB);
	struct pl_rss_growth growth;

	now.parts[PL_ACCOUNT_HEAP_FREE] = 30 * MIB;
	before.known[PL_ACCOUNT_HEAP_FREE] = false;
	pl_rss_growth_compute(&before, &now, 0, 0, 0, &growth);
	cr_assert_eq(growth.causes[PL_CAUSE_HEAP_FREE], 0);
	cr_assert_eq(growth.causes[PL_CAUSE_UNEXPLAINED], 40 * MIB);
	before.taken = false;
	pl_rss_growth_compute(&before, &now, 0, 0, 0, &growth);
	cr_assert_not(growth.known);
}

Test(growth, several_processes)
{
	struct pl_account total = account_of(100 * MIB), one = account_of(10 * MIB);

	total.parts[PL_ACCOUNT_HEAP_USED] = 30 * MIB;
	total.parts[PL_ACCOUNT_OTHER] = 70 * MIB;
	one.known[PL_ACCOUNT_HEAP_USED] = false;
	one.alignment = 8;
	pl_account_add(&total, &one);
	cr_assert_eq(total.rss, 110 * MIB);
	cr_assert_not(total.known[PL_ACCOUNT_HEAP_USED]);
	cr_assert_eq(total.parts[PL_ACCOUNT_OTHER], 110 * MIB);
	cr_assert_eq(total.alignment, 8);
	one.taken = false;
	pl_account_add(&total, &one);
	cr_assert_not(total.taken);
}

Test(growth, rounding)
{
	cr_assert_eq(pl_account_rounding(48, 16), 0);
	cr_assert_eq(pl_account_rounding(28, 16), 4);
	cr_assert_eq(pl_account_rounding(40, 8), 0);
	cr_assert_eq(pl_account_rounding(0, 16), 16);
	cr_assert_eq(pl_account_rounding(512, 16), 0);
	cr_assert_eq(pl_account_rounding(513, 16), 15);
	cr_assert_eq(pl_account_rounding(520, 16), 8);
	cr_assert_eq(pl_account_rounding(521, 16), 23);
	/* Of malloc's small ones: 8 bytes in front, 32 at least. */
	cr_assert_eq(pl_account_malloc_rounding(1), 31);
	cr_assert_eq(pl_account_malloc_rounding(24), 8);
	cr_assert_eq(pl_account_malloc_rounding(25), 23);
	cr_assert_eq(pl_account_malloc_rounding(40), 8);
}

/* The mean of all, whatever the order. */
Test(account, rounding_of_several_processes)
{
	static const double roundings[] = {2, 4, 6, 8, 5};
	struct pl_account sum = {.taken = true, .rounding = roundings[0]};

	for (size_t i = 1; i < sizeof(roundings) / sizeof(roundings[0]); i++) {
		const struct pl_account one = {.taken = true, .rounding = roundings[i]};

		pl_account_add(&sum, &one);
	}
	cr_assert_float_eq(sum.rounding, 5, 1e-9);
}

/* -- what lies where ------------------------------------------------------------------------------- */

struct put {
	enum pl_place_kind kind;
	const char *name;
	int64_t size;
};

static struct pl_places make_places(const struct put *items, size_t count)
{
	struct pl_places places = {.items = calloc(count, sizeof(*places.items)), .count = count};

	for (size_t i = 0; i < count; i++)
		places.items[i] = (struct pl_place){.kind = items[i].kind, .name = strdup(items[i].name), .size = items[i].size};
	pl_places_merge(&places);
	return places;
}

Test(places, explain)
{
	static const struct put old[] = {{PL_PLACE_OWN, "", 5 * MIB}, {PL_PLACE_FILE, "/b", MIB}, {PL_PLACE_OWN, "", MIB}};
	static const struct put new[] = {{PL_PLACE_FILE, "/a", 30 * MIB}, {PL_PLACE_OWN, "", 26 * MIB}, {PL_PLACE_DATA, "/lib.so", 2 * MIB}};
	struct pl_places before = make_places(old, 3), now = make_places(new, 3), none = {.items = NULL};
	struct pl_account first = {.taken = true, .rss = 100 * MIB}, second = {.taken = true, .rss = 200 * MIB};
	struct pl_rss_growth growth;
	struct pl_places_growth grown;

	cr_assert_eq(before.count, 2);
	first.known[PL_ACCOUNT_HEAP_USED] = second.known[PL_ACCOUNT_HEAP_USED] = true;
	first.known[PL_ACCOUNT_FILES] = second.known[PL_ACCOUNT_FILES] = true;
	second.parts[PL_ACCOUNT_HEAP_USED] = 60 * MIB;
	second.parts[PL_ACCOUNT_FILES] = 29 * MIB;
	now.heap_tracked = 20 * MIB;
	pl_rss_growth_compute(&first, &second, 20 * MIB, 0, 0, &growth);
	cr_assert_eq(growth.causes[PL_CAUSE_UNEXPLAINED], 51 * MIB);
	pl_places_explain(&before, &now, &first, &second, &growth, &grown);
	/* 20 MiB more of its own, and 2 of data; in the heap 40 of which no row has anything, but no more than is left. */
	cr_assert_eq(growth.causes[PL_CAUSE_MAPPED], 22 * MIB);
	cr_assert_eq(growth.causes[PL_CAUSE_HEAP_USED], 29 * MIB);
	cr_assert_eq(growth.causes[PL_CAUSE_UNEXPLAINED], 0);
	cr_assert_eq(grown.count, 4);
	cr_assert_str_eq(grown.items[0].name, "/a");
	cr_assert_eq(grown.items[0].size, 30 * MIB);
	cr_assert_str_eq(grown.items[3].name, "/b");
	cr_assert_eq(grown.items[3].size, -MIB);
	/* Nothing known, nothing taken. */
	pl_rss_growth_compute(&first, &second, 20 * MIB, 0, 0, &growth);
	pl_places_explain(NULL, &now, &first, &second, &growth, &grown);
	cr_assert_eq(growth.causes[PL_CAUSE_UNEXPLAINED], 51 * MIB);
	pl_places_explain(&none, &now, &first, &second, &growth, &grown);
	cr_assert_eq(grown.own, 28 * MIB);
	pl_places_free(&before);
	pl_places_free(&now);
}
