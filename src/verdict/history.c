/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>

#include "pyleak/cleanup.h"
#include "pyleak/verdict.h"

struct cell {
	int64_t size, count;
	uint64_t allocated;
};

struct moment {
	size_t number; /* of the snapshot, from 0 */
	int64_t taken_ns;
	uint64_t rss;
	struct cell *cells; /* [count], by site */
	size_t count;
};

/* Kept are the snapshots whose number is a multiple of the stride, and the newest. */
struct pl_history {
	struct moment moments[PL_HISTORY_POINTS];
	size_t count;
	size_t seen;
	size_t stride;
};

struct pl_history *pl_history_new(void)
{
	struct pl_history *history = calloc(1, sizeof(*history));

	if (history)
		history->stride = 1;
	return history;
}

void pl_history_free(struct pl_history *history)
{
	if (!history)
		return;
	for (size_t i = 0; i < history->count; i++)
		free(history->moments[i].cells);
	free(history);
}

/* Drops what is not on the stride. */
static void thin(struct pl_history *history)
{
	size_t kept = 0;

	for (size_t i = 0; i < history->count; i++) {
		if (history->moments[i].number % history->stride == 0)
			history->moments[kept++] = history->moments[i];
		else
			free(history->moments[i].cells);
	}
	history->count = kept;
}

/* The probe comes and goes: what it takes would be a step in the growth of the process. */
static uint64_t without_ours(const struct pl_snapshot *snapshot)
{
	const struct pl_account *account = &snapshot->account;
	int64_t own = account->taken && account->known[PL_ACCOUNT_OWN] ? account->parts[PL_ACCOUNT_OWN] : 0;

	return own > 0 && (uint64_t)own < snapshot->rss ? snapshot->rss - (uint64_t)own : snapshot->rss;
}

int pl_history_add(struct pl_history *history, const struct pl_snapshot *snapshot)
{
	struct cell *cells = calloc(snapshot->count ? snapshot->count : 1, sizeof(*cells));

	if (!cells)
		return -ENOMEM;
	for (size_t site = 0; site < snapshot->count; site++) {
		const struct pl_totals *totals = &snapshot->totals[site];

		cells[site] = (struct cell){
			.size = pl_totals_size(totals),
			.count = pl_totals_count(totals),
			.allocated = totals->allocated_count,
		};
	}
	thin(history); /* the newest so far was perhaps kept for that alone */
	if (history->count == PL_HISTORY_POINTS) {
		history->stride *= 2;
		thin(history);
	}
	history->moments[history->count++] = (struct moment){
		.number = history->seen++,
		.taken_ns = snapshot->taken_ns,
		.rss = without_ours(snapshot),
		.cells = cells,
		.count = snapshot->count,
	};
	return 0;
}

size_t pl_history_windows(const struct pl_history *history)
{
	return history->seen ? history->seen - 1 : 0;
}

size_t pl_history_moments(
	const struct pl_history *history, int64_t taken_ns[PL_HISTORY_POINTS], uint64_t rss[PL_HISTORY_POINTS])
{
	for (size_t i = 0; i < history->count; i++) {
		taken_ns[i] = history->moments[i].taken_ns;
		rss[i] = history->moments[i].rss;
	}
	return history->count;
}

int pl_history_series(
	const struct pl_history *history, const struct pl_rows *rows, size_t count, struct pl_series *ret)
{
	pl_autofree struct pl_row *sums = calloc(count ? count : 1, sizeof(*sums));

	if (!sums)
		return -ENOMEM;
	for (size_t i = 0; i < history->count; i++) {
		const struct moment *moment = &history->moments[i];

		for (size_t row = 0; row < count; row++)
			sums[row] = (struct pl_row){0};
		for (size_t site = 0; site < moment->count && site < rows->site_count; site++) {
			const struct cell *cell = &moment->cells[site];

			if (rows->row_of_site[site] >= count)
				continue;
			pl_row_add(&sums[rows->row_of_site[site]],
				&(struct pl_row){
					.size = cell->size,
					.count = cell->count,
					.window.allocated_count = cell->allocated,
				});
		}
		for (size_t row = 0; row < count; row++)
			ret[row].points[i] = (struct pl_point){
				.taken_ns = moment->taken_ns,
				.size = sums[row].size,
				.count = sums[row].count,
				.allocated = sums[row].window.allocated_count,
			};
	}
	for (size_t row = 0; row < count; row++)
		ret[row].count = history->count;
	return 0;
}
