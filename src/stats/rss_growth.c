/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "pyleak/account.h"

enum { FRAGMENTATION_MIN = 1 << 20, MALLOC_HEADER = 8, MALLOC_MIN = 32, MALLOC_ALIGNMENT = 16, PYMALLOC_MAX = 512 };

uint32_t pl_account_malloc_rounding(uint64_t size)
{
	uint64_t footprint = (size + MALLOC_HEADER + MALLOC_ALIGNMENT - 1) & ~(uint64_t)(MALLOC_ALIGNMENT - 1);

	return (uint32_t)((footprint < MALLOC_MIN ? MALLOC_MIN : footprint) - size);
}

uint32_t pl_account_rounding(uint64_t size, uint32_t alignment)
{
	if (size > PYMALLOC_MAX)
		return pl_account_malloc_rounding(size);
	return (uint32_t)(((size ? size + alignment - 1 : alignment) & ~(uint64_t)(alignment - 1)) - size);
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

/* What came with processes, less what went with them. */
static int64_t apart(const struct pl_account *before, const struct pl_account *now, int part)
{
	return minus(now->apart[part], before->apart[part]);
}

static int64_t difference(const struct pl_account *before, const struct pl_account *now, enum pl_account_part part)
{
	return before->known[part] && now->known[part] ? minus(minus(now->parts[part], before->parts[part]), apart(before, now, part)) :
							 0;
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
		ret->causes[PL_CAUSE_ROUNDING] = plus(rounding, minus(minus(now->arenas_overhead, before->arenas_overhead),
								      apart(before, now, PL_ACCOUNT_APART_OVERHEAD)));
	for (int part = 0; part < PL_ACCOUNT_PARTS; part++)
		ret->causes[PL_CAUSE_PROCESSES] = plus(ret->causes[PL_CAUSE_PROCESSES], apart(before, now, part));
	ret->causes[PL_CAUSE_POOLS] = minus(minus(now->pools, before->pools), apart(before, now, PL_ACCOUNT_APART_POOLS));
	ret->causes[PL_CAUSE_UNTOUCHED] =
		plus(minus(before->untouched, now->untouched), apart(before, now, PL_ACCOUNT_APART_UNTOUCHED));
	for (int cause = PL_CAUSE_ARENAS_FREE; cause <= PL_CAUSE_OWN; cause++)
		ret->causes[cause] = difference(before, now, parts[cause]);
	ret->causes[PL_CAUSE_UNEXPLAINED] = ret->rss;
	for (int cause = 0; cause < PL_CAUSE_UNEXPLAINED; cause++)
		ret->causes[PL_CAUSE_UNEXPLAINED] = minus(ret->causes[PL_CAUSE_UNEXPLAINED], ret->causes[cause]);
	held = ret->causes[PL_CAUSE_ARENAS_FREE] + ret->causes[PL_CAUSE_HEAP_FREE];
	grown = minus(minus(ret->rss, ret->causes[PL_CAUSE_OWN]), ret->causes[PL_CAUSE_PROCESSES]);
	/* Where as much stays, or is not known, holes between what stays are not what it is. */
	ret->fragmentation = held >= FRAGMENTATION_MIN && grown > 0 && held > grown / 2 && tracked <= held / 2 &&
			     ret->causes[PL_CAUSE_UNEXPLAINED] <= held / 2;
	if (ret->causes[PL_CAUSE_ARENAS_FREE] > ret->causes[PL_CAUSE_HEAP_FREE])
		ret->class_size = largest_class(before, now);
}
