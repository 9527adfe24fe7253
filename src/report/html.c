/* SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "account.h"
#include "collector.h"
#include "members.h"
#include "page.h"
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
 *             were cut, domain, caller, kind of caller, thread, frame, …]: numbers of frames, innermost first; the caller
 *             is the place of one among them, the thread a number of threads, or -1
 *   threads   [what it is, what Python did meanwhile] of threads of libraries' own; "": not known
 *   series    at_s, rss, size, and sizes of the largest rows, snapshot by snapshot; or null
 *   verdicts  [domain, file name, line, function, kind, text] of rows
 *   held      [domain, file name, line, function, blocks, [[path, blocks], …]] of rows (--holders)
 *   notes     lines of the text: where the growth went, and what the collector does
 */

enum { SERIES_ROWS = 8, HELD_SHOWN = 3 };

extern const unsigned char html_page[];
extern const size_t html_page_size;

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

/* The number of what is known of a library's own thread; -1: nothing. */
static json_int_t thread_number(const struct pl_report *report, const struct pl_row *row, json_t *threads, bool *failed)
{
	struct pl_thread_texts texts = pl_thread_texts_of(report->sites, row);
	size_t count = json_array_size(threads), at = 0;
	json_t *item;

	if (!texts.thread && !texts.meanwhile)
		return -1;
	item = json_array();
	*failed |= append(item, make_string(texts.thread ? texts.thread : ""));
	*failed |= append(item, make_string(texts.meanwhile ? texts.meanwhile : ""));
	pl_thread_texts_free(&texts);
	/* There are few: of most rows nothing is known. */
	while (at < count && !json_equal(json_array_get(threads, at), item))
		at++;
	if (at < count)
		json_decref(item);
	else
		*failed |= append(threads, item);
	return (json_int_t)at;
}

static json_t *make_stack(const struct pl_report *report, const struct pl_row *row, struct pl_frame_numbers *numbers,
	json_t *threads)
{
	struct pl_traceback traceback;
	struct pl_caller caller = {.kind = PL_CALLER_NONE};
	json_t *stack = json_array();
	bool failed = append_figures(stack, row);

	if (row->site != UINT32_MAX) {
		pl_sites_traceback(report->sites, row->site, &traceback);
		caller = pl_sites_caller(report->sites, row->site);
		/* Native frames stand in front of those of Python. */
		caller.index += traceback.native;
		if (caller.kind == PL_CALLER_NONE || caller.index >= traceback.count)
			caller.index = 0;
	} else {
		traceback.frames[0] = (struct pl_frame){"(more stacks)", "(more stacks)", 0};
		traceback.count = 1;
		traceback.more = false;
	}
	failed |= append_integer(stack, traceback.more) | append_integer(stack, row->domain == PL_SITE_NATIVE);
	failed |= append_unsigned(stack, caller.index) | append_integer(stack, caller.kind);
	failed |= append_integer(stack, thread_number(report, row, threads, &failed));
	for (size_t i = 0; i < traceback.count && !failed; i++) {
		uint32_t number = pl_frame_number(numbers, &traceback.frames[i]);

		failed = number == UINT32_MAX || append_integer(stack, number);
	}
	if (!failed)
		return stack;
	json_decref(stack);
	return NULL;
}

static json_t *make_stacks(const struct pl_report *report, size_t limit, struct pl_frame_numbers *numbers, json_t *threads)
{
	size_t shown = shown_rows(report->stacks, limit);
	const struct pl_row rest = shown_rest(report->stacks, shown);
	json_t *stacks = json_array();
	bool failed = !stacks;

	for (size_t i = 0; i < shown && !failed; i++)
		failed = append(stacks, make_stack(report, &report->stacks->items[i], numbers, threads));
	if (shown < report->stacks->count && !failed)
		failed = append(stacks, make_stack(report, &rest, numbers, threads));
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

/* What there is to say of a row, by its place. */
static json_t *make_remark(const struct pl_report *report, size_t number, const char *kind, const char *text)
{
	const struct pl_row *row = &report->rows->items[number];
	json_t *item = json_array();
	bool failed = append_integer(item, row->domain == PL_SITE_NATIVE);

	failed |= append(item, make_string(row->filename));
	failed |= append_integer(item, row->line);
	failed |= append(item, make_string(row->function ? row->function : ""));
	failed |= append(item, json_string(kind));
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
			failed = append(list, make_remark(report, i, pl_growth_name(report->verdicts[i].growth), text));
	}
	if (!failed)
		return list;
	json_decref(list);
	return NULL;
}

