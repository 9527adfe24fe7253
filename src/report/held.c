/* SPDX-License-Identifier: MIT */
#include "held.h"

#include "members.h"
#include "pyleak/units.h"
#include "terms.h"

enum {
	SHOWN = 3,
	LEAST = 20, /* a second one has at least this part of the blocks: 5 per cent */
};

void held_print(FILE *out, const struct pl_report *report, const struct pl_report_options *options, size_t row)
{
	const struct pl_held_row *held = row < report->held_count ? &report->held[row] : NULL;
	char count[PL_NUMBER_TEXT], of[PL_NUMBER_TEXT];

	for (size_t i = 0; held && i < held->held_by_count && i < SHOWN; i++) {
		const struct pl_held_by *holder = &held->held_by[i];

		if (i && holder->count < held->count / LEAST)
			break;
		(void)fprintf(out, "    # " TERM_HELD_BY ": %s", options->color ? "\033[1m" : "");
		pl_text_print(out, holder->path);
		(void)fprintf(out, "%s (%s%s of %s block%s)\n", options->color ? "\033[0m" : "", held->looked_at < held->count ? "about " : "",
			pl_format_number(holder->count, count), pl_format_number(held->count, of), held->count == 1 ? "" : "s");
	}
}

json_t *held_make(const struct pl_held_row *row)
{
	json_t *list = json_array();
	bool failed = !list;

	for (size_t i = 0; i < row->held_by_count && !failed; i++) {
		json_t *item = json_object();

		failed |= put_string(item, "path", row->held_by[i].path);
		failed |= put_unsigned(item, "count", row->held_by[i].count);
		failed |= put_unsigned(item, "size", row->held_by[i].size);
		failed |= json_array_append_new(list, item) < 0;
	}
	if (!failed)
		return list;
	json_decref(list);
	return NULL;
}

json_t *held_make_of(const struct pl_held_row *row)
{
	json_t *item = json_object();
	bool failed = put_unsigned(item, "count", row->count);

	failed |= put_unsigned(item, "size", row->size);
	failed |= put_unsigned(item, "looked_at", row->looked_at);
	if (!failed)
		return item;
	json_decref(item);
	return NULL;
}
