/* SPDX-License-Identifier: MIT */
#include "pyleak/places.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void pl_places_free(struct pl_places *places)
{
	for (size_t i = 0; i < places->count; i++)
		free(places->items[i].name);
	free(places->items);
	*places = (struct pl_places){0};
}

int pl_places_copy(const struct pl_places *places, struct pl_places *ret)
{
	*ret = (struct pl_places){.heap_tracked = places->heap_tracked, .shared_tracked = places->shared_tracked};
	ret->items = calloc(places->count + 1, sizeof(*ret->items));
	for (size_t i = 0; ret->items && i < places->count; i++) {
		ret->items[i] = places->items[i];
		ret->items[i].name = strdup(places->items[i].name);
		if (!ret->items[i].name)
			break;
		ret->count++;
	}
	if (ret->items && ret->count == places->count)
		return 0;
	pl_places_free(ret);
	return -ENOMEM;
}

static int compare(const void *a, const void *b)
{
	const struct pl_place *left = a, *right = b;

	return left->kind != right->kind ? (left->kind < right->kind ? -1 : 1) : strcmp(left->name, right->name);
}

void pl_places_merge(struct pl_places *places)
{
	size_t kept = 0;

	if (!places->count)
		return;
	qsort(places->items, places->count, sizeof(*places->items), compare);
	for (size_t i = 1; i < places->count; i++) {
		if (compare(&places->items[kept], &places->items[i]) == 0) {
			places->items[kept].size += places->items[i].size;
			free(places->items[i].name);
		} else {
			places->items[++kept] = places->items[i];
		}
	}
	places->count = kept + 1;
}

int pl_places_add(struct pl_places *sum, const struct pl_places *one)
{
	struct pl_places copy;
	struct pl_place *grown;

	if (pl_places_copy(one, &copy) < 0)
		return -ENOMEM;
	grown = reallocarray(sum->items, sum->count + copy.count + 1, sizeof(*grown));
	if (!grown) {
		pl_places_free(&copy);
		return -ENOMEM;
	}
	sum->items = grown;
	if (copy.count)
		memcpy(sum->items + sum->count, copy.items, copy.count * sizeof(*copy.items));
	sum->count += copy.count;
	sum->heap_tracked = sum->heap_tracked < 0 || copy.heap_tracked < 0 ? -1 : sum->heap_tracked + copy.heap_tracked;
	sum->shared_tracked += copy.shared_tracked;
	free(copy.items);
	pl_places_merge(sum);
	return 0;
}

/* Sorted in, as long as there is room or something smaller. */
static void note(struct pl_places_growth *growth, const struct pl_place *place, int64_t size)
{
	size_t at = growth->count;

	if (!size)
		return;
	if (place->kind >= PL_PLACE_DATA)
		growth->own += size;
	while (at && llabs(growth->items[at - 1].size) < llabs(size))
		at--;
	if (at == PL_PLACES_GROWN)
		return;
	if (growth->count < PL_PLACES_GROWN)
		growth->count++;
	memmove(&growth->items[at + 1], &growth->items[at], (growth->count - 1 - at) * sizeof(growth->items[0]));
	growth->items[at] = *place;
	growth->items[at].size = size;
}

void pl_places_grown(const struct pl_places *before, const struct pl_places *now, struct pl_places_growth *ret)
{
	size_t old = 0, new = 0;

	*ret = (struct pl_places_growth){.own = 0};
	while (old < before->count || new < now->count) {
		int order = old == before->count ? 1 : new == now->count ? -1 : compare(&before->items[old], &now->items[new]);

		if (order < 0)
			note(ret, &before->items[old], -before->items[old].size);
		else
			note(ret, &now->items[new], now->items[new].size - (order == 0 ? before->items[old].size : 0));
		old += order <= 0;
		new += order >= 0;
	}
}

static int64_t least(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

void pl_places_explain(const struct pl_places *before, const struct pl_places *now, const struct pl_account *account_before,
	const struct pl_account *account_now, struct pl_rss_growth *growth, struct pl_places_growth *ret)
{
	int64_t *rest = &growth->causes[PL_CAUSE_UNEXPLAINED], heap = 0;

	*ret = (struct pl_places_growth){.own = 0};
	if (!before || !now || !growth->known)
		return;
	pl_places_grown(before, now, ret);
	growth->causes[PL_CAUSE_MAPPED] = ret->own;
	growth->causes[PL_CAUSE_SHARED] -= now->shared_tracked - before->shared_tracked;
	*rest -= ret->own - (now->shared_tracked - before->shared_tracked);
	/* What blocks in no row the heap has come to hold, by its own count of what is in use; no more than is to be
	 * explained, as older blocks that are freed are counted by themselves. */
	if (before->heap_tracked < 0 || now->heap_tracked < 0 || !account_before->known[PL_ACCOUNT_HEAP_USED] ||
		!account_now->known[PL_ACCOUNT_HEAP_USED])
		return;
	heap = account_now->parts[PL_ACCOUNT_HEAP_USED] - account_before->parts[PL_ACCOUNT_HEAP_USED] -
	       (account_now->apart[PL_ACCOUNT_HEAP_USED] - account_before->apart[PL_ACCOUNT_HEAP_USED]) -
	       (now->heap_tracked - before->heap_tracked) - growth->causes[PL_CAUSE_OLDER];
	if (heap > 0 && *rest > 0) {
		growth->causes[PL_CAUSE_HEAP_USED] = least(heap, *rest);
		*rest -= growth->causes[PL_CAUSE_HEAP_USED];
	}
}
