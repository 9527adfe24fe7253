/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"
#include "pyleak/verdict.h"
#include "turnover.h"

#define MADE_LARGER 1.125 /* a list, by the least: Objects/listobject.c, list_resize() */
enum { LARGER_MAX = 256 };

struct cell {
	int64_t size, count;
	int64_t ended;
	uint64_t allocated;
	double turned; /* of its blocks, those that older ones which went stand against */
	double larger; /* and those that took the place of smaller ones */
};

struct moment {
	size_t number; /* of the snapshot, from 0 */
	int64_t taken_ns;
	uint64_t rss, work;
	struct cell *cells; /* [count], by site */
	size_t count;
};

/* Kept are the snapshots whose number is a multiple of the stride, and the newest. */
struct pl_history {
	struct moment moments[PL_HISTORY_POINTS];
	size_t count;
	size_t seen;
	size_t stride;
	struct turnover *turnovers; /* [turnover_count], by site, as of the newest snapshot */
	size_t turnover_count;
	bool *imports; /* [import_count], by site: see is_import() */
	size_t import_count;
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
	free(history->turnovers);
	free(history->imports);
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

static bool reserve_turnovers(struct pl_history *history, size_t count)
{
	struct turnover *grown;

	if (count <= history->turnover_count)
		return true;
	grown = reallocarray(history->turnovers, count, sizeof(*grown));
	if (!grown)
		return false;
	memset(grown + history->turnover_count, 0, (count - history->turnover_count) * sizeof(*grown));
	history->turnovers = grown;
	history->turnover_count = count;
	return true;
}

/* What this window brings: growth that is new, and older blocks freed. Of these a window's surplus is good for one more. */
static void open_turnover(struct turnover *turnover, const struct cell *first, const struct cell *before,
	const struct cell *now, bool older)
{
	double change = (double)(now->count - before->count), grown = (double)(now->count - first->count);

	if (older) {
		turnover->open = change + fmin(turnover->open, turnover->fresh);
		turnover->total = (double)now->count;
		turnover->size = now->count > 0 && now->size > 0 ? (double)now->size / (double)now->count : 0;
	} else {
		turnover->total = grown;
		turnover->open = fmax(grown - turnover->matched, 0);
		turnover->size = grown > 0 ? fmax((double)(now->size - first->size) / grown, 1) : 1;
	}
	turnover->fresh = fmax(change, 0);
	turnover->since = (double)now->count - turnover->base;
}

/* Blocks that came at a site, and older ones that went as soon as they were there. Of a table that is made larger both are of
 * one instruction. Where the size of what went is not known it is taken to be that of the others, or less than what came. */
static void look_at_larger(const struct pl_snapshot *snapshot, const struct moment *before, struct cell *cells)
{
	static const struct cell none;
	uint32_t older[LARGER_MAX];
	size_t count = 0;

	for (size_t site = 0; site < snapshot->count; site++) {
		const struct cell *old = site < before->count ? &before->cells[site] : &none;

		cells[site].larger = old->larger;
		if (count < LARGER_MAX && pl_sites_domain(snapshot->sites, (uint32_t)site) == PL_SITE_OLDER &&
			cells[site].count > old->count)
			older[count++] = (uint32_t)site;
	}
	for (uint32_t site = 0; count && site < snapshot->count; site++) {
		const struct cell *old = site < before->count ? &before->cells[site] : &none;
		const double came = (double)(cells[site].count - old->count);
		double went = 0, sized = 0, bytes = 0;

		if (pl_sites_domain(snapshot->sites, site) >= PL_SITE_OLDER || cells[site].count <= old->count)
			continue;
		for (size_t i = 0; i < count; i++) {
			const struct cell *now = &cells[older[i]], *had = older[i] < before->count ? &before->cells[older[i]] : &none;

			if (!turnover_same_frames(snapshot->sites, site, older[i]))
				continue;
			went += (double)(now->count - had->count);
			sized += now->size > had->size ? (double)(now->count - had->count) : 0;
			bytes += (double)(now->size - had->size);
		}
		if (went > 0 && (double)(cells[site].size - old->size) * sized >= MADE_LARGER * bytes * came)
			cells[site].larger += fmin(came, went);
	}
}

static int turn(struct pl_history *history, const struct pl_snapshot *snapshot, struct cell *cells)
{
	static const struct cell none;
	const struct moment *first = &history->moments[0], *before;
	bool any = false;

	if (!reserve_turnovers(history, snapshot->count))
		return -ENOMEM;
	if (!history->count)
		return 0;
	before = &history->moments[history->count - 1];
	look_at_larger(snapshot, before, cells);
	/* What CPython had parked in free lists goes when the recording begins, and says nothing of what comes. */
	if (history->seen < 2) {
		for (size_t site = 0; site < snapshot->count; site++)
			history->turnovers[site].base = (double)cells[site].count;
		return 0;
	}
	for (size_t site = 0; site < snapshot->count; site++) {
		const bool older = pl_sites_domain(snapshot->sites, (uint32_t)site) == PL_SITE_OLDER;

		open_turnover(&history->turnovers[site], site < first->count ? &first->cells[site] : &none,
			site < before->count ? &before->cells[site] : &none, &cells[site], older);
		any |= older && history->turnovers[site].open > 0;
	}
	if (any && turnover_match(snapshot->sites, history->turnovers, snapshot->count) < 0)
		return -ENOMEM;
	for (size_t site = 0; site < snapshot->count; site++)
		cells[site].turned = history->turnovers[site].matched;
	return 0;
}

/* What modules allocate as they are imported is no work: a worker that is born allocates more so than by its requests. */
static bool is_import(const struct pl_sites *sites, uint32_t site)
{
	size_t count;
	const uint32_t *trace = pl_sites_trace(sites, site, &count, NULL);

	for (size_t i = 0; i < count; i++)
		if (strncmp(pl_sites_frame(sites, trace[i])->filename, "<frozen importlib", 17) == 0)
			return true;
	return false;
}

static bool find_imports(struct pl_history *history, const struct pl_snapshot *snapshot)
{
	bool *grown;

	if (snapshot->count <= history->import_count)
		return true;
	grown = reallocarray(history->imports, snapshot->count, sizeof(*grown));
	if (!grown)
		return false;
	for (size_t site = history->import_count; site < snapshot->count; site++)
		grown[site] = is_import(snapshot->sites, (uint32_t)site);
	history->imports = grown;
	history->import_count = snapshot->count;
	return true;
}

int pl_history_add(struct pl_history *history, const struct pl_snapshot *snapshot)
{
	uint64_t work = 0;
	struct cell *cells = calloc(snapshot->count ? snapshot->count : 1, sizeof(*cells));

	if (!cells || !find_imports(history, snapshot)) {
		free(cells);
		return -ENOMEM;
	}
	for (size_t site = 0; site < snapshot->count; site++) {
		const struct pl_totals *totals = &snapshot->totals[site];

		cells[site] = (struct cell){
			/* Within the lives of a family's processes. */
			.size = (int64_t)((uint64_t)pl_totals_size(totals) + totals->apart_size),
			.count = (int64_t)((uint64_t)pl_totals_count(totals) + totals->apart_count),
			.ended = (int64_t)totals->apart_size,
			.allocated = totals->allocated_count - totals->apart_allocated,
		};
		if (!history->imports[site] && pl_sites_domain(snapshot->sites, (uint32_t)site) < PL_SITE_OLDER)
			work += cells[site].allocated;
	}
	if (turn(history, snapshot, cells) < 0) {
		free(cells);
		return -ENOMEM;
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
		.work = work,
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
	pl_autofree double *turned = calloc(count ? count : 1, sizeof(*turned));
	pl_autofree double *larger = calloc(count ? count : 1, sizeof(*larger));
	pl_autofree uint64_t *imported = calloc(count ? count : 1, sizeof(*imported));

	if (!sums || !turned || !larger || !imported)
		return -ENOMEM;
	for (size_t i = 0; i < history->count; i++) {
		const struct moment *moment = &history->moments[i];

		for (size_t row = 0; row < count; row++) {
			sums[row] = (struct pl_row){0};
			turned[row] = larger[row] = 0;
			imported[row] = 0;
		}
		for (size_t site = 0; site < moment->count && site < rows->site_count; site++) {
			const struct cell *cell = &moment->cells[site];

			if (rows->row_of_site[site] >= count)
				continue;
			pl_row_add(&sums[rows->row_of_site[site]],
				&(struct pl_row){
					.size = cell->size,
					.life_diff = cell->ended,
					.count = cell->count,
					.window.allocated_count = cell->allocated,
				});
			turned[rows->row_of_site[site]] += cell->turned;
			larger[rows->row_of_site[site]] += cell->larger;
			imported[rows->row_of_site[site]] += history->imports[site] ? cell->allocated : 0;
		}
		for (size_t row = 0; row < count; row++)
			ret[row].points[i] = (struct pl_point){
				.taken_ns = moment->taken_ns,
				.size = sums[row].size,
				.count = sums[row].count,
				.allocated = sums[row].window.allocated_count,
				.ended = sums[row].life_diff,
				.turned = turned[row],
				.larger = larger[row],
				/* So that what others did is this less its own, whatever that was. */
				.work = moment->work + imported[row],
			};
	}
	for (size_t row = 0; row < count; row++)
		ret[row].count = history->count;
	return 0;
}
