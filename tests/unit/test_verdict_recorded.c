/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/recording_file.h"
#include "pyleak/verdict.h"

/*
 * How often verdicts err, on series that pyleak recorded of running programs: tests/series/record.py makes them, of
 * tests/series/service.py, whose lines say what they are. Each row of a line that says it is a series, judged after each
 * of its windows. PYLEAK_TABLE=1 prints the table of the manual page (tests/series/table.py puts it there), and
 * PYLEAK_SERIES=1 each series with what was said of it (PYLEAK_SERIES=points: with its numbers as well).
 */

enum { LABELS_MAX = 128, WINDOWS_MAX = 30, KINDS_MAX = 64, JUDGED_FROM = 8 };

struct label {
	int line;
	char kind[32];
};

static struct label labels[LABELS_MAX];
static size_t label_count;

/* What was said of the series of a kind, after so many windows. */
struct tally {
	char kind[64];
	bool leak;
	size_t series;
	size_t looks[WINDOWS_MAX + 1]; /* how many have so many windows */
	size_t said[WINDOWS_MAX + 1][PL_GROWTH_TURNOVER + 1];
};

static struct tally tallies[KINDS_MAX];
static size_t tally_count;

/* PYLEAK_SERIES_DATA: of another set, which nothing was tuned with. */
static const char *data_folder(void)
{
	const char *other = getenv("PYLEAK_SERIES_DATA");

	return other ? other : SERIES_DATA;
}

static void read_labels(void)
{
	char path[PATH_MAX];
	FILE *file;

	(void)snprintf(path, sizeof(path), "%s/labels", data_folder());
	file = fopen(path, "r");
	cr_assert_not_null(file);
	label_count = 0;
	while (label_count < LABELS_MAX &&
		fscanf(file, "%d %31s", &labels[label_count].line, labels[label_count].kind) == 2)
		label_count++;
	(void)fclose(file);
	cr_assert_gt(label_count, 10);
}

/* What the row's line says it is; NULL: it is not judged. */
static const char *label_of(const struct pl_row *row)
{
	const char *slash = strrchr(row->filename, '/'), *name = slash ? slash + 1 : row->filename;

	/* The forty caches of the service are made of a text. */
	if (strncmp(row->filename, "/srv/cache_", 11) == 0)
		return "full";
	for (size_t i = 0; strcmp(name, "service.py") == 0 && i < label_count; i++)
		if (labels[i].line == row->line)
			return labels[i].kind;
	return NULL;
}

static struct tally *tally_of(const char *recording, const char *label)
{
	char kind[64], *at;
	bool tables = strcmp(label, "tables") == 0, leak = tables || strcmp(label, "leak") == 0;

	/* NUMBER-KIND-TRAFFIC-PYTHON: leaks by their traffic, the others by what they are. */
	(void)snprintf(kind, sizeof(kind), "%s", label);
	if (leak) {
		char copy[NAME_MAX + 1], *rest = copy, *number, *service;

		(void)snprintf(copy, sizeof(copy), "%s", recording);
		number = strsep(&rest, "-");
		service = strsep(&rest, "-");
		at = strsep(&rest, "-");
		(void)number;
		if (tables)
			(void)snprintf(kind, sizeof(kind), "leak: tables alone");
		else if (strncmp(service, "beside", 6) == 0)
			(void)snprintf(kind, sizeof(kind), "leak: service");
		else if (strcmp(service, "leak_cycles") == 0 || strcmp(service, "leak_some") == 0 || strcmp(service, "service") == 0)
			(void)snprintf(kind, sizeof(kind), "leak: %s", service);
		else
			(void)snprintf(kind, sizeof(kind), "leak: %s", at);
	}
	for (size_t i = 0; i < tally_count; i++)
		if (strcmp(tallies[i].kind, kind) == 0)
			return &tallies[i];
	cr_assert_lt(tally_count, KINDS_MAX);
	(void)snprintf(tallies[tally_count].kind, sizeof(tallies[tally_count].kind), "%s", kind);
	tallies[tally_count].leak = leak;
	return &tallies[tally_count++];
}

