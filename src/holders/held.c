/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "edges.h"
#include "holders_private.h"
#include "pyleak/cleanup.h"

/*
 * Who keeps the blocks of a row. Each block's object is a leaf of a tree that goes up to the variables: from an object to the
 * one that dominates it, and where several variables lead to it, to each of those who refer to it. Of this tree only what lies
 * above the blocks is made.
 */

enum {
	HOLDERS_MAX = 10,    /* of a row */
	DESCENT = 70,        /* per cent of a holder's blocks: who has so many of them is named instead */
	PART = 15,           /* per cent of the row's blocks: several who have so many are named instead */
	PARTS_LEAST = 10,    /* blocks */
	MODULES_LEAST = 20,  /* of which each has less than one of so many parts: they are named together */
	SAME_TYPE_MAX = 4, STEPS_MAX = 64, /* as in holders_list.c */
	SPLITS_MAX = 4,
	REFERRERS_MAX = 16,  /* of one object, that are followed */
	PAIRS_MAX = 1 << 22,
};

struct node {
	uint32_t object, parent, waits, best; /* places of nodes; parent, best: NO_OBJECT */
	double count, size;
};

/* An object that several variables lead to, and one who refers to it. */
struct referrer {
	uint32_t object, from;
};

struct held {
	struct analysis *analysis;
	struct node *nodes;
	size_t count, capacity;
	struct pl_table places; /* object + 1 → place + 1 */
	struct referrer *referrers; /* by object */
	size_t referrer_count;
	uint32_t *leaves;       /* scratch: places */
	double row_count;
};

static bool is_held_alone(const struct analysis *analysis, uint32_t object)
{
	uint32_t idom = analysis->idom[object];

	return idom != PL_GRAPH_NONE && !is_namespace(analysis, idom);
}

/* The next one up; NO_OBJECT: a module has it, or a frame, or whatever begins a path. */
static uint32_t next_up(const struct analysis *analysis, uint32_t object)
{
	uint32_t via = analysis->roots.via[object];

	if (is_held_alone(analysis, object))
		return analysis->idom[object];
	return via == object || is_namespace(analysis, via) ? NO_OBJECT : via;
}

/* Neither one variable's, nor one itself. */
static bool is_shared(const struct analysis *analysis, uint32_t object)
{
	uint32_t via = analysis->roots.via[object];

	return via != PL_GRAPH_NONE && via != object && !is_held_alone(analysis, object) && !is_namespace(analysis, via);
}

static bool is_native(const struct analysis *analysis, uint32_t object)
{
	uint32_t root = analysis->roots.of[object];

	return root && analysis->roots.items[root - 1].kind == ROOT_NATIVE;
}

/* The place of an object; *ret_new: it had none. UINT32_MAX: out of memory. */
static uint32_t place_of(struct held *held, uint32_t object, bool *ret_new)
{
	struct pl_table_entry *entry = pl_table_insert(&held->places, (uint64_t)object + 1);

	*ret_new = entry && !entry->value[0];
	if (!entry)
		return UINT32_MAX;
	if (!*ret_new)
		return (uint32_t)entry->value[0] - 1;
	if (held->count == held->capacity) {
		size_t capacity = held->capacity ? 2 * held->capacity : 1024;
		struct node *grown = reallocarray(held->nodes, capacity, sizeof(*grown));

		if (!grown)
			return UINT32_MAX;
		held->nodes = grown;
		held->capacity = capacity;
	}
	held->nodes[held->count] = (struct node){ .object = object, .parent = NO_OBJECT, .best = NO_OBJECT };
	entry->value[0] = ++held->count;
	return (uint32_t)held->count - 1;
}

/* Who has blocks, and all above. */
static int add_way(struct held *held, uint32_t object, double count, double size)
{
	bool is_new;
	uint32_t place = place_of(held, object, &is_new);

	if (place == UINT32_MAX)
		return -ENOMEM;
	held->nodes[place].count += count;
	held->nodes[place].size += size;
	while (is_new) {
		uint32_t above = next_up(held->analysis, object), next;

		if (above == NO_OBJECT)
			return 0;
		next = place_of(held, above, &is_new);
		if (next == UINT32_MAX)
			return -ENOMEM;
		held->nodes[place].parent = next;
		held->nodes[next].waits++;
		place = next;
		object = above;
	}
	return 0;
}

