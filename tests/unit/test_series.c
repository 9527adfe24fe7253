/* SPDX-License-Identifier: MIT */
#include "sample.h"

#include <inttypes.h>
#include <limits.h>

#include "pyleak/verdict.h"

/*
 * Verdicts on series that pyleak has recorded (data/record_series.py): of tests/victims/growth.py,
 * a program for each way to grow. Each is judged after every one of its windows, and from every
 * snapshot on, as if pyleak had come then.
 */

static void read_series(const char *kind, struct pl_series *series)
{
	char path[PATH_MAX], line[256];
	FILE *file;

	(void)snprintf(path, sizeof(path), SERIES_FOLDER "/%s.txt", kind);
	file = fopen(path, "r");
	cr_assert_not_null(file, "%s", path);
	*series = (struct pl_series){0};
	while (fgets(line, sizeof(line), file)) {
		struct pl_point *point = &series->points[series->count];

		if (*line == '#')
			continue;
		cr_assert_lt(series->count, PL_HISTORY_POINTS);
		cr_assert_eq(sscanf(line, "%" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNu64, &point->taken_ns, &point->size,
				     &point->count, &point->allocated),
			4);
		series->count++;
	}
	(void)fclose(file);
	cr_assert_eq(series->count, 25, "%s", path);
}

static enum pl_growth judge(const struct pl_series *whole, size_t from, size_t windows)
{
	struct pl_series part = {.count = windows + 1};
	struct pl_verdict verdict;

	memcpy(part.points, whole->points + from, part.count * sizeof(part.points[0]));
	pl_verdict_judge(&part, &verdict);
	return verdict.growth;
}

/* The looks that find a leak in the cache begin when it is full: it still exchanges, one by one, what it had before
 * pyleak came, and the row does grow, by a block or two a window.
 *
 * After each window from the first to the 24th: S steady, L levelling, N noise, E early, "-" not larger than at first. */
static const struct {
	const char *kind, *wanted;
	size_t least_steady, most_steady; /* of 253 looks, wherever pyleak comes in, and for however long */
} table[] = {
	{"steady", "EESSSSSSSSSSSSSSSSSSSSSS", 253, 253},
	{"bursty", "EEEESSSSSSSSLLLSSSSSSSSS", 25, 253},
	{"lru", "EEEEELLLLLLLLLLLLLLLLLLL", 0, 23},
	{"garbage", "E-EE-N-NN-NN-N-NN-NN-N-N", 0, 0},
	{"noise", "---E----N--N---N-N-N--N-", 0, 0},
	{"imports", "EEEEELLLLLLLLLLLLLLLLLLL", 0, 0},
	{"day", "EEEEE--NNNNNN--NNNNNN--N", 0, 0},
};

static const char letters[] = {
	[PL_GROWTH_NONE] = '-',
	[PL_GROWTH_EARLY] = 'E',
	[PL_GROWTH_STEADY] = 'S',
	[PL_GROWTH_LEVELLING] = 'L',
	[PL_GROWTH_NOISE] = 'N',
};

Test(series, after_each_window)
{
	for (size_t i = 0; i < COUNT(table); i++) {
		struct pl_series series;
		char said[PL_HISTORY_POINTS] = "";

		read_series(table[i].kind, &series);
		for (size_t windows = 1; windows < series.count; windows++)
			said[windows - 1] = letters[judge(&series, 0, windows)];
		cr_expect_str_eq(said, table[i].wanted, "%s: %s", table[i].kind, said);
	}
}

Test(series, from_each_moment)
{
	for (size_t i = 0; i < COUNT(table); i++) {
		size_t steady = 0, looks = 0;
		struct pl_series series;

		read_series(table[i].kind, &series);
		for (size_t from = 0; from + 3 < series.count; from++)
			for (size_t windows = 3; from + windows < series.count; windows++, looks++)
				steady += judge(&series, from, windows) == PL_GROWTH_STEADY;
		cr_assert_eq(looks, 253);
		cr_expect(steady >= table[i].least_steady && steady <= table[i].most_steady, "%s: %zu", table[i].kind,
			steady);
	}
}

/* Of two workers behind gunicorn that ended together, and of those which came for them: blocks that the line grew by within
 * lives, what the process allocated besides, what went of older blocks, and what of both is of the beginning of a life, which
 * grows nothing and is no work (the line was said to level off after the seventh window). */
Test(series, workers_that_begin_together)
{
	static const struct {
		uint64_t grown, others, older, begun, begun_others;
	} windows[] = {{921, 82227, 0, 0, 0}, {760, 68260, 6, 0, 0}, {1100, 99020, 6, 0, 0}, {780, 70188, 6, 0, 0}, {924, 82888, 4, 0, 0},
		{0, 1895, 52, 0, 0}, {140, 65527, 0, 587, 52800}, {1251, 112168, 0, 85, 7600}};
	struct pl_sites *sites = pl_sites_new();
	struct pl_history *history = pl_history_new();
	const struct pl_rows_options options = {.group_by = PL_GROUP_LINE, .python = true, .native = true};
	uint32_t leak = sample_site(sites, PL_SITE_PYTHON, "/app/service.py:6:app");
	uint32_t other = sample_site(sites, PL_SITE_PYTHON, "/app/json.py:1:dumps");
	uint32_t older = sample_site(sites, PL_SITE_OLDER, "/app/service.py:6:app");

	for (size_t i = 0; i <= COUNT(windows); i++) {
		const uint64_t grown = i ? windows[i - 1].grown : 121, begun = i ? windows[i - 1].begun : 0;
		const uint64_t others = i ? windows[i - 1].others : 10600;
		struct pl_snapshot *snapshot;

		sample_allocate(sites, leak, (grown + begun) * 4 * 63, (grown + begun) * 4);
		sample_free(sites, leak, (grown + begun) * 3 * 63, (grown + begun) * 3);
		sample_allocate(sites, other, others * 64, others);
		sample_free(sites, other, others * 64, others);
		sample_allocate(sites, older, i ? windows[i - 1].older * 64 : 0, i ? windows[i - 1].older : 0);
		pl_sites_totals(sites, leak)->apart_size -= begun * 63;
		pl_sites_totals(sites, leak)->apart_count -= begun;
		pl_sites_totals(sites, leak)->apart_allocated += begun * 4;
		pl_sites_totals(sites, other)->apart_allocated += i ? windows[i - 1].begun_others : 0;
		snapshot = pl_snapshot_take(sites);
		snapshot->taken_ns = (int64_t)i * 2000000000;
		cr_assert_eq(pl_history_add(history, snapshot), 0);
		if (i >= 4) {
			struct pl_verdict verdict;
			struct pl_rows rows;

			cr_assert_eq(pl_rows_make(snapshot, NULL, &options, &rows), 0);
			cr_assert_eq(pl_verdicts_make(history, &rows, 1, &verdict), 0);
			cr_expect_eq(rows.items[0].line, 6);
			cr_expect_eq(verdict.growth, PL_GROWTH_STEADY, "%zu windows: %s", i, pl_growth_name(verdict.growth));
			pl_rows_free(&rows);
		}
		pl_snapshot_free(snapshot);
	}
	pl_history_free(history);
	pl_sites_free(sites);
}