static const char letters[] = {
	[PL_GROWTH_NONE] = '-',
	[PL_GROWTH_EARLY] = 'E',
	[PL_GROWTH_STEADY] = 'S',
	[PL_GROWTH_LEVELLING] = 'L',
	[PL_GROWTH_NOISE] = 'N',
	[PL_GROWTH_TURNOVER] = 'T',
};

/* What was said of a row after each of its windows. */
static void judge(const struct pl_series *series, char said[WINDOWS_MAX + 1])
{
	struct pl_series so_far = *series;
	struct pl_verdict verdict;

	for (so_far.count = 2; so_far.count <= series->count; so_far.count++) {
		pl_verdict_judge(&so_far, &verdict);
		said[so_far.count - 2] = letters[verdict.growth];
	}
	said[series->count - 1] = 0;
}

/* The rows of all its sites as the last snapshot has them: their numbers hold for all snapshots before. */
static struct pl_snapshot **read_snapshots(const char *name, struct pl_sites *sites, size_t *ret_count)
{
	struct pl_snapshot **snapshots = calloc(WINDOWS_MAX + 2, sizeof(struct pl_snapshot *));
	struct pl_recording_reader *reader;
	char path[PATH_MAX];
	FILE *stream;
	size_t count = 0;

	(void)snprintf(path, sizeof(path), "%s/%s", data_folder(), name);
	stream = fopen(path, "r");
	cr_assert_not_null(stream, "%s", path);
	cr_assert_eq(pl_recording_reader_new(stream, name, sites, &reader, NULL), 0, "%s", path);
	do
		snapshots[count++] = pl_recording_reader_snapshot(reader);
	while (count <= WINDOWS_MAX && pl_recording_reader_next(reader, NULL) == 1);
	pl_recording_reader_free(reader);
	(void)fclose(stream);
	*ret_count = count;
	return snapshots;
}

/* Size, count, allocated, turned and work at each snapshot. */
static void print_points(const struct pl_series *series)
{
	for (size_t i = 0; i < series->count; i++) {
		const struct pl_point *point = &series->points[i];

		(void)fprintf(stderr, "\t%2zu %8jd %6jd %6ju %8.1f %9ju\n", i, (intmax_t)point->size, (intmax_t)point->count,
			(uintmax_t)point->allocated, point->turned, (uintmax_t)point->work);
	}
}

static void take_recording(const char *name)
{
	const struct pl_rows_options options = {.group_by = PL_GROUP_LINE, .python = true, .native = true};
	struct pl_sites *sites = pl_sites_new();
	struct pl_history *history = pl_history_new();
	size_t count;
	struct pl_snapshot **snapshots = read_snapshots(name, sites, &count);
	struct pl_rows rows;

	cr_assert_eq(pl_rows_make(snapshots[count - 1], NULL, &options, &rows), 0);

	for (size_t i = 0; i < count; i++)
		cr_assert_eq(pl_history_add(history, snapshots[i]), 0);

	/* A history holds as many, so that what it has of the first windows now is what it had then. */
	struct pl_series *series = calloc(rows.count + 1, sizeof(*series));

	cr_assert_eq(pl_history_series(history, &rows, rows.count, series), 0);
	for (size_t row = 0; row < rows.count; row++) {
		const char *label = label_of(&rows.items[row]);
		char said[WINDOWS_MAX + 1];
		struct tally *tally;

		if (!label)
			continue;
		judge(&series[row], said);
		tally = tally_of(name, label);
		tally->series++;
		for (size_t i = 1; i < count; i++) {
			tally->looks[i]++;
			for (size_t growth = 0; growth < sizeof(letters); growth++)
				tally->said[i][growth] += said[i - 1] == letters[growth];
		}
		if (getenv("PYLEAK_SERIES"))
			(void)fprintf(stderr, "%-10s %-40s %4d %s\n", label, name, rows.items[row].line, said);
		if (getenv("PYLEAK_SERIES") && strcmp(getenv("PYLEAK_SERIES"), "points") == 0)
			print_points(&series[row]);
	}
	free(series);
	pl_rows_free(&rows);
	for (size_t i = 0; i < count; i++)
		pl_snapshot_free(snapshots[i]);
	free(snapshots);
	pl_history_free(history);
	pl_sites_free(sites);
}