static json_t *make_types(const struct pl_report *report)
{
	json_t *list = json_array();
	bool failed = !list;

	for (size_t i = 0; report->types && i < report->type_count && i < report->rows->count && !failed; i++) {
		char text[PL_ROW_TYPES_TEXT];

		pl_row_types_text(&report->types[i], text);
		if (*text)
			failed = append(list, make_remark(report, i, "types", text));
	}
	if (!failed)
		return list;
	json_decref(list);
	return NULL;
}

static json_t *make_held(const struct pl_report *report, size_t number)
{
	const struct pl_row *row = &report->rows->items[number];
	const struct pl_held_row *held = &report->held[number];
	json_t *item = json_array(), *list = json_array();
	bool failed = append_integer(item, row->domain == PL_SITE_NATIVE);

	failed |= append(item, make_string(row->filename));
	failed |= append_integer(item, row->line);
	failed |= append(item, make_string(row->function ? row->function : ""));
	failed |= append_unsigned(item, held->count);
	for (size_t i = 0; i < held->held_by_count && i < HELD_SHOWN; i++) {
		json_t *holder = json_array();

		failed |= append(holder, make_string(held->held_by[i].path));
		failed |= append_unsigned(holder, held->held_by[i].count);
		failed |= append(list, holder);
	}
	failed |= append(item, list);
	if (!failed)
		return item;
	json_decref(item);
	return NULL;
}

static json_t *make_all_held(const struct pl_report *report)
{
	json_t *list = json_array();
	bool failed = !list;

	for (size_t i = 0; i < report->held_count && i < report->rows->count && !failed; i++)
		if (report->held[i].held_by_count)
			failed = append(list, make_held(report, i));
	if (!failed)
		return list;
	json_decref(list);
	return NULL;
}

/* What the text says beside its rows, in the same words: where the growth went, and what the collector does. NULL: out of
 * memory. */
static json_t *make_notes(const struct pl_report *report)
{
	pl_autofree char *text = NULL;
	size_t length = 0;
	FILE *out = open_memstream(&text, &length);

	if (!out)
		return NULL;
	account_print_headline(out, report);
	account_print(out, report);
	account_print_older(out, report);
	collector_print(out, report);
	return fclose(out) == 0 ? make_string(text) : NULL;
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
	json_t *data = json_object(), *threads = json_array();
	bool failed = false;

	failed |= put_string(data, "writer", "pyleak " PYLEAK_VERSION);
	failed |= put_string(data, "sort", sorts[report->sort]);
	failed |= put(data, "report", report_make(report, 1));
	failed |= put(data, "stacks", make_stacks(report, options->limit, &frames, threads));
	failed |= put(data, "threads", threads);
	failed |= put_frames(data, &frames, options);
	failed |= put(data, "series", report->history ? make_series(report) : json_null());
	failed |= put(data, "verdicts", make_verdicts(report));
	failed |= put(data, "types", make_types(report));
	failed |= put(data, "held", make_all_held(report));
	failed |= put(data, "notes", make_notes(report));
	if (!failed)
		return data;
	json_decref(data);
	return NULL;
}

int pl_report_html(FILE *out, const struct pl_report *report, const struct pl_report_options *options)
{
	json_t *data = make_data(report, options);
	int code = page_print(out, (const char *)html_page, html_page_size, data);

	json_decref(data);
	return code;
}
