/* SPDX-License-Identifier: MIT */
#include "shown.h"

#include <string.h>

#include "pyleak/cleanup.h"

enum { DEFINITION_LINES_MAX = 2000 };

size_t shown_rows(const struct pl_rows *rows, size_t limit)
{
	return limit && limit < rows->count ? limit : rows->count;
}

struct pl_row shown_rest(const struct pl_rows *rows, size_t shown)
{
	struct pl_row rest = {.site = UINT32_MAX};

	for (size_t i = shown; i < rows->count; i++)
		pl_row_add(&rest, &rows->items[i]);
	return rest;
}

static bool is_count(const struct pl_report *report)
{
	return report->sort == PL_SORT_COUNT || report->sort == PL_SORT_COUNT_DIFF;
}

int64_t shown_weight(const struct pl_report *report, const struct pl_row *row, int64_t *ret_before)
{
	bool difference = report->kind == PL_REPORT_DIFF;
	uint64_t churn = row->window.allocated_size;

	*ret_before = 0;
	if (report->sort == PL_SORT_CHURN)
		return churn > INT64_MAX ? INT64_MAX : (int64_t)churn;
	if (difference)
		*ret_before = is_count(report) ? row->count - row->count_diff : row->size - row->size_diff;
	return is_count(report) ? row->count : row->size;
}

const char *shown_weight_name(const struct pl_report *report)
{
	return report->sort == PL_SORT_CHURN ? "allocated bytes" : is_count(report) ? "live blocks" : "live bytes";
}

const char *shown_weight_unit(const struct pl_report *report)
{
	return is_count(report) ? "none" : "bytes";
}

char *shown_source(const struct pl_report_options *options, const char *filename, int line)
{
	if (options->source)
		return options->source(options->source_context, filename, line);
	return options->source_pid ? pl_source_line(options->source_pid, filename, line) : NULL;
}

static bool defines(const char *source, const char *name)
{
	size_t length = strlen(name);

	if (strncmp(source, "async ", 6) == 0)
		source += 6 + strspn(source + 6, " \t");
	if (strncmp(source, "def ", 4) != 0)
		return false;
	source += 4 + strspn(source + 4, " \t");
	return strncmp(source, name, length) == 0 && strchr("( \t[", source[length]) && source[length];
}

int shown_definition(const struct pl_report_options *options, const char *filename, const char *function, int line)
{
	const char *dot = function ? strrchr(function, '.') : NULL, *name = dot ? dot + 1 : function;

	if (!name || *name == '<')
		return line;
	if (options->definition || !options->source) {
		int found = options->definition ? options->definition(options->source_context, filename, function, line) :
			options->source_pid ? pl_source_definition(options->source_pid, filename, function, line) : 0;

		if (found || !options->source)
			return found ? found : line;
	}
	for (int at = line; at > 0 && at > line - DEFINITION_LINES_MAX; at--) {
		pl_autofree char *source = shown_source(options, filename, at);

		if (source && defines(source, name))
			return at;
	}
	return line;
}
