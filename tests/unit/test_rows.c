/* SPDX-License-Identifier: MIT */
#include "sample.h"

#include <errno.h>
#include <limits.h>

#include "compare_to.inc"
#include "pyleak/row_types.h"
#include "trace_frames.h"

static const struct pl_rows_options everything = {.python = true, .native = true};

static void check_total(const struct pl_rows *rows)
{
	struct pl_row sum = {0};

	for (size_t i = 0; i < rows->count; i++) {
		sum.size += rows->items[i].size;
		sum.size_diff += rows->items[i].size_diff;
		sum.count += rows->items[i].count;
		sum.count_diff += rows->items[i].count_diff;
		sum.window.allocated_size += rows->items[i].window.allocated_size;
		sum.window.allocated_count += rows->items[i].window.allocated_count;
		sum.window.freed_size += rows->items[i].window.freed_size;
		sum.window.freed_count += rows->items[i].window.freed_count;
	}
	cr_assert_eq(sum.size, rows->total.size);
	cr_assert_eq(sum.size_diff, rows->total.size_diff);
	cr_assert_eq(sum.count, rows->total.count);
	cr_assert_eq(sum.count_diff, rows->total.count_diff);
	cr_assert(memcmp(&sum.window, &rows->total.window, sizeof(sum.window)) == 0);
}

/* "FILE:LINE|FILE:LINE", oldest first, as struct sample_row has it. */
static void describe(
	const struct pl_sites *sites, const struct pl_row *row, enum pl_group group_by, char *text, size_t size)
{
	size_t count;
	const struct pl_frame *frames = trace_frames(sites, row->site, &count, NULL);

	if (group_by != PL_GROUP_TRACEBACK) {
		(void)snprintf(text, size, "%s:%d", row->filename, row->line);
		return;
	}
	while (count--) {
		int length =
			snprintf(text, size, "%s:%d%s", frames[count].filename, frames[count].line, count ? "|" : "");

		text += length;
		size -= (size_t)length;
	}
}

Test(rows, are_tracemallocs)
{
	for (size_t i = 0; i < COUNT(cases); i++) {
		const struct sample_case *wanted = &cases[i];
		struct pl_sites *sites = pl_sites_new();
		struct pl_snapshot *snapshots[2];
		struct pl_rows_options options = everything;
		struct pl_rows rows;
		size_t live = 0;

		sample_snapshots(sites, wanted->traces, wanted->trace_count, snapshots);
		options.group_by = wanted->group_by;
		options.sort = wanted->difference ? PL_SORT_SIZE_DIFF : PL_SORT_SIZE;
		cr_assert_eq(pl_rows_make(snapshots[1], wanted->difference ? snapshots[0] : NULL, &options, &rows), 0);
		check_total(&rows);
		/* Without an older snapshot there are also rows that were live once; they come last. */
		while (live < rows.count && (wanted->difference || rows.items[live].count))
			live++;
		cr_assert_eq(live, wanted->row_count, "case %zu: %zu rows for %zu", i, live, wanted->row_count);
		for (size_t j = 0; j < live; j++) {
			const struct pl_row *row = &rows.items[j];
			const struct sample_row *want = &wanted->rows[j];
			char text[500];

			describe(sites, row, wanted->group_by, text, sizeof(text));
			cr_assert_str_eq(text, want->trace, "case %zu, row %zu: %s for %s", i, j, text, want->trace);
			cr_assert_eq(row->size, want->size);
			cr_assert_eq(row->size_diff, want->size_diff);
			cr_assert_eq(row->count, want->count);
			cr_assert_eq(row->count_diff, want->count_diff);
		}
		pl_rows_free(&rows);
		pl_snapshot_free(snapshots[0]);
		pl_snapshot_free(snapshots[1]);
		pl_sites_free(sites);
	}
}

/* One process to ask in several ways. */
static struct pl_sites *sites;
static struct pl_snapshot *before, *now;
static struct pl_rows rows;

