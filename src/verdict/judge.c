/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "bursts.h"
#include "pyleak/cleanup.h"
#include "pyleak/units.h"
#include "pyleak/verdict.h"
#include "stretch.h"
#include "trend.h"

/* pyleak-output(7), "VERDICTS", explains these to the reader of a report; tests/unit/test_verdict_recorded.c and
 * test_verdict_noise.c count how often they err. */
#define LEAST_WINDOWS 3	   /* before that nothing is said */
#define DECIDED_WINDOWS 6  /* from here on what shows no trend is noise, before it is too early to say */
#define TAIL_WINDOWS 8	   /* the later half is judged by itself if it has so many */
#define PLATEAU_SHARE 0.25 /* of the whole growth: what the later half of a plateau spreads over at most */
#define PLATEAU_WORK 0.5   /* and of the earlier half's work what the later half did, at least */
#define WORTH_SHARE 0.02   /* of the whole growth, and what a later half has to have of it to count */
#define BEYOND_SHARE 0.25  /* of the later half's growth: what of it has left the earlier range */
#define TURNED_SHARE 0.4   /* of the growth: what older blocks stand against, of a row that turns over */
#define TURNED_WINDOWS 0.3 /* and of the windows in which it grows, those in which they go */
#define GOES_ON_WINDOWS 4  /* a later half of fewer says nothing of that */
#define LATER_SHARE 0.25   /* of the whole growth: what the later half has to have of it, or it is over */
#define CONTAINER_BLOCKS 4 /* a row of so few, of which none comes and none goes for good */
#define CONTAINER_STEPS 3  /* how often they became larger: fewer times may be the last */

#define LARGER_SHARE 1.125 /* of what blocks had: what they have when they were made larger, a list by the least */
#define LARGER_NEARLY 0.875 /* of the blocks that there are: so many there were all the time */
#define LARGER_BLOCKS 0.5  /* of the blocks that came, or what took the place of smaller ones */

#define FORESEEN 100 /* times as long as it was watched */
#define NSEC_PER_HOUR (3600.0 * PL_NSEC_PER_SEC)

/* What its courses along time and work say of a measure. */
enum said { SAID_NOTHING, SAID_UNDECIDED, SAID_LEVELS, SAID_STEADY };

static enum said ask(const struct pl_point *points, size_t count, enum stretch_measure measure)
{
	struct stretch by_time, by_work;
	enum course time, work;

	stretch_make(points, count, measure, STRETCH_TIME, &by_time);
	stretch_make(points, count, measure, STRETCH_WORK, &by_work);
	time = stretch_course(&by_time);
	work = by_work.points ? stretch_course(&by_work) : time;
	/* By the clock a leak slows down where less is done, and a cache that fills does not where more is. Along which of
	 * the two it is the more regular says what it depends on. */
	if (work == COURSE_DECLINES)
		return time == COURSE_LASTS && stretch_irregularity(&by_time) < stretch_irregularity(&by_work) ? SAID_STEADY :
														   SAID_LEVELS;
	if (time == COURSE_LASTS || work == COURSE_LASTS)
		return SAID_STEADY;
	if (time == COURSE_DECLINES)
		return SAID_UNDECIDED;
	return time == COURSE_RISES || work == COURSE_RISES ? SAID_STEADY : SAID_NOTHING;
}

/* What it has without what turned over. */
static double net(const struct pl_point *points, size_t count, size_t at)
{
	double blocks = (double)points[count - 1].count - (double)points[0].count;
	double bytes = (double)points[count - 1].size - (double)points[0].size;
	double block = blocks > 0 && bytes > 0 ? bytes / blocks : 0;

	return (double)points[at].size - block * (points[at].turned - points[0].turned);
}

static double net_blocks(const struct pl_point *points, size_t at)
{
	return (double)points[at].count - (points[at].turned - points[0].turned);
}

