/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include <math.h>
#include <stdio.h>

#include "pyleak/units.h"
#include "pyleak/verdict.h"

/*
 * How often a verdict errs: thousands of series of each kind, simulated, judged. The counts are the
 * same on every run (the numbers come from a fixed seed); PYLEAK_TABLE=1 prints them, as they stand
 * in the manual page.
 */

enum { SERIES = 4000 };
#define WINDOW_NSEC (10 * PL_NSEC_PER_SEC)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static uint64_t state;

/* Marsaglia's xorshift64*, and what follows from evenly distributed numbers. */
static double uniform(void)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (double)(state * UINT64_C(2685821657736338717) >> 11) / 9007199254740992.0;
}

static double normal(void)
{
	return sqrt(-2 * log(1 - uniform())) * cos(2 * M_PI * uniform());
}

static int64_t poisson(double mean)
{
	double limit = exp(-mean), product = uniform();
	int64_t number = 0;

	if (mean > 50)
		return (int64_t)llround(fmax(mean + sqrt(mean) * normal(), 0));
	for (; product > limit; product *= uniform())
		number++;
	return number;
}

/* What lives after window i, in blocks; `memory` is 0 before the first. */
typedef int64_t (*simulation)(size_t i, size_t windows, double *memory);

static int64_t around_a_level(size_t i, size_t windows, double *memory)
{
	return (int64_t)llround(1000 + 50 * normal());
}

static int64_t heavy_tails(size_t i, size_t windows, double *memory)
{
	return (int64_t)(200 / pow(1 - uniform(), 0.7)); /* Pareto: now and then something huge */
}

/* Requests in flight: one comes, one goes. */
static int64_t slow_queue(size_t i, size_t windows, double *memory)
{
	*memory = i ? 0.9 * *memory + 20 * normal() : 45 * normal();
	return (int64_t)llround(500 + *memory);
}

static int64_t random_walk(size_t i, size_t windows, double *memory)
{
	*memory += 30 * normal();
	return (int64_t)llround(2000 + *memory);
}

static int64_t few_blocks(size_t i, size_t windows, double *memory)
{
	return poisson(2);
}

static int64_t few_blocks_that_wander(size_t i, size_t windows, double *memory)
{
	*memory = fmax(*memory + (uniform() < 0.5 ? -1 : 1), 0);
	return (int64_t)*memory;
}

/* A collection takes everything, twice at least while it is watched. */
static int64_t sawtooth(size_t i, size_t windows, double *memory)
{
	static double period;

	if (!i) {
		period = 1 + ((double)windows / 2 - 1) * uniform();
		*memory = period * uniform();
	}
	*memory += 1;
	if (*memory > period)
		*memory -= period;
	return (int64_t)llround(1000 * *memory + 30 * normal());
}

/* Morning and evening, twice at least. */
static int64_t days(size_t i, size_t windows, double *memory)
{
	static double period, phase;

	if (!i) {
		period = (double)windows * (0.1 + 0.4 * uniform());
		phase = 2 * M_PI * uniform();
	}
	return (int64_t)llround(2000 + 1000 * sin(phase + 2 * M_PI * (double)i / period) + 50 * normal());
}

static int64_t bursts(size_t i, size_t windows, double *memory)
{
	return uniform() < 0.2 ? 1000 + poisson(500) : poisson(10);
}

/* Something large was made once, at some time, and stays. */
static int64_t one_step(size_t i, size_t windows, double *memory)
{
	if (!i)
		*memory = uniform() * (double)windows;
	return (i > *memory ? 5000 : 100) + poisson(20);
}

/* A cache of 10,000 that random keys fill: watched from empty to 63 to 99.8 % full. */
static int64_t cache(size_t i, size_t windows, double *memory)
{
	static double filled;

	if (!i) {
		*memory = 1 + 5 * uniform();
		filled = 0;
	}
	filled += (double)poisson((10000 - filled) * (1 - exp(-*memory / (double)windows)));
	return (int64_t)filled;
}

static int64_t leak_with(double blocks, double irregularity, double *memory)
{
	*memory += (double)poisson(fmax(blocks * (1 + irregularity * normal()), 0));
	return (int64_t)*memory;
}

static int64_t regular_leak(size_t i, size_t windows, double *memory)
{
	return leak_with(200, 0.1, memory);
}

static int64_t irregular_leak(size_t i, size_t windows, double *memory)
{
	return leak_with(200, 0.5, memory);
}

static int64_t leak_of_few_blocks(size_t i, size_t windows, double *memory)
{
	return leak_with(3, 0, memory);
}

static int64_t leak_in_bursts(size_t i, size_t windows, double *memory)
{
	return leak_with(uniform() < 0.4 ? 500 : 0, 0.1, memory);
}

static int64_t leak_after_a_start(size_t i, size_t windows, double *memory)
{
	return leak_with(200, 0.2, memory) + (int64_t)(10000 * (1 - exp(-(double)i / 2)));
}

static int64_t leak_in_the_second_half(size_t i, size_t windows, double *memory)
{
	return (i > windows / 2 ? leak_with(200, 0.2, memory) : 0) + 300 + poisson(50);
}

