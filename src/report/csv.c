/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"
#include "pyleak/report.h"
#include "pyleak/text.h"
#include "shown.h"

/* A field in quotes. A spreadsheet takes what begins with one of these for a formula, and the names
 * come from the tracee: the apostrophe makes it text. */
static void print_field(FILE *out, const char *text)
{
	(void)fputc('"', out);
	if (*text && strchr("=+-@", *text))
		(void)fputc('\'', out);
	for (const char *quote; (quote = strchr(text, '"')); text = quote + 1) {
		pl_autofree char *part = strndup(text, (size_t)(quote - text));

		pl_text_print(out, part ? part : "");
		(void)fputs("\"\"", out);
	}
	pl_text_print(out, text);
	(void)fputc('"', out);
}

/* "FILE:LINE (FUNCTION); …", most recent call last. */
static int print_traceback(FILE *out, const struct pl_report *report, const struct pl_row *row)
{
	struct pl_traceback traceback;
	pl_autofree char *text = NULL;
	size_t length;
	FILE *stream = open_memstream(&text, &length);

	if (!stream)
		return -ENOMEM;
	pl_sites_traceback(report->sites, row->site, &traceback);
	for (size_t i = traceback.count; i-- > 0;)
		(void)fprintf(stream, "%s:%d (%s)%s", traceback.frames[i].filename, traceback.frames[i].line,
			traceback.frames[i].function, i ? "; " : "");
	if (fclose(stream) != 0)
		return -ENOMEM;
	(void)fputc(',', out);
	print_field(out, text);
	return 0;
}

int pl_report_csv(FILE *out, const struct pl_report *report, const struct pl_report_options *options)
{
	bool traceback = report->group_by == PL_GROUP_TRACEBACK;
	size_t shown = shown_rows(report->rows, options->limit);

	errno = 0;
	(void)fprintf(out, "domain,filename,lineno,function,size,size_diff,count,count_diff,average,allocated_size,"
			   "allocated_count,freed_size,freed_count%s%s\r\n", report->per_process ? ",pid" : "", traceback ? ",traceback" : "");
	for (size_t i = 0; i < shown; i++) {
		const struct pl_row *row = &report->rows->items[i];
		const struct pl_totals *window = &row->window;

		(void)fprintf(out, "%s,", row->domain == PL_SITE_NATIVE ? "native" : "python");
		print_field(out, row->filename);
		(void)fprintf(out, ",%d,", row->line);
		print_field(out, row->function ? row->function : "");
		(void)fprintf(out, ",%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64, row->size, row->size_diff,
			row->count, row->count_diff, pl_row_average(row));
		(void)fprintf(out, ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64, window->allocated_size,
			window->allocated_count, window->freed_size, window->freed_count);
		if (report->per_process)
			(void)fprintf(out, ",%d", (int)row->pid);
		if (traceback && print_traceback(out, report, row) < 0)
			return -ENOMEM;
		(void)fputs("\r\n", out);
	}
	if (fflush(out) == 0 && !ferror(out))
		return 0;
	return errno ? -errno : -EIO;
}
