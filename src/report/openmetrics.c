/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak-version.h"
#include "pyleak/cleanup.h"
#include "pyleak/report.h"
#include "pyleak/units.h"
#include "shown.h"

/*
 * The text format of OpenMetrics 1.0. A row is a set of labels, and each figure of it one metric.
 * Labels say what a row is and no more: the function of a line, which may change from one report to
 * the next, would make it another series each time.
 */

struct metric {
	const char *name;  /* ends in its unit */
	const char *unit;
	const char *help;
	bool counter; /* since the recording began; of a difference, a gauge of the window */
	bool difference; /* only of one */
	int64_t (*figure)(const struct pl_row *row);
};

static int64_t cut(uint64_t number)
{
	return number > INT64_MAX ? INT64_MAX : (int64_t)number;
}

static int64_t live_bytes(const struct pl_row *row)
{
	return row->size;
}

static int64_t live_blocks(const struct pl_row *row)
{
	return row->count;
}

static int64_t growth_bytes(const struct pl_row *row)
{
	return row->size_diff;
}

static int64_t growth_blocks(const struct pl_row *row)
{
	return row->count_diff;
}

static int64_t allocated_bytes(const struct pl_row *row)
{
	return cut(row->window.allocated_size);
}

static int64_t allocated_blocks(const struct pl_row *row)
{
	return cut(row->window.allocated_count);
}

static int64_t freed_bytes(const struct pl_row *row)
{
	return cut(row->window.freed_size);
}

static int64_t freed_blocks(const struct pl_row *row)
{
	return cut(row->window.freed_count);
}

static const struct metric metrics[] = {
	{"live_bytes", "bytes", "Allocated here and not freed", false, false, live_bytes},
	{"live_blocks", "blocks", "Allocated here and not freed", false, false, live_blocks},
	{"growth_bytes", "bytes", "Live now more than before", false, true, growth_bytes},
	{"growth_blocks", "blocks", "Live now more than before", false, true, growth_blocks},
	{"allocated_bytes", "bytes", "Allocated here, freed or not", true, false, allocated_bytes},
	{"allocated_blocks", "blocks", "Allocated here, freed or not", true, false, allocated_blocks},
	{"freed_bytes", "bytes", "Allocated here and freed", true, false, freed_bytes},
	{"freed_blocks", "blocks", "Allocated here and freed", true, false, freed_blocks},
};

/* A label value: one line of UTF-8, with what OpenMetrics wants escaped. */
static int print_value(FILE *out, const char *text)
{
	pl_autofree char *printable = pl_printable(text);

	if (!printable)
		return -ENOMEM;
	(void)fputc('"', out);
	for (const char *c = printable; *c; c++) {
		if (*c == '"' || *c == '\\')
			(void)fputc('\\', out);
		(void)fputc(*c, out);
	}
	(void)fputc('"', out);
	return 0;
}

/* Python's frames alone: a label that changed with what was seen of the native ones would begin another series. */
static int print_traceback(FILE *out, const struct pl_report *report, const struct pl_row *row)
{
	size_t count, length;
	const uint32_t *numbers = pl_sites_trace(report->sites, row->site, &count, NULL);
	pl_autofree char *text = NULL;
	FILE *stream = open_memstream(&text, &length);

	if (!stream)
		return -ENOMEM;
	while (count--) {
		const struct pl_frame *frame = pl_sites_frame(report->sites, numbers[count]);

		(void)fprintf(stream, "%s:%d%s", frame->filename, frame->line, count ? "; " : "");
	}
	if (fclose(stream) != 0)
		return -ENOMEM;
	(void)fputs(",traceback=", out);
	return print_value(out, text);
}

/* Of a pod, its name is that of its host. */
static void print_process(FILE *out, const struct pl_report *report, pid_t pid)
{
	(void)fprintf(out, "{pid=\"%d\"", (int)pid);
	if (report->host) {
		(void)fputs(",host=", out);
		(void)print_value(out, report->host);
	}
}

