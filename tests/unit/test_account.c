/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include "pyleak/account.h"

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