/* It grew, and stays where it got to, though there is work to do: in bytes, and in number, as one table outweighs all else. */
static bool is_plateau(const struct pl_point *points, size_t count)
{
	size_t last = count - 1, middle = last - last / 2;
	double growth = net(points, count, last) - net(points, count, 0), low = INFINITY, high = -INFINITY;
	double grown = net_blocks(points, last) - net_blocks(points, 0), fewest = INFINITY, most = -INFINITY;
	double earlier = (double)(points[middle].work - points[0].work) / (double)middle;
	double later = (double)(points[last].work - points[middle].work) / (double)(last - middle);

	for (size_t i = middle; i <= last; i++) {
		low = fmin(low, net(points, count, i));
		high = fmax(high, net(points, count, i));
		fewest = fmin(fewest, net_blocks(points, i));
		most = fmax(most, net_blocks(points, i));
	}
	return high - low <= PLATEAU_SHARE * growth && (grown <= 0 || most - fewest <= PLATEAU_SHARE * grown) &&
	       later >= PLATEAU_WORK * earlier;
}

/* Beyond all that was before point `from`: what only fell and rises again is not. And by more than the last few blocks
 * that a full cache still exchanges for those which pyleak has not seen come. */
static bool is_beyond(const struct pl_point *points, size_t count, size_t from)
{
	double high = -INFINITY, last = net(points, count, count - 1), growth = last - net(points, count, from);

	for (size_t i = 0; i < from; i++)
		high = fmax(high, net(points, count, i));
	return last > high + BEYOND_SHARE * growth && growth >= WORTH_SHARE * (last - net(points, count, 0));
}

static bool tail_is_steady(const struct pl_point *points, size_t count, size_t from)
{
	struct stretch by_time, by_work;

	if (!is_beyond(points, count, from))
		return false;
	for (enum stretch_measure measure = 0; measure < STRETCH_MEASURES; measure++) {
		stretch_make(points + from, count - from, measure, STRETCH_TIME, &by_time);
		stretch_make(points + from, count - from, measure, STRETCH_WORK, &by_work);
		if (stretch_still_slows(by_work.points ? &by_work : &by_time))
			return false;
		if (stretch_still_rises(&by_time) && !stretch_still_slows(&by_time))
			return true;
	}
	return false;
}

/* It slowed down, and does so no longer: a leak beside what filled at first would look so. */
static bool goes_on(const struct pl_point *points, size_t count)
{
	const size_t half = (count - 1) / 2, from = count - 1 - half;
	const double grown = net(points, count, count - 1) - net(points, count, 0);
	struct stretch by_time, by_work;

	if (half < GOES_ON_WINDOWS || net(points, count, count - 1) - net(points, count, from) < LATER_SHARE * grown)
		return false;
	stretch_make(points + from, half + 1, STRETCH_BLOCKS, STRETCH_TIME, &by_time);
	stretch_make(points + from, half + 1, STRETCH_BLOCKS, STRETCH_WORK, &by_work);
	return !stretch_still_slows(by_work.points ? &by_work : &by_time);
}

/* A row of few blocks which only ever become larger: the table of a list or a dict. How often they did; 0: it is none. */
static size_t container_steps(const struct pl_point *points, size_t count, bool *ret_recent)
{
	size_t steps = 0, last = 0, from = 0;

	/* It may have been there before the recording: then it is seen from when it is made larger on. */
	while (from < count && !points[from].count)
		from++;
	if (from == count || points[from].count > CONTAINER_BLOCKS)
		return 0;
	steps = from > 0;
	for (size_t i = from + 1; i < count; i++) {
		if (points[i].size < points[i - 1].size || points[i].count != points[from].count)
			return 0;
		if (points[i].size > points[i - 1].size) {
			steps++;
			last = i;
		}
	}
	*ret_recent = last > (count - 1) / 2;
	return steps;
}

/* The same with what comes and goes beside: while a table is made larger there are two, and free-threaded builds free the old
 * one late. Since when it came it never went back to what was before. */
static bool is_few_that_stay(const struct pl_point *points, size_t count)
{
	int64_t floor = points[count - 1].size, most = 0;

	for (size_t i = count; i-- > count / 2;)
		floor = points[i].size < floor ? points[i].size : floor;
	for (size_t i = 0; i < count; i++)
		most = points[i].count > most ? points[i].count : most;
	return most <= CONTAINER_BLOCKS && floor > points[0].size;
}

static double average(const struct pl_point *point)
{
	return point->count > 0 ? (double)point->size / (double)point->count : 0;
}

/* Tables of many containers: nearly all that came of them is there, none goes, and they are made larger now and then, or those
 * that they took the place of were smaller. The next time comes when there is twice as much in them, so that a level says nothing. */
