/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "pyleak/stats.h"
#include "pyleak/units.h"

enum { SMALL_CLASSES = 64 }; /* pymalloc's: PL_INLINE_OLDER_SMALL */

struct pl_snapshot *pl_snapshot_take(struct pl_sites *sites)
{
	struct pl_snapshot *snapshot = calloc(1, sizeof(*snapshot));
	size_t count = pl_sites_count(sites);

	if (!snapshot)
		return NULL;
	snapshot->totals = calloc(count ? count : 1, sizeof(*snapshot->totals));
	if (!snapshot->totals) {
		free(snapshot);
		return NULL;
	}
	if (count)
		memcpy(snapshot->totals, pl_sites_totals(sites, 0), count * sizeof(*snapshot->totals));
	snapshot->count = count;
	snapshot->sites = sites;
	snapshot->taken_ns = pl_now_ns();
	return snapshot;
}

struct pl_snapshot *pl_snapshot_copy(const struct pl_snapshot *snapshot)
{
	struct pl_snapshot *copy = malloc(sizeof(*copy));
	size_t count = snapshot->count ? snapshot->count : 1;

	if (!copy)
		return NULL;
	*copy = *snapshot;
	copy->totals = calloc(count, sizeof(*copy->totals));
	if (!copy->totals) {
		free(copy);
		return NULL;
	}
	copy->untouched = NULL;
	copy->places = NULL; /* a view of rows has no use for them */
	if (snapshot->count)
		memcpy(copy->totals, snapshot->totals, snapshot->count * sizeof(*copy->totals));
	return copy;
}

void pl_snapshot_free(struct pl_snapshot *snapshot)
{
	if (!snapshot)
		return;
	free(snapshot->totals);
	if (snapshot->places)
		pl_places_free(snapshot->places);
	free(snapshot->places);
	free(snapshot->untouched);
	free(snapshot);
}

struct pl_older pl_snapshot_older(const struct pl_snapshot *now, const struct pl_snapshot *before)
{
	struct pl_older older = {0};
	uint64_t small_size = 0, small_count = 0;
	double size;

	for (uint32_t site = 0; site < now->count; site++) {
		const struct pl_totals none = {0}, *old = before && site < before->count ? &before->totals[site] : &none;
		uint64_t count = now->totals[site].allocated_count - old->allocated_count;
		uint64_t bytes = now->totals[site].allocated_size - old->allocated_size;
		uint32_t size_class = pl_sites_older_class(now->sites, site);

		if (pl_sites_domain(now->sites, site) != PL_SITE_OLDER)
			continue;
		older.count += count;
		older.size += bytes;
		older.sized += size_class ? count : 0;
		if (size_class && size_class <= SMALL_CLASSES) {
			small_size += bytes;
			small_count += count;
		}
	}
	/* Of unknown size are pymalloc's. A process can claim anything. */
	size = (double)older.size;
	if (small_count)
		size += (double)small_size / (double)small_count * (double)(older.count - older.sized);
	older.size = size < 9e18 ? (uint64_t)size : (uint64_t)INT64_MAX;
	return older;
}
