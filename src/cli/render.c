/* SPDX-License-Identifier: MIT */
#include "render.h"

static bool exceeds(const struct pl_options *options, const struct pl_rows *rows, enum pl_report_kind kind)
{
	for (size_t i = 0; options->fail_above_set && i < rows->count; i++) {
		int64_t growth = kind == PL_REPORT_DIFF ? rows->items[i].size_diff : rows->items[i].size;

		if (growth > 0 && (uint64_t)growth > options->fail_above)
			return true;
	}
	return false;
}

int pl_render(const struct pl_options *options, struct pl_report *report, const struct pl_report_options *form,
	const struct pl_snapshot *now, const struct pl_snapshot *before, FILE *out, bool *ret_exceeded)
{
	const struct pl_report_format *format = pl_report_format(options->format);
	struct pl_rows_options selection = {
		.group_by = options->group_by,
		.sort = options->sort,
		.include = options->include,
		.exclude = options->exclude,
		.python = options->python,
		.native = options->native,
	};
	struct pl_rows rows = {0}, stacks = {0};
	int code = pl_rows_make(now, before, &selection, &rows);

	*ret_exceeded = code == 0 && exceeds(options, &rows, report->kind);
	selection.group_by = PL_GROUP_TRACEBACK;
	if (code == 0 && format->stacks)
		code = pl_rows_make(now, before, &selection, &stacks);
	report->group_by = options->group_by;
	report->sort = options->sort;
	report->sites = now->sites;
	report->rows = &rows;
	report->stacks = format->stacks ? &stacks : NULL;
	if (code == 0)
		code = format->print(out, report, form);
	report->rows = report->stacks = NULL;
	pl_rows_free(&rows);
	pl_rows_free(&stacks);
	return code;
}
