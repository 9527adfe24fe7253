/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "pyleak/cleanup.h"
#include "pyleak/units.h"
#include "pyleak/verdict.h"
#include "trend.h"

/* pyleak(1), "VERDICTS", explains these to the reader of a report; tests/unit/test_verdict_noise.c counts how often
 * they err. */
#define LEAST_WINDOWS 3	   /* before that nothing is said */
#define DECIDED_WINDOWS 6  /* from here on what shows no trend is noise, before it is too early to say */
#define TAIL_WINDOWS 8	   /* the later half is judged by itself if it has so many */
#define TREND_CHANCE 0.05  /* Mann and Kendall: a trend is less probable by chance */
#define DRIFT_CHANCE 0.001 /* Student: so is a mean growth for a window, where it is 0 in truth */
#define DRIFT_STEPS 6	   /* windows are put together as long as there remain so many */
#define DECLINE_RATIO 0.8  /* of the later half's rate to the earlier half's: what is above is no decline */
#define DECLINE_CHANCE 0.05
#define ENDED_RATIO 0.95 /* the same of a later half, after a decline: it is doubted longer */
#define ENDED_CHANCE 0.2
#define PLATEAU_SHARE 0.25 /* of the whole growth: what the later half of a plateau spreads over at most */
#define WORTH_SHARE 0.02   /* of the whole growth, and what a later half has to have of it to count */
#define BEYOND_SHARE 0.25  /* of the later half's growth: what of it has left the earlier range */

#define NSEC_PER_HOUR (3600.0 * PL_NSEC_PER_SEC)

/* A series, or the later part of one, as the statistics want it. */
struct stretch {
	double times[PL_HISTORY_POINTS], sizes[PL_HISTORY_POINTS]; /* [points] */
	double least_variance;					   /* of the rates from one to the next */
	size_t points;
};

/* Blocks come one by one: growth by few of them is at least as irregular as that many independent events would be. So
 * three windows with one block each are no evidence yet. A block that is only made larger is as many events as there
 * were allocations. */
static double least_variance(const struct pl_point *points, size_t count)
{
	double events = 0, bytes = 0, hours = (double)(points[count - 1].taken_ns - points[0].taken_ns) / NSEC_PER_HOUR;

	for (size_t i = 1; i < count; i++) {
		double blocks = fabs((double)points[i].count - (double)points[i - 1].count);

		events += blocks > 0 ? blocks : (double)points[i].allocated - (double)points[i - 1].allocated;
		bytes += fabs((double)points[i].size - (double)points[i - 1].size);
	}
	if (events <= 0 || hours <= 0)
		return 0;

	/* Of the growth in a window: (bytes an event)² × events a window. */
	double windows = (double)(count - 1), event = bytes / events, window = hours / windows;

	return event * event * events / windows / (window * window);
}

static void stretch_make(struct stretch *stretch, const struct pl_point *points, size_t count)
{
	stretch->points = count;
	for (size_t i = 0; i < count; i++) {
		stretch->times[i] = (double)(points[i].taken_ns - points[0].taken_ns) / NSEC_PER_HOUR;
		stretch->sizes[i] = (double)points[i].size;
	}
	stretch->least_variance = least_variance(points, count);
}

/* Bytes an hour. Two snapshots are never quite at the same time. */
static double rate_between(const struct stretch *stretch, size_t from, size_t to)
{
	return (stretch->sizes[to] - stretch->sizes[from]) / fmax(stretch->times[to] - stretch->times[from], 1e-9);
}

/* Whether the size went up by more than one that wanders would. Of a leak under a sawtooth the windows differ more
 * than twos or fours of them, so these are looked at as well. */
static bool drifts(const struct stretch *stretch)
{
	size_t windows = stretch->points - 1, scales = 1;
	double least = 1;

	for (size_t step = 2; windows / step >= DRIFT_STEPS; step *= 2)
		scales++;
	for (size_t scale = 0, step = 1; scale < scales; scale++, step *= 2) {
		double rates[PL_HISTORY_POINTS];
		size_t count = windows / step;

		for (size_t i = 0; i < count; i++) {
			size_t to = windows - i * step;

			rates[i] = rate_between(stretch, to - step, to);
		}
		least = fmin(least, trend_drift(rates, count, stretch->least_variance / (double)step));
	}
	return least < DRIFT_CHANCE / (double)scales;
}

/* Higher and higher, against noise around a level too. */
static bool rises(const struct stretch *stretch)
{
	return trend_rising(stretch->sizes, stretch->points) < TREND_CHANCE && drifts(stretch);
}

/* The later half grew more slowly than the earlier one, and it went down bit by bit. */
static bool declines(const struct stretch *stretch, double ratio, double chance)
{
	size_t windows = stretch->points - 1, middle = windows / 2;
	double earlier = rate_between(stretch, 0, middle), later = rate_between(stretch, windows - middle, windows);
	double down[PL_HISTORY_POINTS];

	for (size_t i = 0; i < windows; i++)
		down[i] = -rate_between(stretch, i, i + 1);
	return later <= ratio * earlier && trend_rising(down, windows) < chance;
}

