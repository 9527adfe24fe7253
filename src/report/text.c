/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "account.h"
#include "collector.h"
#include "held.h"
#include "native_text.h"
#include "pyleak/cleanup.h"
#include "pyleak/report.h"
#include "pyleak/text.h"
#include "pyleak/units.h"
#include "shown.h"
#include "terms.h"
#include "windows.h"

#define MAX_SOURCE_LENGTH 500

struct text {
	FILE *out;
	const struct pl_report *report;
	const struct pl_report_options *options;
	bool difference;
};

enum style { STYLE_BOLD, STYLE_GROWN, STYLE_SHRUNK, STYLE_DIM };

static const char *const styles[] = {
	[STYLE_BOLD] = "\033[1m",
	[STYLE_GROWN] = "\033[31m",
	[STYLE_SHRUNK] = "\033[32m",
	[STYLE_DIM] = "\033[2m",
};

static void begin(const struct text *text, enum style style)
{
	if (text->options->color)
		(void)fputs(styles[style], text->out);
}

static void end(const struct text *text)
{
	if (text->options->color)
		(void)fputs("\033[0m", text->out);
}

static void print_size(const struct text *text, int64_t bytes)
{
	char size[PL_SIZE_TEXT];

	pl_format_size(bytes, false, size);
	begin(text, STYLE_BOLD);
	(void)fputs(size, text->out);
	end(text);
}

static void print_change(const struct text *text, int64_t number, const char *change)
{
	if (number == 0) {
		(void)fputs(change, text->out);
		return;
	}
	begin(text, number > 0 ? STYLE_GROWN : STYLE_SHRUNK);
	(void)fputs(change, text->out);
	end(text);
}

static void print_size_change(const struct text *text, int64_t bytes)
{
	char size[PL_SIZE_TEXT];

	pl_format_size(bytes, true, size);
	print_change(text, bytes, size);
}

static void print_count_change(const struct text *text, int64_t count)
{
	char number[PL_SIZE_TEXT];

	(void)snprintf(number, sizeof(number), "%+" PRId64, count);
	print_change(text, count, number);
}

/* One standard error to either side, of the difference where there is one. */
static void print_error(const struct text *text, const struct pl_row *row)
{
	double size = text->difference ? row->size_diff_variance : row->window.size_variance;
	double count = text->difference ? row->count_diff_variance : row->window.count_variance;
	char error[PL_SIZE_TEXT];

	pl_format_size(llround(sqrt(fmax(size, 0))), false, error);
	(void)fprintf(text->out, ", " TERM_ERROR "=%s in %lld blocks", error, llround(sqrt(fmax(count, 0))));
}

/* What Statistic.__str__() and StatisticDiff.__str__() of tracemalloc print after the place. */
static void print_figures(const struct text *text, const struct pl_row *row, bool average)
{
	char size[PL_SIZE_TEXT];

	(void)fputs("size=", text->out);
	print_size(text, row->size);
	if (text->difference) {
		(void)fputs(" (", text->out);
		print_size_change(text, row->size_diff);
		(void)fputc(')', text->out);
	}
	(void)fprintf(text->out, ", count=%" PRId64, row->count);
	if (text->difference) {
		(void)fputs(" (", text->out);
		print_count_change(text, row->count_diff);
		(void)fputc(')', text->out);
	}
	if (average && row->count > 0) {
		pl_format_average(row->size, row->count, size);
		(void)fprintf(text->out, ", average=%s", size);
	}
	if (text->report->sort == PL_SORT_CHURN) {
		uint64_t bytes = row->window.allocated_size;

		pl_format_size(bytes > INT64_MAX ? INT64_MAX : (int64_t)bytes, false, size);
		(void)fprintf(text->out, ", " TERM_CHURN "=%s in %" PRIu64 " blocks", size, row->window.allocated_count);
	}
	if (pl_report_is_estimate(text->report))
		print_error(text, row);
	if (row->pid)
		(void)fprintf(text->out, ", pid=%d", (int)row->pid);
	(void)fputc('\n', text->out);
}