static bool are_made_larger(const struct pl_point *points, size_t count)
{
	const struct pl_point *last = &points[count - 1];
	size_t from = count - 1;
	double came;

	while (from > 0 && points[from - 1].count <= points[from].count && points[from - 1].size <= points[from].size &&
		(double)points[from - 1].count >= LARGER_NEARLY * (double)last->count)
		from--;
	came = (double)(last->count - points[0].count);
	if (from > count - 1 - (count - 1) / 2 || last->count <= 0)
		return false;
	return average(last) >= LARGER_SHARE * average(&points[from]) ||
	       (came > 0 && last->larger - points[0].larger >= LARGER_BLOCKS * came);
}

/* In how many of the windows in which it grows older blocks go. */
static bool turns_regularly(const struct pl_point *points, size_t count)
{
	size_t more = 0, both = 0;

	for (size_t i = 1; i < count; i++) {
		const bool turned = points[i].turned > points[i - 1].turned;

		more += turned || points[i].count > points[i - 1].count;
		both += turned;
	}
	return (double)both >= TURNED_WINDOWS * (double)more;
}

/* Older blocks go as these come, again and again: those that all went at once, as when the recording began, are soon outgrown
 * by a leak. */
static bool turns_over(const struct pl_point *points, size_t count, const struct pl_verdict *verdict)
{
	const struct pl_point *first = &points[0], *middle = &points[(count - 1) / 2], *last = &points[count - 1];
	double grown = (double)(last->count - first->count), later = (double)(last->count - middle->count);

	return verdict->turned >= TURNED_SHARE && turns_regularly(points, count) &&
	       (later < LATER_SHARE * grown || last->turned - middle->turned >= TURNED_SHARE * later);
}

static void measure(const struct pl_point *points, size_t count, struct pl_verdict *verdict)
{
	const struct pl_point *first = &points[0], *last = &points[count - 1];
	double blocks = (double)last->count - (double)first->count, bytes = (double)last->size - (double)first->size;
	double stayed = blocks - (last->turned - first->turned);
	struct stretch size, number;
	struct trend_slope slope, counted;

	stretch_make(points, count, STRETCH_BYTES, STRETCH_TIME, &size);
	stretch_make(points, count, STRETCH_BLOCKS, STRETCH_TIME, &number);
	slope = trend_slope(size.at, size.level, size.points);
	counted = trend_slope(number.at, number.level, number.points);
	/* Where a table is made larger now and then, the number of blocks is what is regular. */
	if (slope.low <= 0 && counted.slope > 0 && blocks > 0 && bytes > 0)
		slope = (struct trend_slope){counted.slope * bytes / blocks, counted.low * bytes / blocks,
			counted.high * bytes / blocks};
	if (slope.slope <= 0) {
		slope.slope = size.at[count - 1] > 0 ? (size.level[count - 1] - size.level[0]) / size.at[count - 1] : 0;
		slope.high = fmax(slope.high, slope.slope);
	}
	verdict->growth = PL_GROWTH_STEADY;
	verdict->rate = slope.slope;
	verdict->rate_low = slope.low;
	verdict->rate_high = slope.high;
	if (last->allocated > first->allocated) {
		double allocated = (double)(last->allocated - first->allocated);

		verdict->kept = fmin(fmax(stayed / allocated, 0), 1);
		verdict->size_per_block = (size.level[count - 1] - size.level[0]) / allocated;
	}
}

/* A leak under what a collector takes now and then. */
static bool troughs_rise(const struct pl_point *points, size_t count)
{
	struct stretch whole, troughs;

	stretch_make(points, count, STRETCH_BLOCKS, STRETCH_TIME, &whole);
	stretch_troughs(&whole, &troughs);
	return troughs.points && stretch_still_rises(&troughs) && !stretch_still_slows(&troughs);
}

static bool falls(const struct pl_point *points, size_t count)
{
	for (size_t i = 1; i < count; i++)
		if (points[i].count < points[i - 1].count || points[i].size < points[i - 1].size)
			return true;
	return false;
}