static void set_up(void)
{
	static const struct {
		enum pl_site_domain domain;
		const char *trace;
		struct pl_totals before, window;
	} table[] = {
		{PL_SITE_PYTHON, "/app/x.py:41:encode|/app/main.py:7:run", {1000, 10, 0, 0}, {500, 5, 0, 0}},
		{PL_SITE_PYTHON, "/app/x.py:41:<listcomp>|/app/x.py:41:encode", {3000, 3, 0, 0}, {100, 1, 0, 0}},
		{PL_SITE_PYTHON, "/app/x.py:50:encode", {0, 0, 0, 0}, {400, 4, 400, 4}},
		{PL_SITE_NATIVE, "/app/x.py:41:encode", {8000, 1, 0, 0}, {0, 0, 8000, 1}},
		{PL_SITE_PYTHON, "/lib/site-packages/numpy/core.py:9:zeros", {0, 0, 0, 0}, {90000, 9000, 89000, 8900}},
		{PL_SITE_PYTHON, "/app/tests/y.py:1:<module>", {5, 5, 5, 5}, {0, 0, 0, 0}},
		{PL_SITE_PYTHON, "", {16, 1, 0, 0}, {0, 0, 0, 0}},
	};

	sites = pl_sites_new();
	for (size_t i = 0; i < COUNT(table); i++)
		*pl_sites_totals(sites, sample_site(sites, table[i].domain, table[i].trace)) = table[i].before;
	before = pl_snapshot_take(sites);
	for (size_t i = 0; i < COUNT(table); i++) {
		sample_allocate(sites, (uint32_t)i, table[i].window.allocated_size, table[i].window.allocated_count);
		sample_free(sites, (uint32_t)i, table[i].window.freed_size, table[i].window.freed_count);
	}
	now = pl_snapshot_take(sites);
}

static void tear_down(void)
{
	pl_rows_free(&rows);
	pl_snapshot_free(before);
	pl_snapshot_free(now);
	pl_sites_free(sites);
}

static void make(const struct pl_snapshot *older, struct pl_rows_options options)
{
	pl_rows_free(&rows);
	cr_assert_eq(pl_rows_make(now, older, &options, &rows), 0);
	check_total(&rows);
}

static void expect(size_t i, const char *filename, int line, const char *function, int64_t size, int64_t size_diff,
	int64_t count, int64_t count_diff)
{
	const struct pl_row *row = &rows.items[i];

	cr_assert_lt(i, rows.count);
	cr_assert_str_eq(row->filename, filename, "row %zu: %s", i, row->filename);
	cr_assert_eq(row->line, line, "row %zu: %d", i, row->line);
	if (function)
		cr_assert_str_eq(row->function, function, "row %zu: %s", i, row->function);
	else
		cr_assert_null(row->function);
	cr_assert_eq(row->size, size, "row %zu: %ld", i, (long)row->size);
	cr_assert_eq(row->size_diff, size_diff, "row %zu: %ld", i, (long)row->size_diff);
	cr_assert_eq(row->count, count, "row %zu: %ld", i, (long)row->count);
	cr_assert_eq(row->count_diff, count_diff, "row %zu: %ld", i, (long)row->count_diff);
}

TestSuite(grouping, .init = set_up, .fini = tear_down);

Test(grouping, by_line)
{
	struct pl_rows_options options = everything;

	options.sort = PL_SORT_SIZE_DIFF;
	make(before, options);
	cr_assert_eq(rows.count, 5);
	/* By how much, up or down, as tracemalloc's compare_to() */
	expect(0, "/app/x.py", 41, "encode", 0, -8000, 0, -1);
	cr_assert_eq(rows.items[0].domain, PL_SITE_NATIVE);
	expect(1, "/lib/site-packages/numpy/core.py", 9, "zeros", 1000, 1000, 100, 100);
	expect(2, "/app/x.py", 41, "encode", 4600, 600, 19, 6);
	cr_assert_eq(rows.items[2].domain, PL_SITE_PYTHON);
	cr_assert_eq(rows.items[2].site, 0, "the site that grew most");
	cr_assert_eq(rows.items[2].site_size, 1500);
	cr_assert_eq(rows.items[2].site_count, 15);
	expect(3, "<unknown>", 0, "<unknown>", 16, 0, 1, 0);
	expect(4, "/app/x.py", 50, "encode", 0, 0, 0, 0);
	cr_assert_eq(rows.items[4].window.allocated_size, 400);
	cr_assert_eq(rows.items[4].window.freed_count, 4);
}

