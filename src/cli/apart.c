/* SPDX-License-Identifier: MIT */
#include "apart.h"

#include <stdlib.h>

#include "pyleak/units.h"
#include "target_places.h"

static void add(int64_t *sum, int64_t number, int sign)
{
	*sum = (int64_t)((uint64_t)*sum + (uint64_t)number * (uint64_t)(int64_t)sign);
}

static void add_account(int64_t apart[PL_ACCOUNT_APARTS], const struct pl_account *account, int sign)
{
	for (int part = 0; part < PL_ACCOUNT_PARTS; part++)
		add(&apart[part], account->parts[part], sign);
	add(&apart[PL_ACCOUNT_APART_OVERHEAD], account->arenas_overhead, sign);
	add(&apart[PL_ACCOUNT_APART_UNTOUCHED], account->untouched, sign);
	add(&apart[PL_ACCOUNT_APART_POOLS], account->pools, sign);
}

static void add_places(struct pl_targets *targets, const struct pl_places *places, int sign)
{
	struct pl_places copy;

	/* Where there is no room for it, what a process came with is taken to be growth. */
	if (pl_places_copy(places, &copy) < 0)
		return;
	for (size_t i = 0; i < copy.count; i++)
		copy.items[i].size *= sign;
	add(&targets->apart_heap, places->heap_tracked > 0 ? places->heap_tracked : 0, sign);
	copy.heap_tracked = 0;
	copy.shared_tracked *= sign;
	(void)pl_places_add(&targets->apart_places, &copy);
	pl_places_free(&copy);
}

static bool is_starting(const struct pl_target *target)
{
	return target->settled_ns && pl_now_ns() < target->settled_ns;
}

void pl_apart_look(struct pl_target *target)
{
	if (!target->settled_ns || target->settled || target->ended || is_starting(target))
		return;
	target->settled = true;
	pl_target_account(target, NULL, &target->came_with);
	pl_target_places(target, &target->came_with, &target->came_places);
}

void pl_apart_account(struct pl_targets *targets, struct pl_target *target, const struct pl_account *account)
{
	if (!account->taken)
		return;
	if (target->settled_ns) {
		const struct pl_account *came = target->settled && target->came_with.taken ? &target->came_with : account;

		/* Of one that is starting all is. */
		if (!target->accounted)
			add_account(targets->apart, came, 1);
		else if (!target->start_accounted) {
			add_account(targets->apart, &target->last, -1);
			add_account(targets->apart, came, 1);
		}
		target->start_accounted = target->settled;
	}
	target->accounted = true;
	target->last = *account;
}

void pl_apart_places(struct pl_targets *targets, struct pl_target *target, const struct pl_places *places)
{
	struct pl_places copy;

	if (pl_places_copy(places, &copy) < 0)
		return;
	if (target->settled_ns) {
		const struct pl_places *came = target->settled && target->came_places.count ? &target->came_places : places;

		if (!target->placed)
			add_places(targets, came, -1);
		else if (!target->start_placed) {
			add_places(targets, &target->last_places, 1);
			add_places(targets, came, -1);
		}
		target->start_placed = target->settled;
	}
	target->placed = true;
	pl_places_free(&target->last_places);
	target->last_places = copy;
}

void pl_apart_end(struct pl_targets *targets, struct pl_target *target)
{
	if (target->accounted)
		add_account(targets->apart, &target->last, -1);
	if (target->placed)
		add_places(targets, &target->last_places, 1);
	target->accounted = target->placed = false;
}

void pl_apart_into_account(const struct pl_targets *targets, struct pl_account *sum)
{
	for (int part = 0; part < PL_ACCOUNT_APARTS; part++)
		sum->apart[part] = targets->apart[part];
}

int pl_apart_into_places(const struct pl_targets *targets, struct pl_places *sum)
{
	int code = targets->apart_places.count ? pl_places_add(sum, &targets->apart_places) : 0;

	if (code == 0 && sum->heap_tracked >= 0)
		sum->heap_tracked += targets->apart_heap;
	return code;
}
