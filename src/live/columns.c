/* SPDX-License-Identifier: MIT */
#include "columns.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"
#include "pyleak/report.h"
#include "pyleak/units.h"

enum { CALLERS_SHOWN = 3 };
#define SLOW_PER_SECOND 10.0
#define COUNT_MAX 99999999 /* what fits its column */

void live_format_age(int64_t ns, char text[LIVE_CELL_MAX])
{
	int64_t seconds = ns > 0 ? ns / PL_NSEC_PER_SEC : 0;

	if (seconds < 60)
		(void)snprintf(text, PL_SIZE_TEXT, "%" PRId64 "s", seconds);
	else if (seconds < 3600)
		(void)snprintf(text, PL_SIZE_TEXT, "%" PRId64 "m", seconds / 60);
	else if (seconds < 48 * 3600)
		(void)snprintf(text, PL_SIZE_TEXT, "%" PRId64 "h", seconds / 3600);
	else
		(void)snprintf(text, PL_SIZE_TEXT, "%" PRId64 "d", seconds / (24 * 3600));
}

static void format_count(int64_t count, bool sign, char text[LIVE_CELL_MAX])
{
	if (count > COUNT_MAX || count < -COUNT_MAX)
		(void)snprintf(text, LIVE_CELL_MAX, sign ? "%+" PRId64 "M" : "%" PRId64 "M", count / 1000000);
	else
		(void)snprintf(text, LIVE_CELL_MAX, sign ? "%+" PRId64 : "%" PRId64, count);
}

static enum live_style style_of_change(int64_t change)
{
	return change > 0 ? LIVE_GREW : change < 0 ? LIVE_SHRANK : LIVE_DIM;
}

static enum live_style size(const struct live_model *model, const struct pl_row *row, char text[LIVE_CELL_MAX])
{
	pl_format_size(row->size, false, text);
	return LIVE_BOLD;
}

static enum live_style size_change(const struct live_model *model, const struct pl_row *row, char text[LIVE_CELL_MAX])
{
	if (model->window_ns && row->size_diff)
		pl_format_size_like(row->size_diff, true, row->size, text);
	else
		(void)snprintf(text, LIVE_CELL_MAX, "%s", model->window_ns ? "0 B" : "");
	return style_of_change(row->size_diff);
}

static enum live_style count(const struct live_model *model, const struct pl_row *row, char text[LIVE_CELL_MAX])
{
	format_count(row->count, false, text);
	return LIVE_PLAIN;
}

static enum live_style count_change(const struct live_model *model, const struct pl_row *row, char text[LIVE_CELL_MAX])
{
	text[0] = '\0';
	if (model->window_ns)
		format_count(row->count_diff, row->count_diff != 0, text);
	return style_of_change(row->count_diff);
}

static enum live_style average(const struct live_model *model, const struct pl_row *row, char text[LIVE_CELL_MAX])
{
	text[0] = '\0';
	if (row->count > 0)
		pl_format_average(row->size, row->count, text);
	return LIVE_PLAIN;
}

/* Windows have different lengths: so, bytes in each second, and what is slow in each hour. */
static enum live_style churn(const struct live_model *model, const struct pl_row *row, char text[LIVE_CELL_MAX])
{
	int64_t since = live_model_shown(model)->taken_ns - model->facts.recording.since_ns;
	double seconds = (double)(model->window_ns ? model->window_ns : since) / PL_NSEC_PER_SEC;
	double rate = seconds > 0 ? (double)row->window.allocated_size / seconds : 0;

	if (rate > 0 && rate < SLOW_PER_SECOND) {
		pl_format_size((int64_t)(rate * 3600), false, text);
		(void)strcat(text, "/h");
	} else {
		pl_format_size(rate < 1e18 ? (int64_t)rate : INT64_MAX, false, text);
	}
	return LIVE_PLAIN;
}

static enum live_style age(const struct live_model *model, const struct pl_row *row, char text[LIVE_CELL_MAX])
{
	/* What was there when a recording was adopted is older than this view. */
	bool at_least = model->facts.adopted && row->born_ns <= model->first_ns;

	text[0] = '>';
	live_format_age(live_model_shown(model)->taken_ns - row->born_ns, text + at_least);
	return LIVE_PLAIN;
}

const struct live_column live_columns_table[LIVE_COLUMN_COUNT] = {
	{"SIZE", 9, PL_SORT_SIZE, 0, size},
	{"CHANGE", 10, PL_SORT_SIZE_DIFF, 0, size_change},
	{"COUNT", 9, PL_SORT_COUNT, 64, count},
	{"CHANGE", 9, PL_SORT_COUNT_DIFF, 120, count_change},
	{"AVERAGE", 9, PL_SORT_AVERAGE, 80, average},
	{"CHURN/s", 9, PL_SORT_CHURN, 100, churn},
	{"AGE", 5, PL_SORT_AGE, 90, age},
};

char *live_source(const struct live_model *model, const char *filename, int line)
{
	pl_autofree char *source =
		model->state.source_pid ? pl_source_line(model->state.source_pid, filename, line) : NULL;

	return source ? pl_printable(source) : NULL;
}

int live_line(const struct live_model *model, const struct pl_row *row)
{
	int found = 0;

	/* A function's row is of all its lines: it is shown where it begins. */
	if (model->group_by == PL_GROUP_FUNCTION && model->state.source_pid)
		found = pl_source_definition(model->state.source_pid, row->filename, row->function, row->line);
	return found ? found : row->line;
}

/* "main.py:12 > views.py:7 > ": who called, without which the rows of one line look the same. */
static char *format_callers(const struct live_model *model, const struct pl_row *row)
{
	const struct pl_sites *sites = live_model_shown(model)->sites;
	size_t count, shown;
	const uint32_t *trace = pl_sites_trace(sites, row->site, &count, NULL);
	char *text = strdup("");

	shown = count < 1 + CALLERS_SHOWN ? count : 1 + CALLERS_SHOWN;
	for (size_t i = 1; text && i < shown; i++) {
		const struct pl_frame *frame = pl_sites_frame(sites, trace[i]);
		pl_autofree char *filename = pl_printable(frame->filename), *inner = text;
		const char *slash = filename ? strrchr(filename, '/') : NULL;

		text = NULL;
		if (!filename || asprintf(&text, "%s:%d > %s", slash ? slash + 1 : filename, frame->line, inner) < 0)
			return NULL;
	}
	return text;
}

char *live_format_place(const struct live_model *model, const struct pl_row *row)
{
	pl_autofree char *filename = pl_printable(row->filename);
	pl_autofree char *function = row->function ? pl_printable(row->function) : NULL;
	pl_autofree char *callers = model->group_by == PL_GROUP_TRACEBACK ? format_callers(model, row) : NULL;
	char *place = NULL, process[PL_SIZE_TEXT] = "";
	int length;

	if (!filename || (row->function && !function))
		return NULL;
	if (row->pid)
		(void)snprintf(process, sizeof(process), " pid=%d", (int)row->pid);
	if (model->group_by == PL_GROUP_FILE)
		length = asprintf(&place, "%s%s", filename, process);
	else if (model->group_by == PL_GROUP_FUNCTION && function)
		length = asprintf(&place, "%s:%d (%s)%s", filename, live_line(model, row), function, process);
	else
		length = asprintf(&place, "%s%s:%d%s", callers ? callers : "", filename, row->line, process);
	return length < 0 ? NULL : place;
}
