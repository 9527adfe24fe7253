/* SPDX-License-Identifier: MIT */
#include "stretch.h"

#include <math.h>

#include "pyleak/units.h"
#include "trend.h"

#define TREND_CHANCE 0.05  /* Mann and Kendall: a trend is less probable by chance */
#define DRIFT_CHANCE 0.001 /* Student: so is a mean growth for a window, where it is 0 in truth */
#define PILES_CHANCE 0.05  /* the same where nothing goes: such a size does not wander, it can only be bursts */
#define DRIFT_STEPS 6	   /* windows are put together as long as there remain so many */
#define DECLINE_RATIO 0.8  /* of the later half's rate to the earlier half's: what is above is no decline */
#define DECLINE_CHANCE 0.05
#define ENDED_RATIO 0.95 /* the same of a later half, after a decline: it is doubted longer */
#define ENDED_CHANCE 0.2
#define LASTS_RATIO 0.6	  /* with an error to either side the later half's rate is above that of the earlier one's */
#define LASTS_ERRORS 0.7  /* of so many standard errors */
#define LASTS_WINDOWS 6	  /* before that halves are too short to have one */
#define WORK_SHARE 0.4	  /* of an average window's work: with less a window is put together with the next */
#define WORK_WINDOWS 3
#define PILES_WINDOWS 5	  /* a start may be over by then */
#define TROUGHS 4		  /* as many, or they say nothing */
#define PILES_SHARE 0.02  /* of what was allocated: so much may go where "nothing goes" */

#define NSEC_PER_HOUR (3600.0 * PL_NSEC_PER_SEC)

/* Blocks come one by one: growth by few of them is at least as irregular as that many independent events would be. So
 * three windows with one block each are no evidence yet. A block that is only made larger is as many events as there
 * were allocations. */
static double least_variance(const struct pl_point *points, size_t count, const struct stretch *stretch)
{
	const size_t windows = stretch->points - 1;
	double events = 0, amount = 0, length = stretch->at[windows] - stretch->at[0];

	for (size_t i = 1; i < count; i++) {
		double blocks = fabs((double)points[i].count - (double)points[i - 1].count);

		events += blocks > 0 ? blocks : (double)points[i].allocated - (double)points[i - 1].allocated;
	}
	for (size_t i = 1; i < stretch->points; i++)
		amount += fabs(stretch->level[i] - stretch->level[i - 1]);
	if (events <= 0 || length <= 0)
		return 0;

	/* Of the growth in a window: (amount of an event)² × events a window. */
	double event = amount / events, window = length / (double)windows;

	return event * event * events / (double)windows / (window * window);
}

/* Bytes of a block of what has come: those that turned over are taken to be the same. */
static double bytes_per_block(const struct pl_point *points, size_t count)
{
	double blocks = (double)points[count - 1].count - (double)points[0].count;
	double bytes = (double)points[count - 1].size - (double)points[0].size;

	return blocks > 0 && bytes > 0 ? bytes / blocks : 0;
}

static bool piles_up(const struct pl_point *points, size_t count)
{
	const struct pl_point *first = &points[0], *last = &points[count - 1];
	double came = (double)last->allocated - (double)first->allocated, stayed = (double)last->count - (double)first->count;

	for (size_t i = 1; i < count; i++)
		if (points[i].count < points[i - 1].count)
			return false;
	return came > 0 && came - stayed <= PILES_SHARE * came && last->turned - first->turned <= PILES_SHARE * came;
}

/* What the process allocated besides. */
static double others(const struct pl_point *point)
{
	return (double)point->work - (double)point->allocated;
}

void stretch_make(const struct pl_point *points, size_t count, enum stretch_measure measure, enum stretch_axis axis,
	struct stretch *ret)
{
	const double block = measure == STRETCH_BLOCKS ? 1 : bytes_per_block(points, count);
	const double work = others(&points[count - 1]) - others(&points[0]);
	const double own = (double)points[count - 1].allocated - (double)points[0].allocated;
	const double least = WORK_SHARE * work / (double)(count - 1);

