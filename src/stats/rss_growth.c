/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "pyleak/account.h"

enum { FRAGMENTATION_MIN = 1 << 20, MALLOC_HEADER = 8, MALLOC_MIN = 32, MALLOC_ALIGNMENT = 16, PYMALLOC_MAX = 512 };

uint32_t pl_account_rounding(uint64_t size, uint32_t alignment)
{
	uint64_t footprint;

	if (size <= PYMALLOC_MAX) {
		footprint = (size ? size + alignment - 1 : alignment) & ~(uint64_t)(alignment - 1);
	} else {
		footprint = (size + MALLOC_HEADER + MALLOC_ALIGNMENT - 1) & ~(uint64_t)(MALLOC_ALIGNMENT - 1);
		if (footprint < MALLOC_MIN)
			footprint = MALLOC_MIN;
	}
	return (uint32_t)(footprint - size);
}

/* Figures of a hostile process may be anything; they must not overflow. */
static int64_t minus(int64_t a, int64_t b)
{
	return (int64_t)((uint64_t)a - (uint64_t)b);
}

static int64_t plus(int64_t a, int64_t b)
{
	return (int64_t)((uint64_t)a + (uint64_t)b);
}

static int64_t difference(const struct pl_account *before, const struct pl_account *now, enum pl_account_part part)
{
	return before->known[part] && now->known[part] ? minus(now->parts[part], before->parts[part]) : 0;
}

/* Of the class whose pools hold most of what became free; 0: most of it is in pools that are free as a whole. */
static uint32_t largest_class(const struct pl_account *before, const struct pl_account *now)
{
	int64_t most = 0, sum = 0;
	uint32_t size = 0;

	for (uint32_t i = 0; i < PL_ACCOUNT_CLASSES; i++) {
		int64_t grown = (int64_t)(now->class_free[i] - before->class_free[i]);

		if (grown > most) {
			most = grown;
			size = i * 8;
		}
		sum += grown > 0 ? grown : 0;
	}
	return sum > difference(before, now, PL_ACCOUNT_ARENAS_FREE) / 2 ? size : 0;
}

void pl_rss_growth_compute(const struct pl_account *before, const struct pl_account *now, int64_t tracked, int64_t rounding,
	int64_t older, struct pl_rss_growth *ret)
{
	static const enum pl_account_part parts[PL_CAUSES] = {
		[PL_CAUSE_ARENAS_FREE] = PL_ACCOUNT_ARENAS_FREE,
		[PL_CAUSE_HEAP_FREE] = PL_ACCOUNT_HEAP_FREE,
		[PL_CAUSE_FILES] = PL_ACCOUNT_FILES,
		[PL_CAUSE_SHARED] = PL_ACCOUNT_SHARED,
		[PL_CAUSE_STACKS] = PL_ACCOUNT_STACKS,
		[PL_CAUSE_OWN] = PL_ACCOUNT_OWN,
	};
	int64_t held, grown;

	memset(ret, 0, sizeof(*ret));
	if (!before->taken || !now->taken)
		return;
	ret->known = true;
	ret->rss = (int64_t)(now->rss - before->rss);
	ret->causes[PL_CAUSE_TRACKED] = tracked;
	ret->causes[PL_CAUSE_ROUNDING] = rounding;
	ret->causes[PL_CAUSE_OLDER] = minus(0, older);
	if (before->known[PL_ACCOUNT_ARENAS_USED] && now->known[PL_ACCOUNT_ARENAS_USED])
		ret->causes[PL_CAUSE_ROUNDING] = plus(rounding, minus(now->arenas_overhead, before->arenas_overhead));
	ret->causes[PL_CAUSE_POOLS] = minus(now->pools, before->pools);
	ret->causes[PL_CAUSE_UNTOUCHED] = minus(before->untouched, now->untouched);
	for (int cause = PL_CAUSE_ARENAS_FREE; cause <= PL_CAUSE_OWN; cause++)
		ret->causes[cause] = difference(before, now, parts[cause]);
	ret->causes[PL_CAUSE_UNEXPLAINED] = ret->rss;
	for (int cause = 0; cause < PL_CAUSE_UNEXPLAINED; cause++)
		ret->causes[PL_CAUSE_UNEXPLAINED] = minus(ret->causes[PL_CAUSE_UNEXPLAINED], ret->causes[cause]);
	held = ret->causes[PL_CAUSE_ARENAS_FREE] + ret->causes[PL_CAUSE_HEAP_FREE];
	grown = minus(ret->rss, ret->causes[PL_CAUSE_OWN]);
	/* Where as much stays, or is not known, holes between what stays are not what it is. */
	ret->fragmentation = held >= FRAGMENTATION_MIN && grown > 0 && held > grown / 2 && tracked <= held / 2 &&
			     ret->causes[PL_CAUSE_UNEXPLAINED] <= held / 2;
	if (ret->causes[PL_CAUSE_ARENAS_FREE] > ret->causes[PL_CAUSE_HEAP_FREE])
		ret->class_size = largest_class(before, now);
}
