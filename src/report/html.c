/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "members.h"
#include "pyleak-version.h"
#include "pyleak/cleanup.h"
#include "pyleak/frame_numbers.h"
#include "pyleak/report.h"
#include "pyleak/units.h"
#include "shown.h"

/*
 * One file with everything in it: html/page.html with its style and its script (put together when
 * pyleak is built), and the data, as JSON in a script element of its own:
 *
 *   report    as --format json has it, with one row
 *   texts     file names, function names, lines of source
 *   frames    [file, function, line, source]: numbers of texts; -1: no source
 *   stacks    [size, size_diff, count, count_diff, allocated bytes, allocated blocks, whether older frames
 *             were cut, domain, frame, …]: numbers of frames, innermost first
 *   series    at_s, rss, size, and sizes of the largest rows, snapshot by snapshot; or null
 *   verdicts  [domain, file name, line, function, kind, text] of rows
 */

enum { SERIES_ROWS = 8 };

extern const unsigned char html_page[];
extern const size_t html_page_size;

static const char data_mark[] = "@DATA@";

/* Numbers texts by what they are, through the keys of an object. */
static json_int_t text_number(json_t *numbers, json_t *texts, const char *text, bool *failed)
{
	pl_autofree char *repaired = pl_text_repair(text);
	json_t *known = repaired ? json_object_get(numbers, repaired) : NULL;
	json_int_t number = (json_int_t)json_array_size(texts);

	if (known)
		return json_integer_value(known);
	*failed |= !repaired || json_array_append_new(texts, json_string(repaired)) < 0 ||
		   json_object_set_new(numbers, repaired, json_integer(number)) < 0;
	return number;
}

static bool append(json_t *array, json_t *value)
{
	return json_array_append_new(array, value) < 0;
}

static bool append_integer(json_t *array, int64_t number)
{
	return append(array, json_integer(number));
}

static bool append_unsigned(json_t *array, uint64_t number)
{
	return append_integer(array, number > INT64_MAX ? INT64_MAX : (int64_t)number);
}

static bool append_figures(json_t *stack, const struct pl_row *row)
{
	return append_integer(stack, row->size) | append_integer(stack, row->size_diff) |
	       append_integer(stack, row->count) | append_integer(stack, row->count_diff) |
	       append_unsigned(stack, row->window.allocated_size) | append_unsigned(stack, row->window.allocated_count);
}

static json_t *make_stack(const struct pl_report *report, const struct pl_row *row, struct pl_frame_numbers *numbers)
{
	struct pl_traceback traceback;
	json_t *stack = json_array();
	bool failed = append_figures(stack, row);

	if (row->site != UINT32_MAX) {
		pl_sites_traceback(report->sites, row->site, &traceback);
	} else {
		traceback.frames[0] = (struct pl_frame){"(more stacks)", "(more stacks)", 0};
		traceback.count = 1;
		traceback.more = false;
	}
	failed |= append_integer(stack, traceback.more) | append_integer(stack, row->domain == PL_SITE_NATIVE);
	for (size_t i = 0; i < traceback.count && !failed; i++) {
		uint32_t number = pl_frame_number(numbers, &traceback.frames[i]);

		failed = number == UINT32_MAX || append_integer(stack, number);
	}
	if (!failed)
		return stack;
	json_decref(stack);
	return NULL;
}

static json_t *make_stacks(const struct pl_report *report, size_t limit, struct pl_frame_numbers *numbers)
{
	size_t shown = shown_rows(report->stacks, limit);
	const struct pl_row rest = shown_rest(report->stacks, shown);
	json_t *stacks = json_array();
	bool failed = !stacks;

	for (size_t i = 0; i < shown && !failed; i++)
		failed = append(stacks, make_stack(report, &report->stacks->items[i], numbers));
	if (shown < report->stacks->count && !failed)
		failed = append(stacks, make_stack(report, &rest, numbers));
	if (!failed)
		return stacks;
	json_decref(stacks);
	return NULL;
}

static json_t *make_frame(const struct pl_frame *frame, const struct pl_report_options *options, json_t *numbers, json_t *texts)
{
	pl_autofree char *source = shown_source(options, frame->filename, frame->line);
	json_t *item = json_array();
	bool failed = false;

	failed |= append_integer(item, text_number(numbers, texts, frame->filename, &failed));
	failed |= append_integer(item, text_number(numbers, texts, frame->function, &failed));
	failed |= append_integer(item, frame->line);
	failed |= append_integer(item, source ? text_number(numbers, texts, source, &failed) : -1);
	if (!failed)
		return item;
	json_decref(item);
	return NULL;
}

/* Adds "frames" and "texts". */
static bool put_frames(json_t *data, const struct pl_frame_numbers *frames, const struct pl_report_options *options)
{
	json_t *texts = json_array(), *list = json_array(), *numbers = json_object();
	bool failed = !numbers;

	for (size_t i = 0; i < frames->count && !failed; i++)
		failed = append(list, make_frame(&frames->items[i], options, numbers, texts));
	json_decref(numbers);
	failed |= put(data, "frames", list);
	failed |= put(data, "texts", texts);
	return failed;
}

static json_t *make_row_series(const struct pl_report *report, const struct pl_row *row, const struct pl_series *series)
{
	json_t *item = json_object(), *sizes = json_array();
	pl_autofree char *name = NULL;
	bool failed = false;
	int length;

	if (report->group_by == PL_GROUP_FILE)
		length = asprintf(&name, "%s", row->filename);
	else if (report->group_by == PL_GROUP_FUNCTION)
		length = asprintf(&name, "%s (%s)", row->function, row->filename);
	else
		length = asprintf(&name, "%s:%d", row->filename, row->line);
	if (length < 0)
		name = NULL;
	for (size_t i = 0; i < series->count; i++)
		failed |= append_integer(sizes, series->points[i].size);
	failed |= put(item, "sizes", sizes);
	failed |= !name || put_string(item, "name", name);
	if (!failed)
		return item;
	json_decref(item);
	return NULL;
}