static int print_labels(FILE *out, const struct pl_report *report, const struct pl_row *row)
{
	int code;

	print_process(out, report, row->pid ? row->pid : report->facts.pid);
	(void)fprintf(out, ",domain=\"%s\",filename=", row->domain == PL_SITE_NATIVE ? "native" : "python");
	code = print_value(out, row->filename);
	if (report->group_by == PL_GROUP_FUNCTION) {
		(void)fputs(",function=", out);
		code = code < 0 ? code : print_value(out, row->function ? row->function : "");
	} else if (report->group_by != PL_GROUP_FILE) {
		(void)fprintf(out, ",lineno=\"%d\"", row->line);
	}
	if (report->group_by == PL_GROUP_TRACEBACK && code == 0)
		code = print_traceback(out, report, row);
	(void)fputs("} ", out);
	return code;
}

static void print_head(FILE *out, const char *name, const char *type, const char *unit, const char *help)
{
	(void)fprintf(out, "# TYPE pyleak_%s %s\n", name, type);
	if (unit)
		(void)fprintf(out, "# UNIT pyleak_%s %s\n", name, unit);
	(void)fprintf(out, "# HELP pyleak_%s %s.\n", name, help);
}

static int print_metric(FILE *out, const struct pl_report *report, const struct metric *metric, size_t shown)
{
	bool difference = report->kind == PL_REPORT_DIFF;
	bool counter = metric->counter && !difference;

	if (metric->difference && !difference)
		return 0;
	print_head(out, metric->name, counter ? "counter" : "gauge", metric->unit, metric->help);
	for (size_t i = 0; i < shown; i++) {
		(void)fprintf(out, "pyleak_%s%s", metric->name, counter ? "_total" : "");
		if (print_labels(out, report, &report->rows->items[i]) < 0)
			return -ENOMEM;
		(void)fprintf(out, "%" PRId64 "\n", metric->figure(&report->rows->items[i]));
	}
	return 0;
}

/* One sample of the whole process. */
static void print_whole(FILE *out, const struct pl_report *report, const char *name, const char *unit, const char *help, int64_t number)
{
	print_head(out, name, "gauge", unit, help);
	(void)fprintf(out, "pyleak_%s", name);
	print_process(out, report, report->facts.pid);
	(void)fprintf(out, "} %" PRId64 "\n", number);
}

static void print_seconds(FILE *out, const struct pl_report *report, const char *name, const char *help, int64_t ns)
{
	print_head(out, name, "gauge", "seconds", help);
	(void)fprintf(out, "pyleak_%s", name);
	print_process(out, report, report->facts.pid);
	(void)fprintf(out, "} %.6f\n", (double)ns / PL_NSEC_PER_SEC);
}

int pl_report_openmetrics(FILE *out, const struct pl_report *report, const struct pl_report_options *options)
{
	size_t shown = shown_rows(report->rows, options->limit);
	const struct pl_row *total = &report->rows->total;

	errno = 0;
	for (size_t i = 0; i < sizeof(metrics) / sizeof(metrics[0]); i++)
		if (print_metric(out, report, &metrics[i], shown) < 0)
			return -ENOMEM;
	print_whole(out, report, "tracked_live_bytes", "bytes", "Live in all rows, shown or not", total->size);
	print_whole(out, report, "tracked_live_blocks", "blocks", "Live in all rows, shown or not", total->count);
	print_whole(out, report, "rows", NULL, "Rows that there are, shown or not", (int64_t)report->rows->count);
	if (report->rss_after)
		print_whole(out, report, "resident_bytes", "bytes", "Resident size of the process", cut(report->rss_after));
	print_whole(out, report, "lost_events", NULL, "Allocations and frees that are in none of the figures",
		cut(report->losses.events));
	print_whole(out, report, "lost_sites", NULL, "Counted, but not where", cut(report->losses.sites));
	print_seconds(out, report, "window_seconds", "What the report covers", report->window_ns);
	print_seconds(out, report, "longest_stop_seconds", "The longest time that the process was held stopped", report->stop_ns);
	(void)fputs("# TYPE pyleak_recording info\n# HELP pyleak_recording What is recorded, and by what.\npyleak_recording_info", out);
	print_process(out, report, report->facts.pid);
	(void)fprintf(out, ",python=\"%s\",engine=\"%s\",version=\"" PYLEAK_VERSION "\"} 1\n# EOF\n", report->facts.python,
		report->facts.engine);
	if (fflush(out) == 0 && !ferror(out))
		return 0;
	return errno ? -errno : -EIO;
}