static void print_source(const struct text *text, const char *indentation, const char *filename, int line)
{
	pl_autofree char *source = NULL;
	bool cut;

	source = shown_source(text->options, filename, line);
	if (!source)
		return;
	cut = strlen(source) > MAX_SOURCE_LENGTH;
	if (cut) {
		size_t length = MAX_SOURCE_LENGTH;

		while (((unsigned char)source[length] & 0xc0) == 0x80 && length > MAX_SOURCE_LENGTH - 4)
			length--; /* not within a character */
		source[length] = '\0';
	}
	(void)fputs(indentation, text->out);
	begin(text, STYLE_DIM);
	pl_text_print(text->out, source);
	if (cut)
		(void)fputs(" ...", text->out);
	end(text);
	(void)fputc('\n', text->out);
}

/* Native code has no indentation to tell functions apart by, and its lines are seldom at hand. */
static void print_native_frame(const struct text *text, const struct pl_frame *frame, const char *module)
{
	(void)fputs("  File \"", text->out);
	pl_text_print(text->out, frame->filename);
	(void)fputc('"', text->out);
	if (frame->line)
		(void)fprintf(text->out, ", line %d", frame->line);
	(void)fputs(", in ", text->out);
	pl_text_print(text->out, frame->function);
	if (frame->filename != module) {
		(void)fputs(" (", text->out);
		pl_text_print(text->out, native_text_object(module));
		(void)fputc(')', text->out);
	}
	(void)fputc('\n', text->out);
	print_source(text, "    ", frame->filename, frame->line);
}

static void print_traceback(const struct text *text, const struct pl_row *row)
{
	struct pl_traceback traceback;

	pl_sites_traceback(text->report->sites, row->site, &traceback);
	(void)fprintf(
		text->out, TERM_MEMORY_BLOCKS "=%" PRId64 " " TERM_SIZE_KB "=%.1f\n", row->site_count, (double)row->site_size / 1024);
	for (size_t i = traceback.count; i-- > traceback.native;) {
		(void)fputs("  File \"", text->out);
		pl_text_print(text->out, traceback.frames[i].filename);
		(void)fprintf(text->out, "\", line %d\n", traceback.frames[i].line);
		print_source(text, "    ", traceback.frames[i].filename, traceback.frames[i].line);
	}
	if (traceback.gap)
		(void)fputs("  (native frames that are not known)\n", text->out);
	for (size_t i = traceback.native; i-- > 0;)
		print_native_frame(text, &traceback.frames[i], traceback.modules[i]);
}

/* A library's line says little without who called it. */
static void print_caller(const struct text *text, const struct pl_row *row)
{
	const struct pl_report *report = text->report;
	const struct pl_frame *frame;
	pl_autofree char *caller = pl_caller_text(report->sites, row, report->group_by, report->facts.frames, &frame);

	if (!caller)
		return;
	(void)fputs("    # ", text->out);
	pl_text_print(text->out, caller);
	(void)fputc('\n', text->out);
	if (frame)
		print_source(text, "    #     ", frame->filename, frame->line);
}

static bool is_steady(const struct pl_report *report, size_t number)
{
	return number < report->verdict_count && report->verdicts[number].growth == PL_GROWTH_STEADY;
}

/* A cause has many rows: whether this is the first, and what all of them grew by. */
static bool sum_cause(const struct pl_report *report, size_t number, size_t *ret_rows, int64_t *ret_grown, bool *ret_steady)
{
	*ret_rows = 0;
	*ret_grown = 0;
	*ret_steady = false;
	for (size_t i = 0; i < number; i++)
		if (report->causes[i] == report->causes[number])
			return false;
	for (size_t i = number; i < report->cause_count; i++) {
		const struct pl_row *row = &report->rows->items[i];

		if (report->causes[i] != report->causes[number])
			continue;
		++*ret_rows;
		*ret_grown += report->kind == PL_REPORT_DIFF ? row->size_diff : row->size;
		*ret_steady |= is_steady(report, i);
	}
	return true;
}

