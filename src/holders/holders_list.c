/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>

#include "holders_private.h"
#include "pyleak/cleanup.h"

/*
 * The objects that retain most, each as far down as it still keeps most of what the first one keeps: the variable that
 * holds a program's only application object keeps all of its memory, and the cache within is what one looks for.
 */

enum {
	LEAST_SHARE = 2000,   /* a holder keeps at least this part of all */
	DESCENT = 70,         /* per cent of what the first one keeps */
	SAME_TYPE_MAX = 4,    /* a chain of like objects is a list: its head is the holder */
	STEPS_MAX = 64,
	SPLIT_SHARE = 10,     /* per cent of all: two such parts are two holders */
	CONTENTS = 4,
	FEW = 8, MANY = 100,
};

struct candidates {
	uint32_t *items;
	size_t count, capacity;
};

static int add(struct candidates *list, uint32_t object)
{
	if (list->count == list->capacity) {
		size_t capacity = list->capacity ? 2 * list->capacity : 256;
		uint32_t *grown = reallocarray(list->items, capacity, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		list->items = grown;
		list->capacity = capacity;
	}
	list->items[list->count++] = object;
	return 0;
}

static bool is_native(const struct analysis *analysis, uint32_t object)
{
	uint32_t root = analysis->roots.of[object];

	return root && analysis->roots.items[root - 1].kind == ROOT_NATIVE;
}

/* The parts of namespaces, those within namespaces included. */
static int find_candidates(struct analysis *analysis, struct candidates *list)
{
	const struct pl_graph *tree = &analysis->tree;
	struct candidates open = { 0 };
	uint64_t least = analysis->retained[0] / LEAST_SHARE;
	int code = add(&open, 0);

	for (size_t at = 0; code == 0 && at < open.count; at++)
		for (uint32_t e = tree->offsets[open.items[at]]; code == 0 && e < tree->offsets[open.items[at] + 1]; e++) {
			uint32_t child = tree->targets[e];

			if (is_native(analysis, child))
				continue;
			if (is_namespace(analysis, child))
				code = add(&open, child);
			else if (analysis->retained[child] >= least)
				code = add(list, child);
		}
	free(open.items);
	return code;
}

static uint32_t biggest_child(const struct analysis *analysis, uint32_t object)
{
	const struct pl_graph *tree = &analysis->tree;
	uint32_t best = NO_OBJECT;

	for (uint32_t e = tree->offsets[object]; e < tree->offsets[object + 1]; e++)
		if (best == NO_OBJECT || analysis->retained[tree->targets[e]] > analysis->retained[best])
			best = tree->targets[e];
	return best;
}

static uint32_t descend(const struct analysis *analysis, uint32_t object)
{
	const struct view *view = analysis->view;
	uint64_t enough = analysis->retained[object] / 100 * DESCENT;
	uint32_t steps[STEPS_MAX];

	for (int count = 0; count < STEPS_MAX; count++) {
		uint32_t child = biggest_child(analysis, object);
		int same = 0, first = 0;

		steps[count] = object;
		if (child == NO_OBJECT || analysis->retained[child] < enough || analysis->retained[child] <= 4096)
			return object;
		for (int i = count; i >= 0; i--)
			if (view->type_of[steps[i]] == view->type_of[child]) {
				same++;
				first = i;
			}
		if (same >= SAME_TYPE_MAX)
			return steps[first];
		object = child;
	}
	return steps[0];
}

/* Two or more parts that are large by themselves are holders of their own. */
static int settle(struct analysis *analysis, uint32_t object, struct candidates *list, int depth)
{
	const struct pl_graph *tree = &analysis->tree;
	uint64_t large = analysis->retained[0] / 100 * SPLIT_SHARE;
	uint32_t parts = 0;
	int code = 0;

	object = descend(analysis, object);
	for (uint32_t e = tree->offsets[object]; e < tree->offsets[object + 1]; e++)
		parts += analysis->retained[tree->targets[e]] >= large;
	if (parts < 2 || depth == 0)
		return add(list, object);
	for (uint32_t e = tree->offsets[object]; code == 0 && e < tree->offsets[object + 1]; e++)
		if (analysis->retained[tree->targets[e]] >= large)
			code = settle(analysis, tree->targets[e], list, depth - 1);
	return code;
}

static int by_retained(const void *a, const void *b, void *context)
{
	const struct analysis *analysis = context;
	uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

	if (analysis->retained[left] != analysis->retained[right])
		return analysis->retained[left] < analysis->retained[right] ? 1 : -1;
	return left < right ? -1 : left > right;
}

/* All that it keeps, by type and with their own sizes. */
static int describe_all(struct analysis *analysis, struct tally *tally, uint32_t object, struct pl_holder *ret)
{
	const struct pl_graph *tree = &analysis->tree;
	struct candidates open = { 0 };
	int code = add(&open, object);

	for (size_t at = 0; code == 0 && at < open.count; at++)
		for (uint32_t e = tree->offsets[open.items[at]]; code == 0 && e < tree->offsets[open.items[at] + 1]; e++) {
			tally_add(tally, tree->targets[e], analysis->view->sizes[tree->targets[e]]);
			code = add(&open, tree->targets[e]);
		}
	free(open.items);
	return code == 0 ? tally_rows(tally, 0, CONTENTS, &ret->contents, &ret->content_count) : code;
}

static int describe(struct analysis *analysis, struct tally *tally, uint32_t object, struct pl_holder *ret)
{
	struct view *view = analysis->view;
	const struct pl_graph *tree = &analysis->tree;

	*ret = (struct pl_holder){
		.path = name_of_path(view, &analysis->roots, object),
		.type = name_of_type(view, type_of(view, object)),
		.size = analysis->retained[object],
		.count = analysis->retained_count[object],
		.own = view->sizes[object],
	};
	if (!ret->path || !ret->type)
		return -ENOMEM;
	tally_clear(tally);
	/* What few objects lead to in a long chain is told as a whole. */
	if (tree->offsets[object + 1] - tree->offsets[object] <= FEW && ret->count >= MANY)
		return describe_all(analysis, tally, object, ret);
	for (uint32_t e = tree->offsets[object]; e < tree->offsets[object + 1]; e++)
		tally_add(tally, tree->targets[e], analysis->retained[tree->targets[e]]);
	return tally_rows(tally, object, CONTENTS, &ret->contents, &ret->content_count);
}

int list_holders(struct analysis *analysis, struct tally *tally, size_t limit, struct pl_holders *ret)
{
	struct candidates all = { 0 }, settled = { 0 };
	int code = find_candidates(analysis, &all);

	if (code == 0 && all.count)
		qsort_r(all.items, all.count, sizeof(*all.items), by_retained, analysis);
	for (size_t i = 0; code == 0 && i < all.count && i < limit; i++)
		code = settle(analysis, all.items[i], &settled, 4);
	if (code == 0 && settled.count)
		qsort_r(settled.items, settled.count, sizeof(*settled.items), by_retained, analysis);
	if (settled.count < limit)
		limit = settled.count;
	ret->holders = calloc(limit + 1, sizeof(*ret->holders));
	if (code == 0 && !ret->holders)
		code = -ENOMEM;
	for (size_t i = 0; code == 0 && i < limit; i++) {
		ret->holder_count = i + 1;
		code = describe(analysis, tally, settled.items[i], &ret->holders[i]);
	}
	free(all.items);
	free(settled.items);
	return code;
}