static int is_recording(const struct dirent *entry)
{
	const char *dot = strrchr(entry->d_name, '.');

	return dot && strcmp(dot, ".pyleak") == 0;
}

static double percent(size_t part, size_t whole)
{
	return whole ? 100.0 * (double)part / (double)whole : 0;
}

static void print_table(void)
{
	static const size_t looks[] = {4, 6, 8, 12, 16, 20};

	(void)fprintf(stderr, "%-28s %6s", "% called a leak after", "series");
	for (size_t i = 0; i < sizeof(looks) / sizeof(looks[0]); i++)
		(void)fprintf(stderr, "  %4zu", looks[i]);
	(void)fputc('\n', stderr);
	for (int leak = 0; leak < 2; leak++)
		for (size_t k = 0; k < tally_count; k++) {
			const struct tally *tally = &tallies[k];

			if (tally->leak != leak)
				continue;
			(void)fprintf(stderr, "%-28s %6zu", tally->kind, tally->series);
			for (size_t i = 0; i < sizeof(looks) / sizeof(looks[0]); i++)
				(void)fprintf(stderr, "  %4.0f", percent(tally->said[looks[i]][PL_GROWTH_STEADY], tally->looks[looks[i]]));
			(void)fputc('\n', stderr);
		}
}

/* Cycles that are collected now and then hide for longer what is left of them. */
static bool is_in_bursts(const struct tally *tally)
{
	return strcmp(tally->kind, "leak: leak_cycles") == 0;
}

/* A leak that shows in nothing but tables which are made larger, once or twice in twenty windows: it is said of none that it
 * is none, and of few that it is one. */
static bool is_of_tables(const struct tally *tally)
{
	return strcmp(tally->kind, "leak: tables alone") == 0;
}

/* After eight windows: fewer than 2 % of what is no leak is called one, and fewer than 5 % of the leaks are not; and
 * none of these is called noise, or said to level off. */
Test(verdict_recorded, errors)
{
	struct dirent **names;
	int count = scandir(data_folder(), &names, is_recording, alphasort);
	size_t series = 0, leaks = 0, others = 0, alarms = 0, missed = 0, denied = 0;

	cr_assert_gt(count, 0);
	read_labels();
	for (int i = 0; i < count; i++) {
		take_recording(names[i]->d_name);
		free(names[i]);
	}
	free(names);
	for (size_t k = 0; k < tally_count; k++) {
		const struct tally *tally = &tallies[k];

		series += tally->series;
		if (tally->leak) {
			leaks += is_of_tables(tally) ? 0 : tally->looks[JUDGED_FROM];
			missed += is_of_tables(tally) ? 0 : tally->looks[JUDGED_FROM] - tally->said[JUDGED_FROM][PL_GROWTH_STEADY];
			for (size_t windows = JUDGED_FROM; windows <= 20 && !is_in_bursts(tally); windows++)
				denied += tally->said[windows][PL_GROWTH_NOISE] + tally->said[windows][PL_GROWTH_LEVELLING];
		} else {
			others += tally->looks[JUDGED_FROM];
			alarms += tally->said[JUDGED_FROM][PL_GROWTH_STEADY];
		}
	}
	if (getenv("PYLEAK_TABLE"))
		print_table();
	(void)fprintf(stderr, "%zu series: %.1f %% of %zu false alarms, %.1f %% of %zu missed, %zu looks deny a leak\n", series,
		percent(alarms, others), others, percent(missed, leaks), leaks, denied);
	cr_expect_geq(series, 200);
	cr_expect_lt(percent(alarms, others), 2.0);
	cr_expect_lt(percent(missed, leaks), 5.0);
	cr_expect_eq(denied, 0);
}
