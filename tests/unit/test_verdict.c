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
	verdict.watched_ns = 72 * PL_NSEC_PER_SEC;
	cr_assert_eq(pl_verdict_time_to_fill(&verdict, 72000000), 7200 * PL_NSEC_PER_SEC);
	verdict.watched_ns -= PL_NSEC_PER_SEC;
	cr_assert_eq(pl_verdict_time_to_fill(&verdict, 72000000), INT64_MAX, "more than a hundred times as long");
	cr_assert_eq(pl_verdict_time_to_fill(&verdict, UINT64_MAX), INT64_MAX);
}

/* A block for each allocation, but for what a collector takes: what was recorded of services (tests/series). */
static enum pl_growth judge_bursts(const int64_t *counts, const int64_t *allocated, size_t count)
{
	struct pl_series series = {.count = count};
	struct pl_verdict verdict;

	for (size_t i = 0; i < count; i++)
		series.points[i] = (struct pl_point){
			.taken_ns = (int64_t)i * 10 * PL_NSEC_PER_SEC,
			.size = 48 * counts[i],
			.count = counts[i],
			.allocated = (uint64_t)allocated[i],
		};
	pl_verdict_judge(&series, &verdict);
	return verdict.growth;
}

Test(verdict, what_a_collector_leaves)
{
	static const int64_t leak[] = {0, 90, 185, 115, 210, 310, 400, 241, 331, 421, 521, 362, 452},
			     came[] = {0, 90, 185, 275, 370, 470, 560, 650, 740, 830, 930, 1020, 1110};
	static const int64_t all_goes[] = {0, 140, 84, 224, 364, 464, 76, 196, 326, 436, 68, 228, 408},
			     of[] = {0, 140, 300, 440, 580, 680, 790, 910, 1040, 1150, 1280, 1440, 1620};
	/* It took half once, and now all: what it had left was garbage too. */
	static const int64_t later[] = {0, 100, 200, 120, 220, 320, 240, 340, 440, 360, 460, 560, 60, 160},
			     of_later[] = {0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000, 1100, 1200, 1300};

	/* Two lows say that the second is higher, and three that it goes on. */
	for (size_t windows = 7; windows <= 12; windows++)
		cr_expect_eq(judge_bursts(leak, came, windows + 1), windows < 11 ? PL_GROWTH_EARLY : PL_GROWTH_STEADY, "%zu windows",
			windows);
	for (size_t windows = 6; windows <= 12; windows++)
		cr_expect_neq(judge_bursts(all_goes, of, windows + 1), PL_GROWTH_STEADY, "%zu windows", windows);
	cr_expect_neq(judge_bursts(later, of_later, 14), PL_GROWTH_STEADY);
}

/* Rows that were recorded of services that leak (Python 3.9, 3.10, 3.11, 3.13t), in windows of half a second. */
struct recorded {
	int64_t size, count;
	uint64_t allocated;
	double turned;
	uint64_t work;
};

static enum pl_growth judge_recorded(const struct recorded *points, size_t count)
{
	struct pl_series series = {.count = count};
	struct pl_verdict verdict;

	for (size_t i = 0; i < count; i++)
		series.points[i] = (struct pl_point){
			.taken_ns = (int64_t)i * PL_NSEC_PER_SEC / 2,
			.size = points[i].size,
			.count = points[i].count,
			.allocated = points[i].allocated,
			.turned = points[i].turned,
			.work = points[i].work,
		};
	pl_verdict_judge(&series, &verdict);
	return verdict.growth;
}

