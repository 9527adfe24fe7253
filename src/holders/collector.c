/* SPDX-License-Identifier: MIT */
#include "holders_private.h"
#include "pyleak/collector.h"

/*
 * The state of the collector of cycles. struct _gc_runtime_state (Include/internal/pycore_gc.h, pycore_pymem.h in 3.8,
 * pycore_interp_structs.h from 3.14 on): enabled, debug; three generations, each a list's head and two numbers, threshold and
 * count; up to 3.13 the youngest's address; the permanent one, which gc.freeze() moves all objects to; and for each of the
 * three how often it was collected, and what came of it. The count of the oldest is how often the middle one was collected
 * since the last full collection: more is known of no version, none has a clock. Without a GIL frozen objects are marked in
 * themselves.
 */
enum {
	GENERATION_BYTES = 24, GENERATIONS = 3, STATS_BYTES = 24, THRESHOLD = 16, COUNT = 20,
	FIRST_FREEZING = 8 /* 3.7 lays them out otherwise */, LAST_WITH_YOUNGEST = 13,
};
#define LINK(word) ((word) & ~UINT64_C(3))

static bool is_list(struct view *view, uint64_t head)
{
	uint64_t next = LINK(image_word(view->image, head)), back = LINK(image_word(view->image, head + 8));

	return next && back && LINK(image_word(view->image, next + 8)) == head && LINK(image_word(view->image, back)) == head;
}

static bool are_generations(struct view *view, uint64_t generations)
{
	for (int i = 0; i < GENERATIONS; i++)
		if (!is_list(view, generations + (uint64_t)i * GENERATION_BYTES))
			return false;
	return true;
}

void find_collector(struct view *view, struct pl_holders *ret)
{
	uint64_t at = view->layout.collector_in_runtime ? view->python->runtime :
		image_word(view->image, view->python->interpreters_head), generations, permanent, next;
	const uint8_t *word;

	at += (uint64_t)view->layout.collector_enabled;
	word = view->layout.collector_enabled ? image_at(view->image, at, 4) : NULL;
	ret->collector_known = word && half_of(word, 0) <= 1;
	ret->collector_enabled = ret->collector_known && half_of(word, 0) == 1;
	if (!ret->collector_known || view->python->free_threaded || view->python->minor < FIRST_FREEZING)
		return;
	/* If a release has them elsewhere they are no lists. */
	generations = pl_collector_aligned(at + 8);
	if (!are_generations(view, generations))
		generations = at + 8;
	permanent = pl_collector_permanent(generations, view->python->minor);
	if (!are_generations(view, generations) || !is_list(view, permanent))
		return;
	next = LINK(image_word(view->image, permanent));
	for (uint64_t count = 0; next && count <= view->count; count++) {
		if (next == permanent) {
			ret->frozen_known = true;
			ret->frozen = count;
			break;
		}
		next = LINK(image_word(view->image, next));
	}
	/* From 3.14 on, some releases collect in steps, of which none is full. */
	word = image_at(view->image, generations, (uint64_t)GENERATIONS * GENERATION_BYTES);
	if (!word || view->python->minor > LAST_WITH_YOUNGEST)
		return;
	ret->full_known = true;
	ret->full = image_word(view->image, permanent + GENERATION_BYTES + (uint64_t)(GENERATIONS - 1) * STATS_BYTES);
	ret->full_after = half_of(word, (GENERATIONS - 1) * GENERATION_BYTES + THRESHOLD);
	ret->since_full = half_of(word, (GENERATIONS - 1) * GENERATION_BYTES + COUNT);
}