/* Above the rows, of those too that are not shown. */
static void print_causes(const struct text *text)
{
	const struct pl_report *report = text->report;

	for (size_t i = 0; i < report->cause_count; i++) {
		const struct pl_cause *cause = report->causes[i];
		char size[PL_SIZE_TEXT];
		size_t rows;
		int64_t grown;
		bool steady;

		if (!cause || !sum_cause(report, i, &rows, &grown, &steady))
			continue;
		pl_format_size(grown, true, size);
		(void)fprintf(text->out, TERM_KNOWN_CAUSE "%s: ", steady ? "" : ", if this goes on");
		begin(text, STYLE_BOLD);
		pl_text_print(text->out, cause->cause);
		end(text);
		(void)fprintf(text->out, " (%s in %zu row%s)\n    ", size, rows, rows == 1 ? "" : "s");
		pl_text_print(text->out, cause->remedy);
		(void)fputs("\n    ", text->out);
		pl_text_print(text->out, cause->see);
		(void)fputc('\n', text->out);
	}
}

static void print_types(const struct text *text, const struct pl_row_types *types)
{
	char said[PL_ROW_TYPES_TEXT];

	if (types->living > 1 && !text->report->per_process && types->processes)
		(void)fprintf(text->out, "    # in %u of %u processes\n", types->processes, types->living);
	pl_row_types_text(types, said);
	if (!*said)
		return;
	(void)fputs("    # " TERM_LIVE ": ", text->out);
	pl_text_print(text->out, said);
	(void)fputc('\n', text->out);
}

/* As comments on the line of source above. */
static void print_remarks(const struct text *text, size_t number)
{
	const struct pl_report *report = text->report;
	char remark[PL_VERDICT_TEXT] = "";

	/* A row that did not grow now says nothing of growth, unless it does so over all windows. */
	if (number < report->verdict_count &&
		(!text->difference || report->rows->items[number].size_diff || is_steady(report, number)))
		pl_verdict_text(&report->verdicts[number], &report->headroom, remark);
	if (*remark) {
		(void)fputs("    # ", text->out);
		begin(text, is_steady(report, number) ? STYLE_GROWN : STYLE_DIM);
		(void)fputs(remark, text->out);
		end(text);
		(void)fputc('\n', text->out);
	}
	if (number < report->type_count && report->types)
		print_types(text, &report->types[number]);
	if (number < report->cause_count && report->causes[number]) {
		(void)fputs("    # " TERM_KNOWN_CAUSE ": ", text->out);
		pl_text_print(text->out, report->causes[number]->name);
		(void)fputc('\n', text->out);
	}
}

static void print_row(const struct text *text, const struct pl_row *row)
{
	enum pl_group group_by = text->report->group_by;
	/* A function's row is of all its lines: it is shown where it begins. */
	int line = group_by == PL_GROUP_FUNCTION ?
			   shown_definition(text->options, row->filename, row->function, row->line) : row->line;

	pl_text_print(text->out, row->filename);
	if (group_by != PL_GROUP_FILE)
		(void)fprintf(text->out, ":%d", line);
	if (group_by == PL_GROUP_FUNCTION && row->function) {
		(void)fputs(" (", text->out);
		pl_text_print(text->out, row->function);
		(void)fputc(')', text->out);
	}
	(void)fputs(": ", text->out);
	print_figures(text, row, true);
	native_text_print(text->out, text->report, row, group_by == PL_GROUP_TRACEBACK && text->options->traceback);
	if (group_by == PL_GROUP_TRACEBACK && text->options->traceback)
		print_traceback(text, row);
	else if (group_by != PL_GROUP_FILE)
		print_source(text, "    ", row->filename, line);
}

/* Else nobody knows what those blocks are. */
static void print_traceback_title(const struct text *text, const struct pl_row *row)
{
	(void)fputs("\n" TERM_LARGEST_TRACEBACK " of ", text->out);
	pl_text_print(text->out, row->filename);
	if (text->report->group_by != PL_GROUP_FILE)
		(void)fprintf(text->out, ":%d", row->line);
	(void)fputs(", most recent call last:\n", text->out);
}

static void print_rest(const struct text *text, size_t shown)
{
	const struct pl_rows *rows = text->report->rows;
	const struct pl_row rest = shown_rest(rows, shown);
	size_t count = rows->count - shown;

	if (!count)
		return;
	(void)fprintf(text->out, "%zu more row%s: ", count, count == 1 ? "" : "s");
	print_figures(text, &rest, false);
}