static int by_object(const void *a, const void *b)
{
	const struct referrer *left = a, *right = b;

	if (left->object != right->object)
		return left->object < right->object ? -1 : 1;
	return left->from < right->from ? -1 : left->from > right->from;
}

/* Of each that several variables lead to, who refers to it. */
static int find_referrers(struct held *held, const uint32_t *owners, size_t count)
{
	const struct pl_graph *graph = &held->analysis->view->graph;
	pl_autofree uint64_t *shared = calloc(graph->count / 64 + 1, sizeof(*shared));
	size_t capacity = 0;
	bool any = false;

	if (!shared)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		if (owners[i] != NO_OBJECT && is_shared(held->analysis, owners[i])) {
			shared[owners[i] / 64] |= UINT64_C(1) << owners[i] % 64;
			any = true;
		}
	for (uint32_t v = 1; any && v < graph->count; v++)
		for (uint32_t e = graph->offsets[v]; e < graph->offsets[v + 1]; e++) {
			uint32_t to = graph->targets[e];

			if (!(shared[to / 64] >> to % 64 & 1) || held->analysis->roots.via[v] == PL_GRAPH_NONE ||
				held->referrer_count >= PAIRS_MAX)
				continue;
			if (held->referrer_count == capacity) {
				struct referrer *grown;

				capacity = capacity ? 2 * capacity : 1024;
				grown = reallocarray(held->referrers, capacity, sizeof(*grown));
				if (!grown)
					return -ENOMEM;
				held->referrers = grown;
			}
			held->referrers[held->referrer_count++] = (struct referrer){ to, v };
		}
	if (held->referrer_count)
		qsort(held->referrers, held->referrer_count, sizeof(*held->referrers), by_object);
	return 0;
}

static const struct referrer *first_referrer(const struct held *held, uint32_t object)
{
	size_t low = 0, high = held->referrer_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (held->referrers[middle].object < object)
			low = middle + 1;
		else
			high = middle;
	}
	return held->referrers + low;
}

/* At each who refers to it, once. */
static int add_shared(struct held *held, uint32_t object, double count, double size)
{
	const struct referrer *at = first_referrer(held, object), *end = held->referrers + held->referrer_count;
	uint32_t last = NO_OBJECT;
	int code = 0, added = 0;

	for (; code == 0 && at < end && at->object == object && added < REFERRERS_MAX; at++) {
		if (at->from == last)
			continue;
		last = at->from;
		code = add_way(held, is_namespace(held->analysis, last) ? object : last, count, size);
		added++;
	}
	return code == 0 && !added ? add_way(held, object, count, size) : code;
}

/* From the leaves up. */
static int sum_up(struct held *held)
{
	uint32_t *ready = realloc(held->leaves, (held->count + 1) * sizeof(*ready));
	size_t end = 0;

	if (!ready)
		return -ENOMEM;
	held->leaves = ready;
	for (uint32_t i = 0; i < held->count; i++)
		if (!held->nodes[i].waits)
			ready[end++] = i;
	for (size_t at = 0; at < end; at++) {
		const struct node *node = &held->nodes[ready[at]];
		struct node *parent = node->parent != NO_OBJECT ? &held->nodes[node->parent] : NULL;

		if (!parent)
			continue;
		parent->count += node->count;
		parent->size += node->size;
		if (parent->best == NO_OBJECT || node->count > held->nodes[parent->best].count)
			parent->best = ready[at];
		if (--parent->waits == 0)
			ready[end++] = node->parent;
	}
	return 0;
}

static uint32_t descend(const struct held *held, uint32_t place)
{
	const struct view *view = held->analysis->view;
	double enough = held->nodes[place].count * DESCENT / 100;
	uint32_t steps[STEPS_MAX];

	for (int count = 0; count < STEPS_MAX; count++) {
		uint32_t next = held->nodes[place].best;
		int same = 0, first = 0;

		steps[count] = place;
		if (next == NO_OBJECT || held->nodes[next].count < enough)
			return place;
		/* A chain of like objects is a list: its head is the holder. */
		for (int i = count; i >= 0; i--)
			if (view->type_of[held->nodes[steps[i]].object] == view->type_of[held->nodes[next].object]) {
				same++;
				first = i;
			}
		if (same >= SAME_TYPE_MAX)
			return steps[first];
		place = next;
	}
	return steps[0];
}