/* The table of a dict, of which now and then a larger one takes the place: neither a full cache nor one that fills. */
Test(verdict, a_table_that_is_made_larger)
{
	static const struct recorded by_id[] = {{0, 0, 0, 0, 0}, {0, 0, 0, 0, 89469}, {0, 0, 0, 0, 228883}, {0, 0, 0, 0, 307405},
		{295336, 2, 2, 2, 404940}, {295336, 2, 2, 2, 476938}, {295336, 2, 2, 2, 547243}, {295336, 2, 2, 2, 612298},
		{295336, 2, 2, 2, 682733}, {295336, 2, 2, 2, 758855}, {295336, 2, 2, 2, 839860}, {295336, 2, 2, 2, 923041},
		{295736, 3, 3, 2, 996086}, {295736, 3, 3, 2, 1028948}};
	static const struct recorded of_text[] = {{0, 0, 146, 0, 22459}, {0, 0, 245, 0, 39559}, {0, 0, 1350, 0, 209454},
		{464, 1, 2007, 0, 309852}, {464, 1, 2408, 0, 371923}, {295400, 2, 2754, 0, 425453}, {295400, 2, 3050, 0, 471415},
		{295400, 2, 3373, 0, 521535}, {295400, 2, 3649, 0, 564758}, {295400, 2, 3991, 0, 617274}, {295400, 2, 4250, 0, 657932},
		{295400, 2, 4722, 0, 730370}, {295400, 2, 4915, 0, 760210}};
	static const struct recorded freed_late[] = {{0, 0, 0, 0, 1710}, {0, 0, 0, 0, 10957}, {0, 0, 0, 0, 11870},
		{151576, 2, 2, 0, 45689}, {151576, 2, 2, 0, 47125}, {151576, 2, 2, 0, 48329}, {151576, 2, 2, 0, 74136},
		{147480, 1, 2, 0, 93262}, {147480, 1, 2, 1, 228207}, {147480, 1, 2, 1, 274912}, {147480, 1, 2, 1, 281584},
		{446504, 3, 4, 1, 365920}, {446504, 3, 4, 1, 411671}, {299024, 2, 4, 1, 456353}, {299024, 2, 4, 1, 494386},
		{299024, 2, 4, 1, 511756}};

	for (size_t windows = 6; windows <= 12; windows++) {
		cr_expect_eq(judge_recorded(by_id, windows + 1), PL_GROWTH_EARLY, "%zu windows", windows);
		cr_expect_eq(judge_recorded(of_text, windows + 1), PL_GROWTH_EARLY, "%zu windows", windows);
		cr_expect_eq(judge_recorded(freed_late, windows + 4), PL_GROWTH_EARLY, "%zu windows", windows + 3);
	}
}

/* Among much else a table is made larger once, which outweighs all: its number goes on growing. */
Test(verdict, one_table_and_many_entries)
{
	static const struct recorded points[] = {{6184, 129, 129, 0, 6339}, {6184, 129, 129, 0, 6551}, {171512, 418, 418, 46, 21010},
		{171512, 418, 418, 46, 21342}, {182648, 650, 650, 46, 32956}, {182648, 650, 650, 46, 33381}, {182648, 650, 650, 46, 34068},
		{182648, 650, 650, 46, 34434}, {197912, 968, 968, 46, 50936}, {222872, 1488, 1488, 46, 76389},
		{256312, 2269, 2270, 46, 118691}, {264088, 2431, 2432, 46, 128032}, {264088, 2431, 2432, 46, 128862},
		{301336, 3207, 3208, 46, 169873}};

	cr_expect_eq(judge_recorded(points, 9), PL_GROWTH_EARLY);
	for (size_t windows = 9; windows <= 13; windows++)
		cr_expect_eq(judge_recorded(points, windows + 1), PL_GROWTH_STEADY, "%zu windows", windows);
}

/* Older blocks went beside it, all at once or at first: that is no full cache. */
Test(verdict, older_blocks_that_went_at_first)
{
	static const struct recorded ints[] = {{0, 0, 0, 0, 0}, {252, 7, 14, 0, 983}, {576, 16, 32, 0, 2274}, {864, 24, 48, 24, 3446},
		{1188, 33, 66, 33, 4727}, {1584, 44, 88, 44, 6336}, {1944, 54, 108, 49, 7792}, {2376, 66, 132, 49, 9472},
		{2808, 78, 156, 49, 11176}, {3348, 93, 186, 49, 13288}, {3852, 107, 214, 49, 15225}, {4968, 138, 276, 49, 19270},
		{6228, 173, 346, 49, 23877}, {7560, 210, 420, 49, 28657}};
	static const struct recorded bursts[] = {{0, 0, 0, 0, 0}, {5280, 10, 10, 0, 68163}, {6864, 13, 13, 0, 83440},
		{8976, 17, 17, 0, 110966}, {17952, 34, 34, 26, 222452}, {17952, 34, 34, 26, 222505}, {17952, 34, 34, 26, 222561},
		{20592, 39, 39, 26, 262863}, {21120, 40, 40, 26, 266191}, {21120, 40, 40, 26, 266214}, {21120, 40, 40, 26, 266274},
		{23232, 44, 44, 26, 292633}, {23232, 44, 44, 26, 292633}, {23232, 44, 44, 26, 292633}};

	for (size_t windows = 8; windows <= 13; windows++) {
		enum pl_growth first = judge_recorded(ints, windows + 1), second = judge_recorded(bursts, windows + 1);

		cr_expect(first == PL_GROWTH_EARLY || first == PL_GROWTH_STEADY, "%zu windows", windows);
		cr_expect(second == PL_GROWTH_EARLY || second == PL_GROWTH_STEADY, "%zu windows", windows);
	}
}

