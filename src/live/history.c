/* SPDX-License-Identifier: MIT */
#include "history.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void thin_out(struct live_history *history)
{
	size_t kept = 0;

	for (size_t i = 0; i < history->count; i++) {
		if (i % 2 == 0)
			history->points[kept++] = history->points[i];
		else
			free(history->points[i].sizes);
	}
	history->count = kept;
	history->spacing_ns *= 2;
}

/* Where the next one goes: in the place of the last one, as long as that is too near to the one before it. */
static struct live_point *place(struct live_history *history, int64_t at_ns)
{
	struct live_point *points = history->points;

	if (history->count >= 2 && at_ns - points[history->count - 2].at_ns < history->spacing_ns) {
		free(points[history->count - 1].sizes);
		return &points[history->count - 1];
	}
	if (history->count == LIVE_POINTS_MAX)
		thin_out(history);
	return &points[history->count++];
}

int live_history_add(struct live_history *history, const struct pl_snapshot *snapshot)
{
	float *sizes = malloc((snapshot->count ? snapshot->count : 1) * sizeof(*sizes));
	double tracked = 0;

	if (!sizes)
		return -ENOMEM;
	for (size_t i = 0; i < snapshot->count; i++) {
		const struct pl_totals *totals = &snapshot->totals[i];
		double size = totals->allocated_size > totals->freed_size ?
				      (double)(totals->allocated_size - totals->freed_size) :
				      0;

		if (pl_sites_domain(snapshot->sites, (uint32_t)i) >= PL_SITE_OLDER)
			size = 0;
		sizes[i] = (float)size;
		tracked += size;
	}
	*place(history, snapshot->taken_ns) = (struct live_point){
		.at_ns = snapshot->taken_ns,
		.rss = snapshot->rss,
		.tracked = tracked,
		.sizes = sizes,
		.count = snapshot->count,
	};
	return 0;
}

void live_history_free(struct live_history *history)
{
	for (size_t i = 0; i < history->count; i++)
		free(history->points[i].sizes);
	history->count = 0;
}

void live_history_row(const struct live_history *history, const struct pl_sites *sites, const struct pl_row *row,
	enum pl_group group_by, double ret_values[LIVE_POINTS_MAX])
{
	size_t count = history->count ? history->points[history->count - 1].count : 0;

	memset(ret_values, 0, LIVE_POINTS_MAX * sizeof(ret_values[0]));
	for (uint32_t site = 0; site < count; site++) {
		if (!pl_row_has_site(row, group_by, sites, site))
			continue;
		for (size_t i = 0; i < history->count; i++)
			if (site < history->points[i].count)
				ret_values[i] += (double)history->points[i].sizes[site];
	}
}
