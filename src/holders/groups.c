/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "edges.h"
#include "holders_private.h"
#include "pyleak/table.h"

/*
 * Objects that no single variable retains, by type: where two variables lead to all of a million objects, neither would
 * free them, and the tree of dominators has nothing to say. And objects of one type, wherever they are.
 */

enum {
	LARGE_SHARE = 1000,
	LEAVES_SHARE = 5,
	GROUP_SHARE = 20,    /* a group keeps at least this part of all: 5 per cent */
	LEVELS = 6,          /* how far up those are looked for who hold many */
	LEAST_HELD = 20,     /* who holds less than this part of a group is not named */
	PARENTS_MAX = 1 << 20,
};

static bool is_wanted(const struct analysis *analysis, uint32_t object, uint32_t type, bool any)
{
	return analysis->view->type_of[object] == type && analysis->roots.via[object] != PL_GRAPH_NONE &&
		(any || analysis->idom[object] == PL_GRAPH_ROOT || (analysis->idom[object] != PL_GRAPH_NONE &&
			is_namespace(analysis, analysis->idom[object])));
}

/* Who comes so many steps before on the way. */
static uint32_t ancestor(const struct analysis *analysis, uint32_t object, int level)
{
	for (; level > 0; level--) {
		uint32_t before = analysis->roots.via[object];

		if (before == object || before == PL_GRAPH_NONE)
			break;
		object = before;
	}
	return object;
}

struct sharing {
	struct analysis *analysis;
	struct pl_held_group *group;
	uint32_t type;
	bool any;
	uint8_t *claimed; /* a bit for each object: its holder is among those found */
	struct pl_held_by *found;
	size_t found_count;
};

/* Counts them by all who refer to them, not only by those on the way on which they were reached. */
static int count_referrers(const struct sharing *sharing, struct pl_table *table)
{
	const struct pl_graph *graph = &sharing->analysis->view->graph;

	for (uint32_t v = 1; v < graph->count; v++)
		for (uint32_t e = graph->offsets[v]; e < graph->offsets[v + 1]; e++) {
			struct pl_table_entry *entry;

			if (sharing->analysis->view->type_of[graph->targets[e]] != sharing->type ||
				!is_wanted(sharing->analysis, graph->targets[e], sharing->type, sharing->any) ||
				sharing->analysis->roots.via[v] == PL_GRAPH_NONE)
				continue;
			if (table->count >= PARENTS_MAX)
				return 0;
			entry = pl_table_insert(table, (uint64_t)v + 1);
			if (!entry)
				return -ENOMEM;
			entry->value[0]++;
		}
	return 0;
}

static void claim_referred(struct sharing *sharing, const struct pl_table *table)
{
	const struct pl_graph *graph = &sharing->analysis->view->graph;

	for (size_t i = 0; table->entries && i <= table->mask; i++) {
		const struct pl_table_entry *entry = &table->entries[i];

		if (!entry->key || !entry->value[1])
			continue;
		for (uint32_t e = graph->offsets[entry->key - 1]; e < graph->offsets[entry->key]; e++)
			sharing->claimed[graph->targets[e] / 8] |= (uint8_t)(1 << graph->targets[e] % 8);
	}
}

/* Counts those that are not claimed yet by who holds them, so many steps up. */
static int count_holders(const struct sharing *sharing, int level, struct pl_table *table)
{
	for (uint32_t i = 1; i < sharing->analysis->view->count; i++) {
		struct pl_table_entry *entry;

		if (!is_wanted(sharing->analysis, i, sharing->type, sharing->any) || (sharing->claimed[i / 8] >> i % 8 & 1))
			continue;
		if (table->count >= PARENTS_MAX)
			return 0;
		entry = pl_table_insert(table, (uint64_t)ancestor(sharing->analysis, i, level) + 1);
		if (!entry)
			return -ENOMEM;
		entry->value[0]++;
	}
	return 0;
}