/* A full cache whose older entries a sweeper takes out every sixth window, and none yet of what the recording has seen come. */
Test(verdict, full_cache_that_is_swept)
{
	struct recorded swept[21] = {0};

	for (int64_t window = 1; window <= 20; window++)
		swept[window] = (struct recorded){50000 * window, 100 * window, 100 * window, window / 6 * 600, 1000 * window};
	/* Before its first sweep it cannot be told from a leak. */
	for (size_t windows = 6; windows <= 20; windows++)
		cr_expect_neq(judge_recorded(swept, windows + 1), PL_GROWTH_STEADY, "%zu windows", windows);
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

/* Of gunicorn --max-requests: two workers that leak at one line, of which both ended in the fourth window; what the next ones
 * imported as they came is no work that the leak did not keep up with. */
Test(history, what_newborn_workers_import)
{
	static const uint64_t counts[] = {494, 2470, 3648, 5814, 5814, 6346, 8993, 10787, 12737, 13673},
			      requests[] = {17697, 87597, 129652, 207309, 209510, 234841, 326745, 390159, 458249, 491863},
			      in_all[] = {17697, 87597, 129652, 207309, 209819, 371777, 463681, 527095, 595185, 628799};
	enum { POINTS = sizeof(counts) / sizeof(counts[0]) };
	struct pl_history *history = pl_history_new();
	struct pl_sites *sites = pl_sites_new();
	uint32_t leak = sample_site(sites, PL_SITE_PYTHON, "/app/web.py:1:remember|/app/web.py:2:order");
	uint32_t work = sample_site(sites, PL_SITE_PYTHON, "/app/web.py:3:order");
	uint32_t import = sample_site(sites, PL_SITE_PYTHON,
		"/app/models.py:1:<module>|<frozen importlib._bootstrap>:1:_call|/app/w.py:1:f");
	struct pl_verdict verdicts[3];
	struct pl_series series[3];

	for (size_t i = 0; i < POINTS; i++) {
		uint64_t came = counts[i] - (i ? counts[i - 1] : 0);

		sample_allocate(sites, leak, came * 77, came);
		sample_allocate(sites, work, 1000, requests[i] - (i ? requests[i - 1] : 0) - came);
		sample_free(sites, work, 1000, requests[i] - (i ? requests[i - 1] : 0) - came);
		sample_allocate(sites, import, 1000, in_all[i] - requests[i] - (i ? in_all[i - 1] - requests[i - 1] : 0));
		sample_free(sites, import, 1000, in_all[i] - requests[i] - (i ? in_all[i - 1] - requests[i - 1] : 0));
		add(history, sites, (int64_t)i);
		if (i < 3)
			continue;

		struct pl_rows rows = rows_of(sites, PL_GROUP_LINE);

		cr_assert_eq(pl_verdicts_make(history, &rows, rows.count, verdicts), 0);
		cr_expect_eq(verdicts[rows.row_of_site[leak]].growth, PL_GROWTH_STEADY, "%zu windows", i);
		cr_assert_eq(pl_history_series(history, &rows, rows.count, series), 0);
		cr_assert_eq(series[rows.row_of_site[leak]].points[i].work, requests[i]);
		/* What others did is the same for all. */
		cr_assert_eq(series[rows.row_of_site[import]].points[i].work - series[rows.row_of_site[import]].points[i].allocated,
			requests[i]);
		pl_rows_free(&rows);
	}
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