static void print_growth(const struct text *text)
{
	const struct pl_report *report = text->report;
	const struct pl_row *total = &report->rows->total;
	char size[PL_SIZE_TEXT], window[PL_SIZE_TEXT];

	pl_format_duration(report->window_ns, window);
	if (report->two_recordings)
		(void)fputs("difference of the two recordings", text->out);
	else
		(void)fprintf(text->out, TERM_GROWTH " %s", window);
	if (report->pid_count > 1)
		(void)fprintf(text->out, " in %zu processes", report->pid_count);
	(void)fputs(": " TERM_TRACKED " ", text->out);
	/* A recording starts with nothing: what is live now is what it saw grow. */
	print_size_change(text, text->difference ? total->size_diff : total->size);
	(void)fputs(", " TERM_RSS " ", text->out);
	if (!report->rss_before || !report->rss_after) {
		(void)fputs("not known\n", text->out); /* the process has ended */
		return;
	}
	print_size_change(text, (int64_t)(report->rss_after - report->rss_before));
	pl_format_size((int64_t)report->rss_before, false, size);
	(void)fprintf(text->out, " (%s to ", size);
	pl_format_size((int64_t)report->rss_after, false, size);
	(void)fprintf(text->out, "%s)\n", size);
}

/* Nothing lives and nothing changed: all that came has gone. Such rows say something by their churn
 * only, and stand at the end of every other order. */
static bool is_quiet(const struct pl_row *row)
{
	return !row->size && !row->count && !row->size_diff && !row->count_diff;
}

static size_t rows_shown(const struct pl_report *report, const struct pl_report_options *options)
{
	const struct pl_rows *rows = report->rows;
	size_t shown = shown_rows(rows, options->limit);

	/* --limit 0 asks for all of them. */
	while (options->limit && report->sort != PL_SORT_CHURN && shown && is_quiet(&rows->items[shown - 1]))
		shown--;
	return shown;
}

static void print_sampling(FILE *out, const struct pl_report *report)
{
	char rate[PL_SIZE_TEXT];

	if (!report->losses.sampling)
		return;
	pl_format_size((int64_t)report->losses.sampling, false, rate);
	(void)fprintf(out,
		"sampled: one allocation per %s on average, no longer each (the recorder's tables were at their limit: --tables); "
		"what was allocated since is an estimate\n",
		rate);
}

int pl_report_text(FILE *out, const struct pl_report *report, const struct pl_report_options *options)
{
	const struct text text = {out, report, options, report->kind == PL_REPORT_DIFF};
	const struct pl_rows *rows = report->rows;
	size_t shown = rows_shown(report, options);

	errno = 0;
	windows_print_head(out, report);
	account_print_headline(out, report);
	print_causes(&text);
	for (size_t i = 0; i < shown; i++) {
		print_row(&text, &rows->items[i]);
		print_caller(&text, &rows->items[i]);
		print_remarks(&text, i);
		held_print(out, report, options, i);
	}
	print_rest(&text, shown);
	(void)fputs(TERM_TOTAL ": ", out);
	print_figures(&text, &rows->total, true);
	print_growth(&text);
	account_print(out, report);
	account_print_older(out, report);
	collector_print(out, report);
	if (report->losses.events || report->losses.sites)
		(void)fprintf(out, TERM_LOST ": events=%" PRIu64 " (in none of these figures), sites=%" PRIu64 " (counted, but not where)\n",
			report->losses.events, report->losses.sites);
	if (report->losses.shortened)
		(void)fprintf(out, "cut: %" PRIu64 " tracebacks to their innermost frame (the recorder's tables are at their limit: --tables)\n",
			report->losses.shortened);
	print_sampling(out, report);
	if (options->traceback && report->group_by != PL_GROUP_TRACEBACK && rows->count) {
		print_traceback_title(&text, &rows->items[0]);
		print_traceback(&text, &rows->items[0]);
	}
	windows_print_grown(out, report);
	if (fflush(out) == 0 && !ferror(out))
		return 0;
	return errno ? -errno : -EIO;
}
