/* SPDX-License-Identifier: MIT */
#include "over_all.h"

#include <errno.h>
#include <stdlib.h>

#include "pyleak/cleanup.h"

/* A single window says it all by itself. */
enum { LEAST_WINDOWS = 2 };

/* The `count` largest so far; those that are equally large, as they come. */
static void insert(struct pl_report *report, const struct pl_grown *grown)
{
	size_t at = report->grown_count;

	while (at > 0 && report->grown[at - 1].size < grown->size)
		at--;
	if (at == PL_GROWN_ROWS)
		return;
	if (report->grown_count < PL_GROWN_ROWS)
		report->grown_count++;
	for (size_t i = report->grown_count - 1; i > at; i--)
		report->grown[i] = report->grown[i - 1];
	report->grown[at] = *grown;
}

int pl_over_all_make(struct pl_report *report, const struct pl_history *history)
{
	const struct pl_rows *rows = report->rows;
	pl_autofree struct pl_series *series = NULL;

	report->grown_count = 0;
	report->grown_windows = 0;
	if (pl_history_windows(history) < LEAST_WINDOWS)
		return 0;
	report->grown_windows = pl_history_windows(history);
	series = calloc(rows->count ? rows->count : 1, sizeof(*series));
	if (!series || pl_history_series(history, rows, rows->count, series) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < rows->count; i++) {
		const struct pl_point *first = &series[i].points[0], *last = &series[i].points[series[i].count - 1];
		struct pl_grown grown = {.row = &rows->items[i]};

		if (!series[i].count || __builtin_sub_overflow(last->size, first->size, &grown.size) || grown.size <= 0)
			continue;
		pl_verdict_judge(&series[i], &grown.verdict);
		report->grown_ns = last->taken_ns - first->taken_ns;
		insert(report, &grown);
	}
	return 0;
}
