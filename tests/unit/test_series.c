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
