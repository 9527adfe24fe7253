/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_LIVE_HISTORY_H
#define PYLEAK_LIVE_HISTORY_H

#include "pyleak/stats.h"

/*
 * How the sizes of all sites went, from the first snapshot on, in a bounded number of points: when there is no room for
 * another, every second one goes and from then on they are twice as far apart. The last point is always the newest
 * snapshot.
 */
enum { LIVE_POINTS_MAX = 120 };

struct live_point {
	int64_t at_ns;
	uint64_t rss;
	double tracked; /* bytes that live, of all sites */
	float *sizes;   /* [count] of each site: a chart needs no more digits */
	size_t count;
};

struct live_history {
	struct live_point points[LIVE_POINTS_MAX];
	size_t count;
	int64_t spacing_ns; /* at least; set at the start */
};

/* 0 or -ENOMEM. */
int live_history_add(struct live_history *history, const struct pl_snapshot *snapshot);
void live_history_free(struct live_history *history);

/* The size of a row at each point; bytes. */
void live_history_row(const struct live_history *history, const struct pl_sites *sites, const struct pl_row *row,
		      enum pl_group group_by, double ret_values[LIVE_POINTS_MAX]);

#endif