Test(grouping, since_the_start)
{
	struct pl_rows_options options = everything;

	options.sort = PL_SORT_SIZE;
	make(NULL, options);
	expect(0, "/app/x.py", 41, "<listcomp>", 4600, 0, 19, 0);
	cr_assert_eq(rows.items[0].site, 1, "the site with most bytes");
	cr_assert_eq(rows.items[0].site_size, 3100);
	cr_assert_eq(rows.items[0].site_count, 4);
	cr_assert_eq(rows.items[0].window.allocated_size, 4600);
	cr_assert_eq(rows.total.size_diff, 0);
	cr_assert_eq(rows.total.size, 5616);
}

Test(grouping, by_file)
{
	struct pl_rows_options options = everything;

	options.group_by = PL_GROUP_FILE;
	options.sort = PL_SORT_SIZE;
	options.native = false;
	make(before, options);
	cr_assert_eq(rows.count, 3);
	expect(0, "/app/x.py", 0, NULL, 4600, 600, 19, 6);
	expect(1, "/lib/site-packages/numpy/core.py", 0, NULL, 1000, 1000, 100, 100);
	expect(2, "<unknown>", 0, NULL, 16, 0, 1, 0);
}

Test(grouping, by_function)
{
	struct pl_rows_options options = everything;

	options.group_by = PL_GROUP_FUNCTION;
	options.sort = PL_SORT_SIZE;
	options.native = false;
	make(before, options);
	cr_assert_eq(rows.count, 4);
	expect(0, "/app/x.py", 41, "<listcomp>", 3100, 100, 4, 1);
	expect(1, "/app/x.py", 41, "encode", 1500, 500, 15, 5);
	cr_assert_eq(rows.items[1].window.allocated_size, 900, "lines 41 and 50");
}

Test(grouping, by_traceback)
{
	struct pl_rows_options options = everything;

	options.group_by = PL_GROUP_TRACEBACK;
	options.sort = PL_SORT_COUNT;
	make(before, options);
	cr_assert_eq(rows.count, 6, "one for each site but that of the test, which did nothing");
	expect(0, "/lib/site-packages/numpy/core.py", 9, "zeros", 1000, 1000, 100, 100);
	expect(1, "/app/x.py", 41, "encode", 1500, 500, 15, 5);
	expect(2, "/app/x.py", 41, "<listcomp>", 3100, 100, 4, 1);
	for (size_t i = 0; i < rows.count; i++) {
		cr_assert_eq(rows.items[i].site_size, rows.items[i].size);
		cr_assert_eq(rows.items[i].site_count, rows.items[i].count);
	}
}

Test(grouping, order)
{
	static const struct {
		enum pl_sort sort;
		int lines[5]; /* of the rows, from the first */
	} table[] = {
		{PL_SORT_SIZE, {41, 9, 0, 50, 41}},
		{PL_SORT_COUNT, {9, 41, 0, 50, 41}},
		{PL_SORT_AVERAGE, {41, 0, 9, 50, 41}},
		{PL_SORT_SIZE_DIFF, {41, 9, 41, 0, 50}},
		{PL_SORT_COUNT_DIFF, {9, 41, 41, 0, 50}},
		{PL_SORT_CHURN, {9, 41, 50, 0, 41}},
	};

	for (size_t i = 0; i < COUNT(table); i++) {
		struct pl_rows_options options = everything;

		options.sort = table[i].sort;
		make(before, options);
		cr_assert_eq(rows.count, 5);
		for (size_t j = 0; j < rows.count; j++)
			cr_assert_eq(rows.items[j].line, table[i].lines[j], "sort %zu, row %zu: %d", i, j,
				rows.items[j].line);
	}
}

Test(grouping, domains)
{
	struct pl_rows_options options = everything;

	options.python = false;
	make(before, options);
	cr_assert_eq(rows.count, 1);
	cr_assert_eq(rows.total.size_diff, -8000);
	options.native = false;
	make(before, options);
	cr_assert_eq(rows.count, 0);
	cr_assert_eq(rows.total.size, 0);
}

