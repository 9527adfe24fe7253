/* SPDX-License-Identifier: MIT */
#include "order.h"

#include <stdlib.h>
#include <string.h>

struct order {
	const struct pl_sites *sites;
	enum pl_group group_by;
	enum pl_sort sort;
};

#define COMPARE(a, b) (((a) > (b)) - ((a) < (b)))

static uint64_t magnitude(int64_t number)
{
	return number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
}

static int compare_text(const char *a, const char *b)
{
	return strcmp(a ? a : "", b ? b : "");
}

static int compare_frames(const struct pl_frame *a, const struct pl_frame *b)
{
	int result = compare_text(a->filename, b->filename);

	return result ? result : COMPARE(a->line, b->line);
}

/* As tracemalloc compares two Traceback objects: from the oldest frame on. */
static int compare_traces(const struct pl_sites *sites, uint32_t a, uint32_t b)
{
	size_t a_count, b_count;
	const uint32_t *a_frames = pl_sites_trace(sites, a, &a_count, NULL);
	const uint32_t *b_frames = pl_sites_trace(sites, b, &b_count, NULL);

	for (size_t i = 1; i <= a_count && i <= b_count; i++) {
		int result = compare_frames(
			pl_sites_frame(sites, a_frames[a_count - i]), pl_sites_frame(sites, b_frames[b_count - i]));

		if (result)
			return result;
	}
	return COMPARE(a_count, b_count);
}

static int compare_key(const struct pl_row *a, const struct pl_row *b, enum pl_sort sort)
{
	switch (sort) {
	case PL_SORT_SIZE:
		return COMPARE(a->size, b->size);
	case PL_SORT_COUNT:
		return COMPARE(a->count, b->count);
	case PL_SORT_AVERAGE:
		return COMPARE(pl_row_average(a), pl_row_average(b));
	case PL_SORT_SIZE_DIFF:
		return COMPARE(magnitude(a->life_diff), magnitude(b->life_diff));
	case PL_SORT_COUNT_DIFF:
		return COMPARE(magnitude(a->count_diff), magnitude(b->count_diff));
	case PL_SORT_CHURN:
		return COMPARE(a->window.allocated_size, b->window.allocated_size);
	case PL_SORT_AGE:
		return COMPARE(b->born_ns, a->born_ns);
	}
	return 0;
}

/* The keys of Statistic._sort_key() and StatisticDiff._sort_key(), which tracemalloc sorts in
 * reverse, names included; then what makes the order total. */
static int ascending(const struct pl_row *a, const struct pl_row *b, const struct order *order)
{
	bool difference = order->sort == PL_SORT_SIZE_DIFF || order->sort == PL_SORT_COUNT_DIFF;
	int result = compare_key(a, b, order->sort);

	if (!result)
		result = COMPARE(a->size, b->size);
	if (!result && difference)
		result = COMPARE(magnitude(a->count_diff), magnitude(b->count_diff));
	if (!result)
		result = COMPARE(a->count, b->count);
	if (!result && order->group_by == PL_GROUP_TRACEBACK)
		result = compare_traces(order->sites, a->site, b->site);
	if (!result)
		result = compare_text(a->filename, b->filename);
	if (!result)
		result = COMPARE(a->line, b->line);
	if (!result)
		result = compare_text(a->function, b->function);
	if (!result)
		result = COMPARE(b->domain, a->domain); /* Python's before native ones */
	return result ? result : COMPARE(b->site, a->site);
}

static int descending(const void *a, const void *b, void *order)
{
	return ascending(b, a, order);
}

void rows_sort(
	struct pl_row *items, size_t count, const struct pl_sites *sites, enum pl_group group_by, enum pl_sort sort)
{
	struct order order = {sites, group_by, sort};

	if (count > 1)
		qsort_r(items, count, sizeof(*items), descending, &order);
}
