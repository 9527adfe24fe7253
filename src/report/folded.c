/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"
#include "pyleak/report.h"
#include "pyleak/text.h"
#include "shown.h"

/* A semicolon ends a frame. */
static void print_name(FILE *out, const char *text)
{
	for (const char *end; (end = strchr(text, ';')); text = end + 1) {
		pl_autofree char *part = strndup(text, (size_t)(end - text));

		pl_text_print(out, part ? part : "");
		(void)fputc(':', out);
	}
	pl_text_print(out, text);
}

static void print_frame(FILE *out, const struct pl_frame *frame, enum pl_group group_by)
{
	if (group_by == PL_GROUP_FILE) {
		print_name(out, frame->filename);
		return;
	}
	print_name(out, frame->function);
	(void)fputs(" (", out);
	print_name(out, frame->filename);
	if (group_by != PL_GROUP_FUNCTION)
		(void)fprintf(out, ":%d", frame->line);
	(void)fputc(')', out);
}

static void print_stack(FILE *out, const struct pl_report *report, uint32_t site)
{
	struct pl_traceback traceback;

	pl_sites_traceback(report->sites, site, &traceback);
	if (traceback.more)
		(void)fputs(OLDER_FRAMES ";", out);
	for (size_t i = traceback.count; i-- > 0;) {
		print_frame(out, &traceback.frames[i], report->group_by);
		if (i)
			(void)fputc(';', out);
	}
}

static void print_weight(FILE *out, const struct pl_report *report, int64_t weight, int64_t before)
{
	if (report->kind == PL_REPORT_DIFF && report->sort != PL_SORT_CHURN)
		(void)fprintf(out, " %" PRId64, before);
	(void)fprintf(out, " %" PRId64 "\n", weight);
}

int pl_report_folded(FILE *out, const struct pl_report *report, const struct pl_report_options *options)
{
	const struct pl_rows *stacks = report->stacks;
	size_t shown = shown_rows(stacks, options->limit);
	struct pl_row rest = shown_rest(stacks, shown);
	int64_t before, weight;

	errno = 0;
	for (size_t i = 0; i < shown; i++) {
		weight = shown_weight(report, &stacks->items[i], &before);
		if (!weight && !before)
			continue;
		print_stack(out, report, stacks->items[i].site);
		print_weight(out, report, weight, before);
	}
	weight = shown_weight(report, &rest, &before);
	if (weight || before) {
		(void)fprintf(out, "(%zu more stacks)", stacks->count - shown);
		print_weight(out, report, weight, before);
	}
	if (fflush(out) == 0 && !ferror(out))
		return 0;
	return errno ? -errno : -EIO;
}