static int add_holder(struct pl_held_row *row, char *path, double count, double size)
{
	struct pl_held_by *grown = path ? reallocarray(row->held_by, row->held_by_count + 1, sizeof(*grown)) : NULL;

	if (!grown) {
		free(path);
		return -ENOMEM;
	}
	row->held_by = grown;
	for (size_t i = 0; i < row->held_by_count; i++)
		if (strcmp(grown[i].path, path) == 0) {
			grown[i].count += (uint64_t)llround(count);
			grown[i].size += (uint64_t)llround(size);
			free(path);
			return 0;
		}
	grown[row->held_by_count++] = (struct pl_held_by){ path, (uint64_t)llround(count), (uint64_t)llround(size) };
	return 0;
}

static int name(struct held *held, uint32_t place, int splits, struct pl_held_row *row)
{
	const struct node *node;
	double least = held->row_count * PART / 100, parts = 0;
	size_t part_count = 0;
	int code = 0;

	place = descend(held, place);
	node = &held->nodes[place];
	if (least < PARTS_LEAST)
		least = PARTS_LEAST;
	for (size_t i = 0; splits > 0 && i < held->count; i++)
		if (held->nodes[i].parent == place && held->nodes[i].count >= least) {
			parts += held->nodes[i].count;
			part_count++;
		}
	if (part_count < 2 || parts < node->count * DESCENT / 100)
		return add_holder(row, name_of_path(held->analysis->view, &held->analysis->roots, node->object), node->count, node->size);
	for (size_t i = 0; code == 0 && i < held->count; i++)
		if (held->nodes[i].parent == place && held->nodes[i].count >= least)
			code = name(held, (uint32_t)i, splits - 1, row);
	return code;
}

static int by_count(const void *a, const void *b)
{
	const struct pl_held_by *left = a, *right = b;

	if (left->count != right->count)
		return left->count < right->count ? 1 : -1;
	return strcmp(left->path, right->path);
}

/* The largest ones that begin a path. */
static int name_all(struct held *held, struct pl_held_row *row)
{
	int code = 0;

	for (int named = 0; code == 0 && named < HOLDERS_MAX; named++) {
		uint32_t best = NO_OBJECT;

		for (uint32_t i = 0; i < held->count; i++)
			if (held->nodes[i].parent == NO_OBJECT && held->nodes[i].count > 0 &&
				(best == NO_OBJECT || held->nodes[i].count > held->nodes[best].count))
				best = i;
		if (best == NO_OBJECT)
			break;
		code = name(held, best, SPLITS_MAX, row);
		held->nodes[best].count = 0;
	}
	return code;
}

static bool is_atom(const struct view *view, uint32_t object)
{
	return view->atoms[object / 64] >> object % 64 & 1;
}

/* Those for which there is no variable, by what they are instead. */
struct others {
	double native[2], garbage[2], none[2], interned[2];
};

static int add_block(struct held *held, const struct pl_block *block, uint32_t owner, struct others *others)
{
	const struct analysis *analysis = held->analysis;
	double count = (double)block->weight, size = count * (double)block->size, *of = NULL;
	uint32_t at = owner;

	if (owner == NO_OBJECT)
		of = others->none;
	else if (is_atom(analysis->view, owner))
		of = others->interned;
	else if (analysis->roots.via[owner] == PL_GRAPH_NONE)
		of = others->garbage;
	if (!of) {
		/* All that is held alone is held by what is at the top. */
		if (is_native(analysis, at))
			of = others->native;
	}
	if (of) {
		of[0] += count;
		of[1] += size;
		return 0;
	}
	return is_shared(analysis, owner) ? add_shared(held, owner, count, size) : add_way(held, owner, count, size);
}

/* What native code holds are as many roots as there are objects: one holder, not thousands. */
static void take_native(struct held *held, struct others *others)
{
	for (size_t i = 0; i < held->count; i++) {
		struct node *node = &held->nodes[i];

		if (node->parent != NO_OBJECT || !is_native(held->analysis, node->object))
			continue;
		others->native[0] += node->count;
		others->native[1] += node->size;
		node->count = 0;
	}
}

