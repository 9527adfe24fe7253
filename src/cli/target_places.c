/* SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "pyleak/account_reader.h"
#include "pyleak/cleanup.h"
#include "target_places.h"

/* What rows have is not to be named again. */
static void take_owned_out(const struct pl_target *target, struct pl_places *places)
{
	pl_autofree struct pl_range *ranges = calloc(places->count + 1, sizeof(*ranges));
	pl_autofree int64_t *owned = calloc(places->count + 1, sizeof(*owned));
	size_t count = 0, kept = 0;
	int code;

	if (!ranges || !owned)
		return;
	for (size_t i = 0; i < places->count; i++)
		if (places->items[i].kind >= PL_PLACE_SHARED)
			ranges[count++] = (struct pl_range){places->items[i].start, places->items[i].end};
	code = target->engine ? pl_engine_owned(target->engine, ranges, count, owned) : 0;
	count = 0;
	for (size_t i = 0; i < places->count; i++) {
		struct pl_place *place = &places->items[i];

		if (place->kind == PL_PLACE_SHARED)
			places->shared_tracked += owned[count];
		if (place->kind >= PL_PLACE_SHARED)
			place->size -= owned[count] < place->size ? owned[count] : place->size;
		count += place->kind >= PL_PLACE_SHARED;
		/* Not known whose it is: not said. */
		if (place->kind >= PL_PLACE_SHARED && code < 0)
			free(place->name);
		else
			places->items[kept++] = *place;
	}
	places->count = kept;
}

/* Blocks of rows in the C library's heaps, or below 0. */
static int64_t tracked_in_heaps(const struct pl_target *target)
{
	pl_autofree struct pl_range *heaps = NULL;
	pl_autofree int64_t *owned = NULL;
	int64_t sum = 0;
	size_t count;

	if (!target->engine)
		return 0;
	if (pl_account_heaps(target->account, &heaps, &count) < 0)
		return -1;
	owned = calloc(count + 1, sizeof(*owned));
	if (!owned || pl_engine_owned(target->engine, heaps, count, owned) < 0)
		return -1;
	for (size_t i = 0; i < count; i++)
		sum += owned[i];
	return sum;
}

void pl_target_places(const struct pl_target *target, const struct pl_account *account, struct pl_places *ret)
{
	*ret = (struct pl_places){0};
	/* Where the allocators are others than those that are known, what is theirs is not known either. */
	if (!target->account || !account->taken || target->python->free_threaded || !account->known[PL_ACCOUNT_HEAP_USED] ||
		!account->known[PL_ACCOUNT_ARENAS_USED] || pl_account_name(target->account, ret) < 0)
		return;
	take_owned_out(target, ret);
	ret->heap_tracked = tracked_in_heaps(target);
	pl_places_merge(ret);
}
