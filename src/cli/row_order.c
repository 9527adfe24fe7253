/* SPDX-License-Identifier: MIT */
#include "row_order.h"

#include <errno.h>
#include <stdlib.h>

#include "pyleak/cleanup.h"

struct pl_rows_options pl_rows_wanted(const struct pl_options *options)
{
	return (struct pl_rows_options){
		.group_by = options->group_by,
		.sort = options->sort,
		.include = options->include,
		.exclude = options->exclude,
		.python = options->python,
		.native = options->native,
	};
}

/* Said by the options, or by a recording of one of whose processes one came or ended. */
static bool is_of_family(const struct pl_options *options, const struct pl_snapshot *now)
{
	for (size_t site = 0; !options->children && site < now->count; site++)
		if (now->totals[site].apart_size || now->totals[site].apart_count)
			return true;
	return options->children;
}

/* Each of the two parts stays in its order. */
static int put_first(struct pl_rows *rows, const struct pl_verdict *verdicts)
{
	pl_autofree uint32_t *places = malloc((rows->count + 1) * sizeof(*places));
	struct pl_row *items = malloc((rows->count + 1) * sizeof(*items));
	size_t steady = 0, others = 0;

	if (!places || !items) {
		free(items);
		return -ENOMEM;
	}
	for (size_t i = 0; i < rows->count; i++)
		others += verdicts[i].growth == PL_GROWTH_STEADY;
	for (size_t i = 0; i < rows->count; i++) {
		places[i] = (uint32_t)(verdicts[i].growth == PL_GROWTH_STEADY ? steady++ : others++);
		items[places[i]] = rows->items[i];
	}
	for (size_t site = 0; site < rows->site_count; site++)
		if (rows->row_of_site[site] < rows->count)
			rows->row_of_site[site] = places[rows->row_of_site[site]];
	free(rows->items);
	rows->items = items;
	return 0;
}

int pl_rows_in_order(const struct pl_options *options, const struct pl_history *history, const struct pl_snapshot *now,
	const struct pl_snapshot *before, struct pl_rows *ret)
{
	const struct pl_rows_options selection = pl_rows_wanted(options);
	const bool by_growth = options->sort == PL_SORT_SIZE_DIFF || options->sort == PL_SORT_COUNT_DIFF;
	pl_autofree struct pl_verdict *verdicts = NULL;
	int code = pl_rows_make(now, before, &selection, ret);

	if (code < 0 || !before || !history || !by_growth || !is_of_family(options, now))
		return code;
	verdicts = calloc(ret->count + 1, sizeof(*verdicts));
	code = verdicts ? pl_verdicts_make(history, ret, ret->count, verdicts) : -ENOMEM;
	if (code == 0)
		code = put_first(ret, verdicts);
	if (code < 0)
		pl_rows_free(ret);
	return code;
}