	*ret = (struct stretch){.piles_up = piles_up(points, count)};
	/* Of a process that does nothing else it says nothing. */
	if (axis == STRETCH_WORK && (work <= 0 || work < own))
		return;
	for (size_t i = 0; i < count; i++) {
		double at = axis == STRETCH_TIME ? (double)(points[i].taken_ns - points[0].taken_ns) / NSEC_PER_HOUR
						  : others(&points[i]) - others(&points[0]);
		double level = measure == STRETCH_BLOCKS ? (double)points[i].count : (double)points[i].size;

		/* The last point always, in the place of the one before it where they are too near. */
		if (axis == STRETCH_WORK && i && at - ret->at[ret->points - 1] < least) {
			if (i + 1 < count)
				continue;
			ret->points -= ret->points > 1;
		}
		ret->at[ret->points] = at;
		ret->level[ret->points++] = level - block * (points[i].turned - points[0].turned);
	}
	if (axis == STRETCH_WORK && ret->points < WORK_WINDOWS + 1)
		ret->points = 0;
	if (ret->points)
		ret->least_variance = least_variance(points, count, ret);
}

void stretch_troughs(const struct stretch *stretch, struct stretch *ret)
{
	*ret = (struct stretch){.least_variance = 0};
	for (size_t i = 1; i + 1 < stretch->points; i++) {
		if (stretch->level[i] >= stretch->level[i - 1] || stretch->level[i] > stretch->level[i + 1])
			continue;
		ret->at[ret->points] = stretch->at[i];
		ret->level[ret->points++] = stretch->level[i];
	}
	if (ret->points < TROUGHS)
		ret->points = 0;
}

/* Two snapshots are never quite at the same time. */
static double rate_between(const struct stretch *stretch, size_t from, size_t to)
{
	return (stretch->level[to] - stretch->level[from]) / fmax(stretch->at[to] - stretch->at[from], 1e-9);
}

/* Whether the level went up by more than one that wanders would. Of a leak under a sawtooth the windows differ more
 * than twos or fours of them, so these are looked at as well. */
static bool drifts(const struct stretch *stretch)
{
	const double chance = stretch->piles_up && stretch->points > PILES_WINDOWS ? PILES_CHANCE : DRIFT_CHANCE;
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
	return least < chance / (double)scales;
}

/* Higher and higher, against noise around a level too. */
static bool rises(const struct stretch *stretch)
{
	return trend_rising(stretch->level, stretch->points) < TREND_CHANCE && drifts(stretch);
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

/* Mean of the rates from a point on, and its standard error. */
static double mean_rate(const struct stretch *stretch, size_t from, size_t windows, double *ret_error)
{
	double mean = rate_between(stretch, from, from + windows), variance = 0;

	for (size_t i = from; i < from + windows; i++) {
		double off = rate_between(stretch, i, i + 1) - mean;

		variance += off * off / (double)(windows - 1);
	}
	*ret_error = sqrt(fmax(variance, stretch->least_variance) / (double)windows);
	return mean;
}

static bool lasts(const struct stretch *stretch)
{
	size_t windows = stretch->points - 1, half = windows / 2;
	double earlier_error, later_error;

	if (windows < LASTS_WINDOWS)
		return false;

	double earlier = mean_rate(stretch, 0, half, &earlier_error);
	double later = mean_rate(stretch, windows - half, half, &later_error);

	return later - LASTS_ERRORS * later_error > LASTS_RATIO * (earlier + LASTS_ERRORS * earlier_error);
}

enum course stretch_course(const struct stretch *stretch)
{
	if (stretch->points < 2 || stretch->level[stretch->points - 1] <= stretch->level[0])
		return COURSE_NONE;
	if (declines(stretch, DECLINE_RATIO, DECLINE_CHANCE))
		return rises(stretch) ? COURSE_DECLINES : COURSE_NONE;
	if (!rises(stretch))
		return COURSE_NONE;
	return lasts(stretch) ? COURSE_LASTS : COURSE_RISES;
}

double stretch_irregularity(const struct stretch *stretch)
{
	size_t windows = stretch->points ? stretch->points - 1 : 0;
	double mean = 0, middle = ((double)windows - 1) / 2, across = 0, along = 0, off = 0;

	if (windows < 3)
		return INFINITY;
	for (size_t i = 0; i < windows; i++) {
		double rate = rate_between(stretch, i, i + 1);

		mean += rate / (double)windows;
		along += ((double)i - middle) * ((double)i - middle);
		across += ((double)i - middle) * rate;
	}
	for (size_t i = 0; i < windows; i++) {
		double rate = rate_between(stretch, i, i + 1) - mean - across / along * ((double)i - middle);

		off += rate * rate / (double)(windows - 2);
	}
	return mean > 0 ? sqrt(off) / mean : INFINITY;
}

bool stretch_still_rises(const struct stretch *stretch)
{
	return stretch->points >= 2 && rises(stretch);
}

bool stretch_still_slows(const struct stretch *stretch)
{
	return stretch->points >= 2 && declines(stretch, ENDED_RATIO, ENDED_CHANCE);
}