Test(grouping, globs)
{
	static const struct {
		const char *include[3], *exclude[3];
		size_t count;
	} table[] = {
		{{NULL}, {NULL}, 5}, {{"/app/*"}, {NULL}, 3}, {{"x.py"}, {NULL}, 3}, /* the last part of the name */
		{{"*/numpy/*"}, {NULL}, 1},					     /* '*' goes over '/' */
		{{"numpy"}, {NULL}, 0},						     /* a part in the middle is none */
		{{"x.py", "core.p?"}, {NULL}, 4}, {{"app/x.py"}, {NULL}, 0}, {{NULL}, {"*site-packages*"}, 4},
		{{NULL}, {"<unknown>", "[cx]*.py"}, 0}, {{"/app/*"}, {"x.py"}, 0}, /* what is excluded stays so */
	};

	for (size_t i = 0; i < COUNT(table); i++) {
		struct pl_rows_options options = everything;

		options.include = table[i].include[0] ? table[i].include : NULL;
		options.exclude = table[i].exclude;
		make(before, options);
		cr_assert_eq(rows.count, table[i].count, "globs %zu: %zu rows", i, rows.count);
	}
}

Test(grouping, snapshots_of_other_sites_are_refused)
{
	struct pl_sites *others = pl_sites_new();
	struct pl_snapshot *other = pl_snapshot_take(others);

	cr_assert_eq(pl_rows_make(now, other, &everything, &rows), -EINVAL);
	cr_assert_eq(rows.count, 0);
	pl_snapshot_free(other);
	pl_sites_free(others);
}

Test(rows, average)
{
	static const struct {
		int64_t size, count, average;
	} table[] = {
		{0, 0, 0},
		{10, 0, 0},
		{801112985, 16707940, 48},
		{7, 2, 4}, /* a half goes to the even number */
		{5, 2, 2},
		{8, 3, 3},
		{7, 3, 2},
		{0, 5, 0},
		{INT64_MAX, 1, INT64_MAX},
		{INT64_MAX, INT64_MAX, 1},
		{1, INT64_MAX, 0},
		{INT64_MAX / 2 + 1, INT64_MAX, 1},
	};

	for (size_t i = 0; i < COUNT(table); i++) {
		const struct pl_row row = {.size = table[i].size, .count = table[i].count};

		cr_assert_eq(pl_row_average(&row), table[i].average, "row %zu: %ld", i, (long)pl_row_average(&row));
	}
}

/* A total that was read while it changed, or that a hostile process wrote. */
Test(rows, impossible_totals)
{
	static const struct pl_totals impossible[] = {
		{10, 1, 20, 2},
		{UINT64_MAX, UINT64_MAX, 0, 0},
		{UINT64_MAX, UINT64_MAX, 0, 0},
		{0, 0, UINT64_MAX, UINT64_MAX},
	};
	struct pl_sites *own = pl_sites_new();
	struct pl_snapshot *first, *second;
	struct pl_rows result;

	for (int i = 0; i < (int)COUNT(impossible); i++) {
		struct pl_frame frame = {pl_sites_string(own, "a.py"), NULL, i};

		*pl_sites_totals(own, pl_sites_intern(own, PL_SITE_PYTHON, &frame, 1, false)) = impossible[i];
	}
	first = pl_snapshot_take(own);
	for (uint32_t i = 0; i < COUNT(impossible); i++)
		*pl_sites_totals(own, i) = impossible[COUNT(impossible) - 1 - i];
	second = pl_snapshot_take(own);
	cr_assert_eq(pl_rows_make(second, first, &everything, &result), 0);
	for (size_t i = 0; i < result.count; i++) {
		cr_assert_geq(result.items[i].size, 0);
		cr_assert_geq(result.items[i].count, 0);
	}
	cr_assert_eq(result.total.size, INT64_MAX);
	pl_rows_free(&result);
	pl_snapshot_free(first);
	pl_snapshot_free(second);
	pl_sites_free(own);
}

/* Variances of independent estimates add up; those of a difference are at most the sum of both ends'. */
Test(rows, variances_add_up)
{
	struct pl_sites *own = pl_sites_new();
	const char *name = pl_sites_string(own, "a.py");
	struct pl_rows summed;

	for (int i = 0; i < 2; i++) {
		/* Two callers of one line. */
		const struct pl_frame frames[] = {{name, name, 7}, {name, name, 10 + i}};
		struct pl_totals *totals = pl_sites_totals(own, pl_sites_intern(own, PL_SITE_PYTHON, frames, 2, false));

		*totals = (struct pl_totals){.allocated_size = 100, .allocated_count = 1, .size_variance = 9, .count_variance = 4};
	}

	struct pl_snapshot *older = pl_snapshot_take(own);

	pl_sites_totals(own, 0)->size_variance = 16;

	struct pl_snapshot *newer = pl_snapshot_take(own);

	cr_assert_eq(pl_rows_make(newer, older, &everything, &summed), 0);
	cr_assert_eq(summed.count, 1);
	cr_assert_float_eq(summed.items[0].window.size_variance, 16 + 9, 1e-9);
	cr_assert_float_eq(summed.items[0].window.count_variance, 4 + 4, 1e-9);
	cr_assert_float_eq(summed.items[0].size_diff_variance, 16 + 9 + 9 + 9, 1e-9);
	cr_assert_float_eq(summed.total.count_diff_variance, 4 + 4 + 4 + 4, 1e-9);
	pl_rows_free(&summed);
	pl_snapshot_free(older);
	pl_snapshot_free(newer);
	pl_sites_free(own);
}

