/* SPDX-License-Identifier: MIT */
#include "sample.h"

#include <math.h>

#include "../../src/verdict/trend.h"
#include "pyleak/units.h"
#include "pyleak/verdict.h"

#define NEAR(value, wanted, distance) \
	cr_assert(fabs((value) - (wanted)) <= (distance), #value " is %.9g and not %.9g", (double)(value), (double)(wanted))

/* A t distribution's tail beyond its tabulated quantiles: samples whose t statistic is that quantile. */
Test(trend, drift_is_students)
{
	static const struct {
		size_t count;
		double t, tail;
	} table[] = {{2, 6.313752, 0.05}, {2, 318.3088, 0.001}, {3, 2.919986, 0.05}, {3, 22.32712, 0.001},
		{4, 2.353363, 0.05}, {4, 10.21453, 0.001}, {5, 7.173182, 0.001}, {6, 3.364930, 0.01},
		{11, 4.143700, 0.001}, {12, 4.024701, 0.001}, {39, 3.319028, 0.001}};

	for (size_t i = 0; i < COUNT(table); i++) {
		size_t n = table[i].count;
		double values[PL_HISTORY_POINTS];

		/* Mean m, and half above it by 1 and half below: variance (n − n%2) / (n − 1). */
		double deviation = sqrt((double)(n - n % 2) / (double)(n - 1));

		for (size_t j = 0; j < n; j++)
			values[j] = table[i].t * deviation / sqrt((double)n) + (j == n - 1 && n % 2 ? 0 : j % 2 ? 1 : -1);
		NEAR(trend_drift(values, n, 0), table[i].tail, table[i].tail * 1e-4);
	}
}

Test(trend, drift_of_what_is_too_regular)
{
	const double same[] = {5, 5, 5, 5}, down[] = {-5, -5, -5, -5};

	NEAR(trend_drift(same, 4, 0), 0, 0);
	NEAR(trend_drift(down, 4, 0), 1, 0);
	NEAR(trend_drift(same, 1, 0), 1, 0);
	/* One block a window, each an event: variance 25, t = √4. */
	NEAR(trend_drift(same, 4, 25), 0.0697, 0.0001);
}

/* Among the n! orders of n numbers, those with so many rising pairs. */
Test(trend, rising_is_kendalls)
{
	const double up[] = {1, 2, 3, 4, 5, 6}, down[] = {6, 5, 4, 3, 2, 1}, same[] = {1, 1, 1, 1, 1, 1};
	const double one_off[] = {1, 2, 3, 5, 4};

	NEAR(trend_rising(up, 4), 1.0 / 24, 1e-12);
	NEAR(trend_rising(up, 6), 1.0 / 720, 1e-12);
	NEAR(trend_rising(down, 6), 1, 1e-12);
	NEAR(trend_rising(one_off, 5), (1.0 + 4) / 120, 1e-12);
	cr_assert_gt(trend_rising(same, 6), 0.4);
}

/* From where the normal distribution takes over. */
Test(trend, rising_of_many)
{
	double values[PL_HISTORY_POINTS];

	for (size_t n = 10; n <= PL_HISTORY_POINTS; n++) {
		double falling = 0;

		for (size_t i = 0; i < n; i++)
			values[i] = (double)((i * 7) % n) + 0.3 * (double)i;
		for (size_t i = 0; i < n; i++)
			for (size_t j = i + 1; j < n; j++)
				falling += values[j] < values[i];

		double pairs = (double)(n * (n - 1)) / 2, deviation = sqrt(pairs * (2 * (double)n + 5) / 36);

		NEAR(trend_rising(values, n), 0.5 * erfc((pairs / 2 - falling - 0.5) / deviation / sqrt(2)), 0.01);
	}
}

Test(trend, slope)
{
	const double times[] = {0, 1, 2, 3, 4, 5}, line[] = {1, 3, 5, 7, 9, 11}, outlier[] = {1, 3, 500, 7, 9, 11},
		     wavy[] = {1, 5, 2, 9, 6, 14};
	struct trend_slope slope = trend_slope(times, line, 6);

	NEAR(slope.slope, 2, 1e-12);
	NEAR(slope.low, 2, 1e-12);
	NEAR(slope.high, 2, 1e-12);
	slope = trend_slope(times, outlier, 6);
	NEAR(slope.slope, 2, 1e-12);
	cr_assert(slope.low <= 2 && slope.high >= 2);
	slope = trend_slope(times, wavy, 6);
	cr_assert(slope.low < slope.slope && slope.slope < slope.high);
	NEAR(trend_slope(times, line, 1).slope, 0, 0);
	NEAR(trend_slope(line, (const double[]){0, 0}, 2).slope, 0, 0);
}

static struct pl_verdict judge(const int64_t *sizes, size_t count, int64_t block)
{
	struct pl_series series = {.count = count};
	struct pl_verdict verdict;

	for (size_t i = 0; i < count; i++)
		series.points[i] = (struct pl_point){
			.taken_ns = (int64_t)i * 10 * PL_NSEC_PER_SEC,
			.size = sizes[i],
			.count = sizes[i] / block,
			.allocated = 2 * (uint64_t)sizes[i] / (uint64_t)block,
		};
	pl_verdict_judge(&series, &verdict);
	return verdict;
}

Test(verdict, steady)
{
	const int64_t sizes[] = {1000, 101000, 201000, 301000};
	struct pl_verdict verdict = judge(sizes, 4, 100);

	cr_assert_eq(verdict.growth, PL_GROWTH_STEADY);
	cr_assert_eq(verdict.windows, 3);
	cr_assert_eq(verdict.watched_ns, 30 * PL_NSEC_PER_SEC);
	NEAR(verdict.rate, 100000 * 360.0, 1e-3);
	NEAR(verdict.rate_low, verdict.rate, 1e-3);
	NEAR(verdict.kept, 0.5, 1e-9);
	NEAR(verdict.size_per_block, 50, 1e-9);
	/* 36 MB an hour. */
	cr_assert_eq(pl_verdict_time_to_fill(&verdict, 72000000), 7200 * PL_NSEC_PER_SEC);
	cr_assert_eq(pl_verdict_time_to_fill(&verdict, UINT64_MAX), INT64_MAX);
}

Test(verdict, few_windows_or_few_blocks)
{
	const int64_t sizes[] = {1000, 101000, 201000, 301000};

	cr_assert_eq(judge(sizes, 0, 100).growth, PL_GROWTH_NONE);
	cr_assert_eq(judge(sizes, 1, 100).growth, PL_GROWTH_NONE);
	cr_assert_eq(judge(sizes, 2, 100).growth, PL_GROWTH_EARLY);
	cr_assert_eq(judge(sizes, 3, 100).growth, PL_GROWTH_EARLY);
	cr_assert_eq(judge(sizes, 4, 100000).growth, PL_GROWTH_EARLY, "one block a window is no evidence yet");
	cr_assert_eq(pl_verdict_time_to_fill(&(struct pl_verdict){0}, 1), INT64_MAX);
}

/* Something was wrong with the clock, or the process lies: no division by zero, no endless number. */
Test(verdict, absurd_series)
{
	struct pl_series series = {.count = PL_HISTORY_POINTS};
	struct pl_verdict verdict;

	for (size_t i = 0; i < PL_HISTORY_POINTS; i++)
		series.points[i] = (struct pl_point){.size = i % 2 ? INT64_MAX : 0, .count = i % 3 ? 0 : INT64_MAX,
			.allocated = i % 5 ? UINT64_MAX : 0};
	pl_verdict_judge(&series, &verdict);
	cr_assert(isfinite(verdict.rate) && isfinite(verdict.kept));
	for (size_t i = 0; i < PL_HISTORY_POINTS; i++)
		series.points[i] = (struct pl_point){.size = (int64_t)i, .allocated = UINT64_MAX - i};
	pl_verdict_judge(&series, &verdict);
	cr_assert(isfinite(verdict.rate) && isfinite(verdict.kept) && isfinite(verdict.size_per_block));
}

/* The last window was cut short: it is left out. */
Test(verdict, short_last_window)
{
	struct pl_series series = {.count = 6};
	struct pl_verdict verdict;

	for (size_t i = 0; i < 6; i++)
		series.points[i] = (struct pl_point){
			.taken_ns = (int64_t)(i < 5 ? 10 * i : 41) * PL_NSEC_PER_SEC, .size = 1000 * (int64_t)(i + 1),
			.count = 100 * (int64_t)(i + 1), .allocated = 100 * (i + 1)};
	series.points[5].size = 90000;
	pl_verdict_judge(&series, &verdict);
	cr_assert_eq(verdict.growth, PL_GROWTH_STEADY);
	cr_assert_eq(verdict.windows, 4);
	NEAR(verdict.rate, 360000, 1e-3);
	NEAR(verdict.kept, 1, 0);
}

static void add(struct pl_history *history, struct pl_sites *sites, int64_t window)
{
	struct pl_snapshot *snapshot = pl_snapshot_take(sites);

	snapshot->taken_ns = window * 10 * PL_NSEC_PER_SEC;
	cr_assert_eq(pl_history_add(history, snapshot), 0);
	pl_snapshot_free(snapshot);
}

static struct pl_rows rows_of(struct pl_sites *sites, enum pl_group group_by)
{
	const struct pl_rows_options options = {.group_by = group_by, .python = true, .native = true};
	struct pl_snapshot *now = pl_snapshot_take(sites);
	struct pl_rows rows;

	cr_assert_eq(pl_rows_make(now, NULL, &options, &rows), 0);
	pl_snapshot_free(now);
	return rows;
}

/* However long it goes on: the first snapshot, the last one, and never more than there is room for. */
Test(history, days)
{
	struct pl_history *history = pl_history_new();
	struct pl_sites *sites = pl_sites_new();
	uint32_t site = sample_site(sites, PL_SITE_PYTHON, "/app/a.py:1:f");
	struct pl_series series;
	struct pl_rows rows;

	cr_assert_eq(pl_history_windows(history), 0);
	for (int64_t window = 0; window < 5000; window++) {
		sample_allocate(sites, site, 100, 1);
		add(history, sites, window);
		if (window % 37 && window > 100)
			continue;
		rows = rows_of(sites, PL_GROUP_LINE);
		cr_assert_eq(pl_history_series(history, &rows, 1, &series), 0);
		cr_assert_leq(series.count, PL_HISTORY_POINTS);
		cr_assert_geq(series.count, window + 1 < PL_HISTORY_POINTS ? (size_t)window + 1 : PL_HISTORY_POINTS / 2);
		cr_assert_eq(series.points[0].size, 100);
		cr_assert_eq(series.points[series.count - 1].size, 100 * (window + 1));
		for (size_t i = 0; i < series.count; i++) {
			cr_assert_eq(series.points[i].size, 100 * (series.points[i].taken_ns / PL_NSEC_PER_SEC / 10 + 1));
			cr_assert(i == 0 || series.points[i].taken_ns > series.points[i - 1].taken_ns);
		}
		pl_rows_free(&rows);
	}
	cr_assert_eq(pl_history_windows(history), 4999);
	pl_history_free(history);
	pl_history_free(NULL);
	pl_sites_free(sites);
}

/* Sites that came later, sites of the row that are empty by now, and rows that are not asked for. */
Test(history, rows)
{
	struct pl_history *history = pl_history_new();
	struct pl_sites *sites = pl_sites_new();
	uint32_t first = sample_site(sites, PL_SITE_PYTHON, "/app/a.py:1:f|/app/m.py:1:g");
	uint32_t other = sample_site(sites, PL_SITE_PYTHON, "/app/b.py:1:f");
	struct pl_series series[3];
	struct pl_rows rows;
	uint32_t second;

	sample_allocate(sites, first, 1000, 10);
	sample_allocate(sites, other, 10, 1);
	add(history, sites, 0);
	sample_free(sites, first, 1000, 10);
	second = sample_site(sites, PL_SITE_PYTHON, "/app/a.py:1:f|/app/m.py:2:g");
	sample_allocate(sites, second, 300, 3);
	add(history, sites, 1);

	rows = rows_of(sites, PL_GROUP_LINE);
	cr_assert_eq(rows.count, 2);
	cr_assert_eq(rows.site_count, 3);
	cr_assert_eq(pl_history_series(history, &rows, 2, series), 0);
	cr_assert_eq(series[0].count, 2);
	cr_assert_eq(series[0].points[0].size, 1000);
	cr_assert_eq(series[0].points[1].size, 300);
	cr_assert_eq(series[0].points[1].count, 3);
	cr_assert_eq(series[0].points[1].allocated, 13);
	cr_assert_eq(series[1].points[0].size, 10);
	cr_assert_eq(pl_history_series(history, &rows, 1, series), 0);
	cr_assert_eq(pl_history_series(history, &rows, 0, NULL), 0);
	pl_rows_free(&rows);

	rows = rows_of(sites, PL_GROUP_TRACEBACK);
	cr_assert_eq(rows.count, 3);
	cr_assert_eq(pl_history_series(history, &rows, 3, series), 0);
	for (size_t i = 0; i < 3; i++) {
		uint32_t site = rows.items[i].site;

		cr_assert_eq(rows.row_of_site[site], i);
		cr_assert_eq(series[i].points[0].size, site == first ? 1000 : site == other ? 10 : 0);
		cr_assert_eq(series[i].points[1].size, site == second ? 300 : site == other ? 10 : 0);
	}
	pl_rows_free(&rows);
	pl_history_free(history);
	pl_sites_free(sites);
}

/* A row that was filled and emptied by one way grows by another: it is not larger than it was. */
Test(history, a_row_knows_all_its_ways)
{
	struct pl_history *history = pl_history_new();
	struct pl_sites *sites = pl_sites_new();
	uint32_t first = sample_site(sites, PL_SITE_PYTHON, "/app/a.py:1:f|/app/m.py:1:g");
	uint32_t second = sample_site(sites, PL_SITE_PYTHON, "/app/a.py:1:f|/app/m.py:2:g");
	const struct pl_rows_options options = {.python = true};
	struct pl_snapshot *before, *now;
	struct pl_verdict verdict;
	struct pl_rows rows;

	sample_allocate(sites, first, 100000, 1000);
	add(history, sites, 0);
	sample_free(sites, first, 100000, 1000);
	for (int64_t window = 1; window < 5; window++) {
		before = pl_snapshot_take(sites);
		sample_allocate(sites, second, 10000, 100);
		add(history, sites, window);
	}
	/* In this window the first way has no figures at all. */
	now = pl_snapshot_take(sites);
	cr_assert_eq(pl_rows_make(now, before, &options, &rows), 0);
	cr_assert_eq(rows.count, 1);
	cr_assert_eq(pl_verdicts_make(history, &rows, 1, &verdict), 0);
	cr_assert_eq(verdict.growth, PL_GROWTH_NONE);
	pl_rows_free(&rows);
	pl_snapshot_free(now);
	pl_history_free(history);
	pl_sites_free(sites);
}