/* The sum over all rows at one moment. */
static int64_t total_at(const struct pl_series *series, size_t rows, size_t point)
{
	int64_t total = 0;

	for (size_t row = 0; row < rows; row++)
		if (__builtin_add_overflow(total, series[row].points[point].size, &total))
			return INT64_MAX;
	return total;
}

static json_t *make_series(const struct pl_report *report)
{
	size_t rows = report->rows->count, shown = rows < SERIES_ROWS ? rows : SERIES_ROWS, points;
	int64_t taken_ns[PL_HISTORY_POINTS];
	uint64_t rss[PL_HISTORY_POINTS];
	pl_autofree struct pl_series *series = calloc(rows ? rows : 1, sizeof(*series));
	json_t *item = json_object(), *times = json_array(), *resident = json_array(), *sizes = json_array();
	json_t *list = json_array();
	bool failed = !series || pl_history_series(report->history, report->rows, rows, series) < 0;

	points = failed ? 0 : pl_history_moments(report->history, taken_ns, rss);
	for (size_t i = 0; i < points; i++) {
		failed |= append(times, json_real((double)(taken_ns[i] - taken_ns[0]) / PL_NSEC_PER_SEC));
		failed |= append(resident, rss[i] ? json_integer((json_int_t)rss[i]) : json_null());
		failed |= append_integer(sizes, total_at(series, rows, i));
	}
	for (size_t row = 0; row < shown && !failed; row++)
		failed |= append(list, make_row_series(report, &report->rows->items[row], &series[row]));
	failed |= put(item, "at_s", times);
	failed |= put(item, "rss", resident);
	failed |= put(item, "size", sizes);
	failed |= put(item, "rows", list);
	if (!failed)
		return item;
	json_decref(item);
	return NULL;
}

static json_t *make_verdict(const struct pl_report *report, size_t number, const char *text)
{
	const struct pl_row *row = &report->rows->items[number];
	json_t *item = json_array();
	bool failed = append_integer(item, row->domain == PL_SITE_NATIVE);

	failed |= append(item, make_string(row->filename));
	failed |= append_integer(item, row->line);
	failed |= append(item, make_string(row->function ? row->function : ""));
	failed |= append(item, json_string(pl_growth_name(report->verdicts[number].growth)));
	failed |= append(item, make_string(text));
	if (!failed)
		return item;
	json_decref(item);
	return NULL;
}

static json_t *make_verdicts(const struct pl_report *report)
{
	json_t *list = json_array();
	bool failed = !list;

	for (size_t i = 0; i < report->verdict_count && !failed; i++) {
		char text[PL_VERDICT_TEXT];

		pl_verdict_text(&report->verdicts[i], &report->headroom, text);
		if (*text)
			failed = append(list, make_verdict(report, i, text));
	}
	if (!failed)
		return list;
	json_decref(list);
	return NULL;
}

static json_t *make_data(const struct pl_report *report, const struct pl_report_options *options)
{
	static const char *const sorts[] = {
		[PL_SORT_SIZE] = "size",
		[PL_SORT_COUNT] = "count",
		[PL_SORT_AVERAGE] = "average",
		[PL_SORT_SIZE_DIFF] = "size-diff",
		[PL_SORT_COUNT_DIFF] = "count-diff",
		[PL_SORT_CHURN] = "churn",
		[PL_SORT_AGE] = "age",
	};
	__attribute__((cleanup(pl_frame_numbers_free))) struct pl_frame_numbers frames = {0};
	json_t *data = json_object();
	bool failed = false;

	failed |= put_string(data, "writer", "pyleak " PYLEAK_VERSION);
	failed |= put_string(data, "sort", sorts[report->sort]);
	failed |= put(data, "report", report_make(report, 1));
	failed |= put(data, "stacks", make_stacks(report, options->limit, &frames));
	failed |= put_frames(data, &frames, options);
	failed |= put(data, "series", report->history ? make_series(report) : json_null());
	failed |= put(data, "verdicts", make_verdicts(report));
	if (!failed)
		return data;
	json_decref(data);
	return NULL;
}

/* No name may end the script element or open a comment in it: "<" is written as JSON lets it be. */
static void print_data(FILE *out, const char *text)
{
	for (const char *open; (open = strchr(text, '<')); text = open + 1) {
		(void)fwrite(text, 1, (size_t)(open - text), out);
		(void)fputs("\\u003c", out);
	}
	(void)fputs(text, out);
}

int pl_report_html(FILE *out, const struct pl_report *report, const struct pl_report_options *options)
{
	const char *page = (const char *)html_page;
	const char *mark = memmem(page, html_page_size, data_mark, sizeof(data_mark) - 1);
	const char *rest = mark + sizeof(data_mark) - 1;
	json_t *data = make_data(report, options);
	pl_autofree char *text = data ? json_dumps(data, JSON_ENSURE_ASCII | JSON_COMPACT | JSON_REAL_PRECISION(15)) : NULL;

	json_decref(data);
	if (!text)
		return -ENOMEM;
	errno = 0;
	(void)fwrite(page, 1, (size_t)(mark - page), out);
	print_data(out, text);
	(void)fwrite(rest, 1, html_page_size - (size_t)(rest - page), out);
	if (fflush(out) == 0 && !ferror(out))
		return 0;
	return errno ? -errno : -EIO;
}