/* Those that hold a good part of them are found; what they hold is claimed. */
static int claim(struct sharing *sharing, int level, struct pl_table *table)
{
	uint64_t least = sharing->group->count / LEAST_HELD + 1;

	for (size_t i = 0; table->entries && i <= table->mask; i++) {
		struct pl_table_entry *entry = &table->entries[i];
		struct pl_held_by *grown;

		if (!entry->key || entry->value[0] < least)
			continue;
		grown = reallocarray(sharing->found, sharing->found_count + 1, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		sharing->found = grown;
		grown[sharing->found_count++] = (struct pl_held_by){
			name_of_path(sharing->analysis->view, &sharing->analysis->roots, (uint32_t)(entry->key - 1)), entry->value[0] };
		if (!grown[sharing->found_count - 1].path)
			return -ENOMEM;
		entry->value[1] = 1;
	}
	if (level == 1) {
		claim_referred(sharing, table);
		return 0;
	}
	for (uint32_t i = 1; i < sharing->analysis->view->count; i++) {
		const struct pl_table_entry *entry;

		if (!is_wanted(sharing->analysis, i, sharing->type, sharing->any) || (sharing->claimed[i / 8] >> i % 8 & 1))
			continue;
		entry = pl_table_find(table, (uint64_t)ancestor(sharing->analysis, i, level) + 1);
		if (entry && entry->value[1])
			sharing->claimed[i / 8] |= (uint8_t)(1 << i % 8);
	}
	return 0;
}

static int by_count(const void *a, const void *b)
{
	const struct pl_held_by *left = a, *right = b;

	return left->count < right->count ? 1 : left->count > right->count ? -1 : strcmp(left->path, right->path);
}

/* The nearest ones that hold a good part of them. */
static int name_holders(struct analysis *analysis, struct pl_held_group *group, uint32_t type, bool any)
{
	struct sharing sharing = { .analysis = analysis, .group = group, .type = type, .any = any,
		.claimed = calloc(analysis->view->count / 8 + 1, 1) };
	int code = sharing.claimed ? 0 : -ENOMEM;

	for (int level = 1; code == 0 && level <= LEVELS; level++) {
		struct pl_table table = { 0 };

		code = level == 1 ? count_referrers(&sharing, &table) : count_holders(&sharing, level, &table);
		if (code == 0)
			code = claim(&sharing, level, &table);
		pl_table_free(&table);
	}
	if (code == 0 && sharing.found_count)
		qsort(sharing.found, sharing.found_count, sizeof(*sharing.found), by_count);
	group->held_by = sharing.found;
	group->held_by_count = sharing.found_count;
	free(sharing.claimed);
	return code;
}

static int add_group(struct analysis *analysis, uint32_t type, uint64_t count, uint64_t size, bool any, struct pl_holders *ret)
{
	struct pl_held_group *grown = reallocarray(ret->groups, ret->group_count + 1, sizeof(*grown));
	struct pl_held_group *group;

	if (!grown)
		return -ENOMEM;
	ret->groups = grown;
	group = &grown[ret->group_count++];
	*group = (struct pl_held_group){ .type = name_of_type(analysis->view, &analysis->view->types[type]), .count = count,
		.size = size };
	return group->type ? name_holders(analysis, group, type, any) : -ENOMEM;
}

/* What every program has, and every module shares. */
static bool is_common(const struct type *type)
{
	return type->kind == KIND_TYPE || type->kind == KIND_FUNCTION || type->kind == KIND_CODE || type->kind == KIND_MODULE;
}

static int list_type(struct analysis *analysis, struct tally *tally, const char *name, struct pl_holders *ret)
{
	struct view *view = analysis->view;
	int code = 0;

	tally_clear(tally);
	for (uint32_t i = 1; i < view->count; i++)
		if (analysis->roots.via[i] != PL_GRAPH_NONE)
			tally_add(tally, i, view->sizes[i]); /* their own: one may hold the next */
	for (uint32_t type = 0; code == 0 && type < tally->types; type++) {
		char *text = tally->count[type] ? name_of_type(view, &view->types[type]) : NULL;
		const char *last = text ? strrchr(text, '.') : NULL;

		if (text && (strcmp(text, name) == 0 || (last && strcmp(last + 1, name) == 0)))
			code = add_group(analysis, type, tally->count[type], tally->size[type], true, ret);
		free(text);
	}
	return code;
}

int list_groups(struct analysis *analysis, struct tally *tally, size_t limit, const char *type_name, struct pl_holders *ret)
{
	struct view *view = analysis->view;
	const struct pl_graph *tree = &analysis->tree;
	int code = 0;

	if (type_name)
		return list_type(analysis, tally, type_name, ret);
	tally_clear(tally);
	/* What is larger is a holder by itself. */
	uint64_t large = analysis->retained[0] / LARGE_SHARE;

	for (uint32_t i = 0; i < view->count; i++) {
		if (!is_namespace(analysis, i) || (i && analysis->idom[i] == PL_GRAPH_NONE))
			continue;
		for (uint32_t e = tree->offsets[i]; e < tree->offsets[i + 1]; e++) {
			uint32_t child = tree->targets[e], root = analysis->roots.of[child];

			if (!is_common(type_of(view, child)) && !is_namespace(analysis, child) && analysis->retained[child] < large && !(root && analysis->roots.items[root - 1].kind == ROOT_NATIVE))
				tally_add(tally, child, analysis->retained[child]);
		}
	}
	while (code == 0 && ret->group_count < limit) {
		uint32_t best = 0;
		uint64_t count, size;

		for (uint32_t type = 1; type < tally->types; type++)
			if (tally->size[type] > tally->size[best])
				best = type;
		count = tally->count[best];
		size = tally->size[best];
		if (size < analysis->retained[0] / GROUP_SHARE)
			break;
		tally->size[best] = tally->count[best] = 0;
		/* A few of them are holders by themselves; and many texts of many modules are no news. */
		if (count >= 100 && (!edges_none(&view->types[best]) || size >= analysis->retained[0] / LEAVES_SHARE))
			code = add_group(analysis, best, count, size, false, ret);
	}
	return code;
}