/* False: it may still become a leak, so that it is too early for anything else. */
static bool judge_growth(const struct pl_point *points, size_t count, struct pl_verdict *ret)
{
	size_t windows = count - 1;
	struct pl_series lows;
	enum bursts bursts;
	enum said blocks = ask(points, count, STRETCH_BLOCKS), bytes = ask(points, count, STRETCH_BYTES);

	/* The number decides where it can: one table that is made larger outweighs all bytes. */
	if (blocks == SAID_STEADY || (bytes == SAID_STEADY && blocks != SAID_LEVELS)) {
		measure(points, count, ret);
		return true;
	}
	/* A leak beside a cache that filled at first, or one that began later. */
	if (windows / 2 >= TAIL_WINDOWS && tail_is_steady(points, count, windows - windows / 2)) {
		measure(points + windows - windows / 2, windows / 2 + 1, ret);
		return true;
	}
	if (troughs_rise(points, count)) {
		measure(points, count, ret);
		return true;
	}
	bursts = bursts_judge(points, count, &lows);
	if (bursts == BURSTS_PILE)
		measure(lows.points, lows.count, ret);
	if (bursts != BURSTS_NONE)
		return bursts == BURSTS_PILE;
	if ((blocks == SAID_LEVELS || (bytes == SAID_LEVELS && blocks == SAID_NOTHING)) && !goes_on(points, count))
		ret->growth = PL_GROWTH_LEVELLING;
	else if (windows >= DECIDED_WINDOWS && is_plateau(points, count))
		ret->growth = PL_GROWTH_LEVELLING;
	else if (windows >= DECIDED_WINDOWS && blocks == SAID_NOTHING && bytes == SAID_NOTHING && falls(points, count))
		ret->growth = PL_GROWTH_NOISE;
	if (ret->growth != PL_GROWTH_EARLY && are_made_larger(points, count))
		ret->growth = PL_GROWTH_EARLY;
	return true;
}

/* What goes seldom and all together, as what the collector clears of free lists, does not go for what comes. True: so it was. */
static bool forget_seldom(struct pl_series *series, size_t count)
{
	const bool regularly = turns_regularly(series->points, count);

	for (size_t i = 1; i < count && !regularly; i++)
		series->points[i].turned = series->points[0].turned;
	return !regularly;
}

void pl_verdict_judge(const struct pl_series *given, struct pl_verdict *ret)
{
	struct pl_series series[1] = {*given};
	const struct pl_point *points = series->points;
	size_t count = series->count, windows, steps;
	bool recent = false, forgotten;
	double turned;

	*ret = (struct pl_verdict){.growth = PL_GROWTH_NONE};
	if (count < 2)
		return;
	/* ^C, and a stride that is not over, make a last window which is too short to weigh as much as the others. */
	if (count > LEAST_WINDOWS + 1 && points[count - 1].taken_ns - points[count - 2].taken_ns <
						 (points[count - 2].taken_ns - points[count - 3].taken_ns) / 2)
		count--;
	forgotten = forget_seldom(series, count);
	windows = count - 1;
	ret->windows = windows;
	ret->watched_ns = points[windows].taken_ns - points[0].taken_ns;
	if (points[windows].size <= points[0].size)
		return;
	ret->growth = PL_GROWTH_EARLY;
	ret->ends = points[windows].ended > 0;
	turned = given->points[windows].turned - given->points[0].turned;
	ret->turned = fmin(turned / fmax((double)(points[windows].count - points[0].count), 1), 1);
	if (windows < LEAST_WINDOWS)
		return;
	steps = container_steps(points, count, &recent);
	ret->container = steps > 0;
	if (steps) {
		if (steps >= CONTAINER_STEPS && recent)
			measure(points, count, ret);
		return;
	}
	if (is_few_that_stay(points, count))
		return;
	if (judge_growth(points, count, ret) && ret->growth != PL_GROWTH_STEADY && turns_over(points, count, ret))
		ret->growth = PL_GROWTH_TURNOVER;
	/* As much as has come: it may be a cache that is swept every some windows, and this its first sweep. */
	if (ret->growth == PL_GROWTH_STEADY && forgotten && ret->turned >= TURNED_SHARE)
		ret->growth = PL_GROWTH_EARLY;
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
		[PL_GROWTH_TURNOVER] = "turnover",
	};

	return names[growth];
}

int64_t pl_verdict_time_to_fill(const struct pl_verdict *verdict, uint64_t room)
{
	double ns = verdict->rate > 0 ? (double)room / verdict->rate * NSEC_PER_HOUR : INFINITY;

	/* "300 days" by the looks of 40 s would be a guess. */
	return ns <= (double)FORESEEN * (double)verdict->watched_ns && ns < (double)(INT64_MAX / 2) ? (int64_t)ns : INT64_MAX;
}