/* It grew, and stays where it got to. */
static bool is_plateau(const struct stretch *stretch)
{
	size_t last = stretch->points - 1;
	double growth = stretch->sizes[last] - stretch->sizes[0], low = INFINITY, high = -INFINITY;

	for (size_t i = last - last / 2; i <= last; i++) {
		low = fmin(low, stretch->sizes[i]);
		high = fmax(high, stretch->sizes[i]);
	}
	return high - low <= PLATEAU_SHARE * growth;
}

/* Beyond all that was before point `from`: what only fell and rises again is not. And by more than the last few blocks
 * that a full cache still exchanges for those which pyleak has not seen come. */
static bool is_beyond(const struct pl_point *points, size_t count, size_t from)
{
	double high = -INFINITY, last = (double)points[count - 1].size, growth = last - (double)points[from].size;

	for (size_t i = 0; i < from; i++)
		high = fmax(high, (double)points[i].size);
	return last > high + BEYOND_SHARE * growth && growth >= WORTH_SHARE * (last - (double)points[0].size);
}

static void measure(const struct stretch *stretch, const struct pl_point *points, struct pl_verdict *verdict)
{
	struct trend_slope slope = trend_slope(stretch->times, stretch->sizes, stretch->points);
	const struct pl_point *first = &points[0], *last = &points[stretch->points - 1];

	verdict->growth = PL_GROWTH_STEADY;
	verdict->rate = slope.slope;
	verdict->rate_low = slope.low;
	verdict->rate_high = slope.high;
	if (last->allocated > first->allocated) {
		double allocated = (double)(last->allocated - first->allocated);

		verdict->kept = fmin(fmax((double)(last->count - first->count) / allocated, 0), 1);
		verdict->size_per_block = (double)(last->size - first->size) / allocated;
	}
}

void pl_verdict_judge(const struct pl_series *series, struct pl_verdict *ret)
{
	const struct pl_point *points = series->points;
	size_t count = series->count, windows;
	struct stretch whole, tail;
	bool whole_rises, whole_declines;

	*ret = (struct pl_verdict){.growth = PL_GROWTH_NONE};
	if (count < 2)
		return;
	/* ^C, and a stride that is not over, make a last window which is too short to weigh as much as the others. */
	if (count > LEAST_WINDOWS + 1 && points[count - 1].taken_ns - points[count - 2].taken_ns <
						 (points[count - 2].taken_ns - points[count - 3].taken_ns) / 2)
		count--;
	windows = count - 1;
	ret->windows = windows;
	ret->watched_ns = points[windows].taken_ns - points[0].taken_ns;
	if (points[windows].size <= points[0].size)
		return;
	ret->growth = PL_GROWTH_EARLY;
	if (windows < LEAST_WINDOWS)
		return;

	stretch_make(&whole, points, count);
	whole_rises = rises(&whole);
	whole_declines = declines(&whole, DECLINE_RATIO, DECLINE_CHANCE);
	if (whole_rises && !whole_declines) {
		measure(&whole, points, ret);
		return;
	}
	/* A leak beside a cache that filled at first, or one that began later. */
	if (windows / 2 >= TAIL_WINDOWS) {
		size_t from = windows - windows / 2;

		stretch_make(&tail, points + from, count - from);
		if (rises(&tail) && !declines(&tail, ENDED_RATIO, ENDED_CHANCE) && is_beyond(points, count, from)) {
			measure(&tail, points + from, ret);
			return;
		}
	}
	if (whole_rises || (windows >= DECIDED_WINDOWS && is_plateau(&whole)))
		ret->growth = PL_GROWTH_LEVELLING;
	else if (windows >= DECIDED_WINDOWS)
		ret->growth = PL_GROWTH_NOISE;
}

int pl_verdicts_make(
	const struct pl_history *history, const struct pl_rows *rows, size_t count, struct pl_verdict *ret)
{
	pl_autofree struct pl_series *series = calloc(count ? count : 1, sizeof(*series));
	int code = series ? pl_history_series(history, rows, count, series) : -ENOMEM;

	for (size_t i = 0; code == 0 && i < count; i++)
		pl_verdict_judge(&series[i], &ret[i]);
	return code;
}

const char *pl_growth_name(enum pl_growth growth)
{
	static const char *const names[] = {
		[PL_GROWTH_NONE] = "none",
		[PL_GROWTH_EARLY] = "early",
		[PL_GROWTH_STEADY] = "steady",
		[PL_GROWTH_LEVELLING] = "levelling",
		[PL_GROWTH_NOISE] = "noise",
	};

	return names[growth];
}

int64_t pl_verdict_time_to_fill(const struct pl_verdict *verdict, uint64_t room)
{
	double ns = verdict->rate > 0 ? (double)room / verdict->rate * NSEC_PER_HOUR : INFINITY;

	return ns < (double)(INT64_MAX / 2) ? (int64_t)ns : INT64_MAX;
}
