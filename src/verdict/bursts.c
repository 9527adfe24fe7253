/* SPDX-License-Identifier: MIT */
#include "bursts.h"

#include <math.h>
#include <stdbool.h>

#define RAMP_SHARE 0.7	/* of the largest share that stays: a window with less is one of a burst */
#define RAMPS_SHARE 0.6 /* of all windows, at least, are none of bursts: what only goes up and down has fewer */
#define LEAST_LOWS 3
#define CHANCE_ERRORS 3.3
#define HALF_SHARE 0.25 /* of the rise from the first low to the last: what either half of them has, at least */

static double net(const struct pl_point *points, size_t at)
{
	return (double)points[at].count - (points[at].turned - points[0].turned);
}

static double allocated(const struct pl_point *points, size_t at)
{
	return (double)points[at].allocated - (double)points[at - 1].allocated;
}

/* Of what is allocated in a window, the share that is there at its end: between two bursts the same, however busy it is. */
static double share(const struct pl_point *points, size_t at)
{
	double came = allocated(points, at);

	return came > 0 ? (net(points, at) - net(points, at - 1)) / came : 0;
}

struct low {
	size_t at;
	/* What the burst left: what is there at the end of its window, or less by what may have come since. */
	double most, least;
};

/* Windows of a burst that follow each other are one. */
static size_t find_lows(const struct pl_point *points, size_t count, struct low *ret)
{
	double largest = 0;
	size_t lows = 0, ramps = 0;
	bool within = false;

	for (size_t i = 1; i < count; i++)
		largest = fmax(largest, share(points, i));
	for (size_t i = 1; i < count; i++) {
		const bool idle = allocated(points, i) <= 0 && points[i].count >= points[i - 1].count;
		const bool burst = share(points, i) < RAMP_SHARE * largest || points[i].count < points[i - 1].count;

		if (idle)
			continue;
		if (burst) {
			lows += !within;
			ret[lows - 1] = (struct low){i, net(points, i), net(points, i) - largest * fmax(allocated(points, i), 0)};
		}
		ramps += !burst;
		within = burst;
	}
	return (double)ramps >= RAMPS_SHARE * (double)(count - 1) ? lows : 0;
}

/* More than blocks that come and go one by one, each at its own time, would come to by chance. */
static bool is_by_chance(const struct pl_point *points, size_t count, double rise)
{
	double events = 0;

	for (size_t i = 1; i < count; i++)
		events += fabs(net(points, i) - net(points, i - 1));
	return rise <= CHANCE_ERRORS * sqrt(events);
}

/* One leaves less than one before it did, for certain: what the others left was garbage as well. */
static bool any_falls(const struct low *lows, size_t count)
{
	for (size_t i = 0; i < count; i++)
		for (size_t k = i + 1; k < count; k++)
			if (lows[k].most < lows[i].least)
				return true;
	return false;
}

/* Neither a step nor a start that is over. */
static bool goes_on(const struct low *lows, size_t count)
{
	const double least = HALF_SHARE * (lows[count - 1].most - lows[0].most), middle = lows[count / 2].most;

	return middle - lows[0].most >= least && lows[count - 1].most - middle >= least;
}

enum bursts bursts_judge(const struct pl_point *points, size_t count, struct pl_series *ret_lows)
{
	struct low lows[PL_HISTORY_POINTS];
	size_t found = find_lows(points, count, lows);

	ret_lows->count = 0;
	if (found < 2 || lows[found - 1].least <= lows[0].most || any_falls(lows, found) ||
		is_by_chance(points, count, lows[found - 1].most - lows[0].most))
		return BURSTS_NONE;
	if (found < LEAST_LOWS || !goes_on(lows, found))
		return BURSTS_LEAVE;
	for (size_t i = 0; i < found; i++)
		ret_lows->points[ret_lows->count++] = points[lows[i].at];
	return BURSTS_PILE;
}