/* Every site is in exactly the row whose place it has, and a row is as old as the oldest of its sites. */
Test(grouping, sites_of_rows)
{
	for (int group_by = PL_GROUP_LINE; group_by <= PL_GROUP_TRACEBACK; group_by++) {
		struct pl_rows_options options = everything;

		options.group_by = (enum pl_group)group_by;
		options.sort = PL_SORT_AGE;
		make(before, options);
		for (uint32_t site = 0; site < now->count; site++) {
			int64_t size = (int64_t)(now->totals[site].allocated_size - now->totals[site].freed_size);
			size_t in = 0;

			for (size_t i = 0; i < rows.count; i++) {
				if (!pl_row_has_site(&rows.items[i], options.group_by, sites, site))
					continue;
				in++;
				rows.items[i].size -= size;
				cr_assert_leq(rows.items[i].born_ns, pl_sites_born(sites, site));
			}
			cr_assert_leq(in, 1);
			cr_assert(in == 1 || size == 0);
		}
		for (size_t i = 0; i < rows.count; i++) {
			cr_assert_eq(rows.items[i].size, 0, "the sizes of its sites");
			if (i)
				cr_assert_leq(rows.items[i - 1].born_ns, rows.items[i].born_ns, "the oldest first");
			for (size_t j = 0; j < rows.count; j++)
				cr_assert_eq(pl_row_is_same(&rows.items[i], &rows.items[j], options.group_by), i == j);
		}
	}
}

Test(grouping, copy_of_a_snapshot)
{
	struct pl_snapshot *copy = pl_snapshot_copy(now);

	cr_assert_eq(copy->count, now->count);
	cr_assert_eq(copy->taken_ns, now->taken_ns);
	cr_assert_neq(copy->totals, now->totals);
	cr_assert_arr_eq(copy->totals, now->totals, now->count * sizeof(*now->totals));
	pl_snapshot_free(copy);
}

/* -- what the live blocks of a row are ------------------------------------------------------------- */

Test(row_types, text)
{
	char text[PL_ROW_TYPES_TEXT];
	struct pl_row_types types = {.blocks = 30};

	pl_row_types_text(&types, text);
	cr_assert_str_empty(text);
	cr_assert_eq(pl_row_types_share(&types, "traceback"), 0);
	pl_row_types_add(&types, NULL, 10); /* a part of another object */
	pl_row_types_add(&types, "frame", 12);
	pl_row_types_add(&types, "traceback", 6);
	pl_row_types_add(&types, "traceback", 2);
	pl_row_types_finish(&types, 30);
	pl_row_types_text(&types, text);
	cr_assert_str_eq(text, "12 frame, 8 traceback");
	cr_assert_eq(pl_row_types_share(&types, "traceback"), 40);
	/* Those stand for a hundred times as many. */
	pl_row_types_finish(&types, 3000);
	pl_row_types_text(&types, text);
	cr_assert_str_eq(text, "about 1200 frame, 800 traceback");
	/* More types than there is room for. */
	types = (struct pl_row_types){.blocks = 100};
	for (char name[] = "a"; name[0] <= 'l'; name[0]++)
		pl_row_types_add(&types, name, name[0] == 'l' ? 50 : 1);
	pl_row_types_finish(&types, 100);
	pl_row_types_text(&types, text);
	cr_assert_eq(types.count, PL_ROW_TYPES);
	cr_assert_eq(strncmp(text, "50 l, 1 ", 8), 0, "%s", text);
	cr_assert_str_eq(strrchr(text, ','), ", 8 others", "%s", text);
}