static int64_t leak_under_a_sawtooth(size_t i, size_t windows, double *memory)
{
	return leak_with(200, 0.2, memory) + (int64_t)(i % 4) * 300;
}

/* Cycles: a collection takes two thirds of what came since the last. Thrice or more while it is watched. */
static int64_t leak_of_cycles(size_t i, size_t windows, double *memory)
{
	static double period, waits;
	double came = 300 * (1 + 0.05 * normal());

	if (!i) {
		period = 2 + ((double)windows / 3.5 - 2) * uniform();
		waits = period * uniform();
	}
	*memory += came / 3;
	waits += 1;
	if (waits > period)
		waits -= period;
	return (int64_t)llround(*memory + waits * 200);
}

/* A look of N windows cannot tell a leak from garbage that is collected more seldom, nor from a day's morning. */
static int64_t one_tooth(size_t i, size_t windows, double *memory)
{
	return (int64_t)i * 300 + poisson(300);
}

static void judge(simulation next, size_t windows, struct pl_verdict *ret)
{
	struct pl_series series = {.count = windows + 1};
	double memory = 0;

	for (size_t i = 0; i <= windows; i++) {
		struct pl_point *point = &series.points[i];

		point->count = next(i, windows, &memory);
		point->size = 72 * point->count;
		point->taken_ns = (int64_t)i * WINDOW_NSEC;
		point->allocated = i * 100000;
	}
	pl_verdict_judge(&series, ret);
}

static const size_t looks[] = {3, 4, 5, 6, 8, 12, 16, 24, 39};

static void count_steady(const char *name, simulation next, double shares[COUNT(looks)])
{
	bool table = getenv("PYLEAK_TABLE") != NULL;

	if (table)
		(void)fprintf(stderr, "%-26s", name);
	for (size_t i = 0; i < COUNT(looks); i++) {
		size_t steady = 0, levelling = 0;

		state = 88172645463325252ULL + looks[i];
		for (size_t j = 0; j < SERIES; j++) {
			struct pl_verdict verdict;

			judge(next, looks[i], &verdict);
			steady += verdict.growth == PL_GROWTH_STEADY;
			levelling += verdict.growth == PL_GROWTH_LEVELLING;
		}
		shares[i] = (double)steady / SERIES;
		if (table)
			(void)fprintf(stderr, " %6.2f/%-5.1f", 100 * shares[i], 100.0 * (double)levelling / SERIES);
	}
	if (table)
		(void)fputc('\n', stderr);
}

#define KIND(simulation) {#simulation, simulation}

/* What is no leak is called one in at most 1 of 200 looks, of any kind and after any number of windows. */
Test(noise, false_alarms)
{
	static const struct {
		const char *name;
		simulation next;
	} kinds[] = {
		KIND(around_a_level),
		KIND(heavy_tails),
		KIND(slow_queue),
		KIND(random_walk),
		KIND(few_blocks),
		KIND(few_blocks_that_wander),
		KIND(sawtooth),
		KIND(days),
		KIND(bursts),
		KIND(one_step),
		KIND(cache),
	};

	for (size_t i = 0; i < COUNT(kinds); i++) {
		double shares[COUNT(looks)];

		count_steady(kinds[i].name, kinds[i].next, shares);
		for (size_t j = 0; j < COUNT(looks); j++)
			cr_expect_leq(shares[j], 0.005, "%s, %zu windows: %g", kinds[i].name, looks[j], shares[j]);
	}
}

Test(noise, leaks_are_found)
{
	static const struct {
		const char *name;
		simulation next;
		double least[COUNT(looks)];
	} kinds[] = {
		{"regular_leak", regular_leak, {0.25, 0.9, 0.97, 0.99, 0.99, 0.99, 0.99, 0.99, 0.99}},
		{"irregular_leak", irregular_leak, {0, 0, 0.1, 0.3, 0.7, 0.9, 0.95, 0.97, 0.98}},
		{"leak_of_few_blocks", leak_of_few_blocks, {0, 0, 0, 0, 0.35, 0.85, 0.93, 0.96, 0.96}},
		{"leak_in_bursts", leak_in_bursts, {0, 0, 0, 0, 0, 0, 0.1, 0.45, 0.9}},
		{"leak_after_a_start", leak_after_a_start, {0, 0, 0, 0, 0, 0, 0.3, 0.7, 0.8}},
		{"leak_in_the_second_half", leak_in_the_second_half, {0, 0, 0, 0, 0, 0, 0.75, 0.99, 0.99}},
		{"one_tooth", one_tooth, {0, 0.5, 0.7, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9}},
		{"leak_of_cycles", leak_of_cycles, {0, 0, 0, 0, 0.35, 0.5, 0.8, 0.95, 0.99}},
		{"leak_under_a_sawtooth", leak_under_a_sawtooth, {0, 0, 0, 0, 0, 0, 0, 0.97, 0.99}},
	};

	for (size_t i = 0; i < COUNT(kinds); i++) {
		double shares[COUNT(looks)];

		count_steady(kinds[i].name, kinds[i].next, shares);
		for (size_t j = 0; j < COUNT(looks); j++)
			cr_expect_geq(shares[j], kinds[i].least[j], "%s, %zu windows: %g", kinds[i].name, looks[j],
				shares[j]);
	}
}