/* The module that an object is the dict of, or a variable; NO_OBJECT: none. */
static uint32_t module_of(const struct held *held, uint32_t object)
{
	const struct analysis *analysis = held->analysis;

	for (int step = 0; step < 3; step++) {
		uint32_t next = analysis->roots.via[object];

		if (type_of(analysis->view, object)->kind == KIND_MODULE)
			return object;
		if (next == PL_GRAPH_NONE || next == object)
			return NO_OBJECT;
		object = next;
	}
	return NO_OBJECT;
}

/* Modules that are imported under ever new names are as many roots, each with little: what they have in common keeps them. */
static int take_modules(struct held *held, struct pl_held_row *row)
{
	double least = held->row_count / MODULES_LEAST, count = 0, size = 0;
	uint32_t modules[MODULES_LEAST];
	size_t found = 0;
	for (int take = 0; take < 2; take++) {
		if (take && (found < MODULES_LEAST || count < held->row_count / 2))
			return 0;
		for (size_t i = 0; i < held->count; i++) {
			struct node *node = &held->nodes[i];
			uint32_t module = node->parent != NO_OBJECT || node->count >= least || node->count <= 0 ?
						  NO_OBJECT : module_of(held, node->object);
			size_t at = 0;

			if (module == NO_OBJECT)
				continue;
			while (at < found && modules[at] != module)
				at++;
			if (at == found && found < MODULES_LEAST)
				modules[found++] = module;
			count += take ? 0 : node->count;
			size += take ? 0 : node->size;
			if (take)
				node->count = 0;
		}
	}
	return add_holder(row, strdup("sys.modules"), count, size);
}

static int finish_row(struct held *held, struct others *others, struct pl_held_row *row)
{
	int code = sum_up(held);

	if (code < 0)
		return code;
	take_native(held, others);
	code = take_modules(held, row);
	if (code == 0)
		code = name_all(held, row);
	if (code == 0 && others->native[0] > 0)
		code = add_holder(row, strdup(PL_HELD_BY_NATIVE), others->native[0], others->native[1]);
	if (code == 0 && others->garbage[0] > 0)
		code = add_holder(row, strdup(PL_HELD_BY_GARBAGE), others->garbage[0], others->garbage[1]);
	if (code == 0 && others->interned[0] > 0)
		code = add_holder(row, strdup("interned strings"), others->interned[0], others->interned[1]);
	if (code == 0 && others->none[0] > 0)
		code = add_holder(row, strdup(PL_HELD_BY_NONE), others->none[0], others->none[1]);
	/* By several ways it may have been counted more than once. */
	for (size_t i = 0; i < row->held_by_count; i++) {
		row->held_by[i].count = row->held_by[i].count < row->count ? row->held_by[i].count : row->count;
		row->held_by[i].size = row->held_by[i].size < row->size ? row->held_by[i].size : row->size;
	}
	if (row->held_by_count)
		qsort(row->held_by, row->held_by_count, sizeof(*row->held_by), by_count);
	return code;
}

static int hold_row(struct held *held, const struct pl_block *blocks, const uint32_t *owners, size_t count, uint32_t number,
	struct pl_held_row *row)
{
	struct others others = { 0 };
	double blocks_count = 0, size = 0;
	int code = 0;

	held->count = 0;
	pl_table_free(&held->places);
	for (size_t i = 0; code == 0 && i < count; i++) {
		if (blocks[i].row != number)
			continue;
		row->looked_at++;
		blocks_count += (double)blocks[i].weight;
		size += (double)blocks[i].weight * (double)blocks[i].size;
		code = add_block(held, &blocks[i], owners[i], &others);
	}
	held->row_count = blocks_count;
	row->count = (uint64_t)llround(blocks_count);
	row->size = (uint64_t)llround(size);
	return code == 0 ? finish_row(held, &others, row) : code;
}

int held_rows(struct analysis *analysis, const struct pl_block *blocks, size_t count, struct pl_held_row *ret, size_t rows)
{
	struct held held = { .analysis = analysis };
	pl_autofree uint32_t *owners = malloc((count + 1) * sizeof(*owners));
	int code = owners ? blocks_find(analysis->view, blocks, count, owners) : -ENOMEM;

	if (code == 0)
		code = find_referrers(&held, owners, count);
	for (size_t row = 0; code == 0 && row < rows; row++)
		code = hold_row(&held, blocks, owners, count, (uint32_t)row, &ret[row]);
	pl_table_free(&held.places);
	free(held.nodes);
	free(held.referrers);
	free(held.leaves);
	return code;
}
