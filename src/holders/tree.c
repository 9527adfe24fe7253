/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "holders_private.h"
#include "pyleak/table.h"

/*
 * The tree of dominators, small enough to be looked at: what retains a good part of all is a node by itself, with its path, and
 * of the rest things of one type under one holder are one.
 */

enum {
	ALONE_SHARE = 2000, /* what retains this part of all stands alone */
	LEAST_SHARE = 10000, /* what keeps less is not taken apart */
	LEAST = 1024,
	DEPTH_MAX = 48,
	NODES_MAX = 20000,
};

struct part {
	uint32_t *objects;
	uint32_t count, capacity;
};

struct making {
	struct analysis *analysis;
	struct pl_held_tree *tree;
	struct part *parts;   /* of each node; empty once it was taken apart */
	size_t capacity;
	uint32_t *bucket;     /* of each type: 1 + the node that its small things go to, below the one that is taken apart */
	uint32_t *touched;    /* types that have one */
	size_t touched_count;
	struct pl_table modules; /* 1 + the dict of a module: its number, and 1 + its node */
	uint64_t alone, least;
};

static int add_object(struct part *part, uint32_t object)
{
	if (part->count == part->capacity) {
		uint32_t capacity = part->capacity ? 2 * part->capacity : 4;
		uint32_t *grown = reallocarray(part->objects, capacity, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		part->objects = grown;
		part->capacity = capacity;
	}
	part->objects[part->count++] = object;
	return 0;
}

/* UINT32_MAX: out of memory. `path` is taken over. */
static uint32_t add_node(struct making *making, uint32_t parent, char *path, const struct type *type)
{
	struct pl_held_tree *tree = making->tree;
	char *name = type ? name_of_type(making->analysis->view, type) : strdup("");

	if (tree->count == making->capacity) {
		size_t capacity = 2 * making->capacity;
		struct pl_held_node *nodes = reallocarray(tree->nodes, capacity, sizeof(*nodes));
		struct part *parts;

		if (nodes)
			tree->nodes = nodes;
		parts = nodes ? reallocarray(making->parts, capacity, sizeof(*parts)) : NULL;
		if (!parts) {
			free(name);
			free(path);
			return UINT32_MAX;
		}
		making->parts = parts;
		making->capacity = capacity;
	}
	tree->nodes[tree->count] = (struct pl_held_node){ .path = path, .type = name, .parent = parent,
		.depth = parent == UINT32_MAX ? 0 : tree->nodes[parent].depth + 1 };
	making->parts[tree->count] = (struct part){ 0 };
	return name ? (uint32_t)tree->count++ : (free(path), UINT32_MAX);
}

static int put(struct making *making, uint32_t node, uint32_t object)
{
	making->tree->nodes[node].size += making->analysis->retained[object];
	making->tree->nodes[node].count += making->analysis->retained_count[object];
	making->tree->nodes[node].members++;
	return add_object(&making->parts[node], object);
}

static bool is_native(const struct analysis *analysis, uint32_t object)
{
	uint32_t root = analysis->roots.of[object];

	return root && analysis->roots.items[root - 1].kind == ROOT_NATIVE;
}

/* A module's dict, and sys.modules: their parts are those of who has them. */
static bool is_transparent(const struct analysis *analysis, uint32_t object)
{
	return object && is_namespace(analysis, object) && type_of(analysis->view, object)->kind == KIND_DICT;
}

static int find_modules(struct making *making)
{
	struct view *view = making->analysis->view;

	for (uint32_t i = 1; i < view->count; i++) {
		struct pl_table_entry *entry;
		uint32_t dict = type_of(view, i)->kind != KIND_MODULE ? NO_OBJECT :
			image_object(view->image, image_word(view->image, address_of(view, i) + (uint64_t)view->layout.head));

		if (dict == NO_OBJECT || making->analysis->roots.via[i] == PL_GRAPH_NONE)
			continue;
		entry = pl_table_insert(&making->modules, (uint64_t)dict + 1);
		if (!entry)
			return -ENOMEM;
		entry->value[0] = i;
	}
	return 0;
}

/* The node of the module that a dict is of; 0: of none. UINT32_MAX: out of memory. */
static uint32_t module_node(struct making *making, uint32_t dict)
{
	struct analysis *analysis = making->analysis;
	struct pl_table_entry *entry = pl_table_find(&making->modules, (uint64_t)dict + 1);
	uint32_t module = entry ? (uint32_t)entry->value[0] : 0;
	char *path;

	if (!entry)
		return 0;
	if (!entry->value[1]) {
		path = name_of_path(analysis->view, &analysis->roots, module);
		entry->value[1] = path ? (uint64_t)add_node(making, 0, path, type_of(analysis->view, module)) + 1 : 0;
	}
	return (uint32_t)entry->value[1] - 1;
}

/* Functions refer to their module's dict as well, so that it is seldom the module's alone: it is shown there all the same. */
static int place_in_module(struct making *making, uint32_t dict, bool *ret_placed)
{
	uint32_t node = making->analysis->retained[dict] >= making->alone ? module_node(making, dict) : 0;

	*ret_placed = node != 0;
	if (!node)
		return 0;
	return node == UINT32_MAX ? -ENOMEM : put(making, node, dict);
}

static int place(struct making *making, uint32_t parent, uint32_t object)
{
	struct analysis *analysis = making->analysis;
	struct view *view = analysis->view;
	uint32_t type = view->type_of[object], node;

	if (parent == 0 && is_transparent(analysis, object)) {
		bool placed;
		int code = place_in_module(making, object, &placed);

		if (code < 0 || placed)
			return code;
	}
	if (is_transparent(analysis, object)) {
		const struct pl_graph *graph = &analysis->tree;
		int code = 0;

		making->tree->nodes[parent].own += view->sizes[object];
		making->tree->nodes[parent].own_count++;
		for (uint32_t e = graph->offsets[object]; code == 0 && e < graph->offsets[object + 1]; e++)
			code = place(making, parent, graph->targets[e]);
		return code;
	}
	if (making->tree->count < NODES_MAX && analysis->retained[object] >= making->alone && !is_native(analysis, object)) {
		char *path = name_of_path(view, &analysis->roots, object);

		node = path ? add_node(making, parent, path, type_of(view, object)) : UINT32_MAX;
		return node == UINT32_MAX ? -ENOMEM : put(making, node, object);
	}
	if (!making->bucket[type]) {
		node = add_node(making, parent, NULL, type_of(view, object));
		if (node == UINT32_MAX)
			return -ENOMEM;
		making->bucket[type] = node + 1;
		making->touched[making->touched_count++] = type;
	}
	return put(making, making->bucket[type] - 1, object);
}

static void forget_buckets(struct making *making)
{
	while (making->touched_count)
		making->bucket[making->touched[--making->touched_count]] = 0;
}

static int take_apart(struct making *making, uint32_t node)
{
	const struct pl_graph *graph = &making->analysis->tree;
	struct part part = making->parts[node];
	int code = 0;

	making->parts[node] = (struct part){ 0 };
	if (node && (making->tree->nodes[node].size < making->least || making->tree->nodes[node].depth >= DEPTH_MAX ||
			    making->tree->count >= NODES_MAX)) {
		making->tree->nodes[node].own = making->tree->nodes[node].size;
		making->tree->nodes[node].own_count = making->tree->nodes[node].count;
		free(part.objects);
		return 0;
	}
	for (uint32_t i = 0; code == 0 && i < part.count; i++) {
		uint32_t object = part.objects[i];

		making->tree->nodes[node].own += object ? making->analysis->view->sizes[object] : 0;
		making->tree->nodes[node].own_count += object != 0;
		for (uint32_t e = graph->offsets[object]; code == 0 && e < graph->offsets[object + 1]; e++) {
			/* What native code holds has a node of its own: the last one of the root's. */
			if (!object && is_native(making->analysis, graph->targets[e]))
				continue;
			code = place(making, node, graph->targets[e]);
		}
	}
	forget_buckets(making);
	free(part.objects);
	return code;
}

enum apart { APART_NATIVE, APART_GARBAGE, APART_ATOMS };

static bool belongs(const struct analysis *analysis, uint32_t object, enum apart apart)
{
	bool atom = analysis->view->atoms[object / 64] >> object % 64 & 1;

	if (apart == APART_NATIVE)
		return is_native(analysis, object);
	return analysis->idom[object] == PL_GRAPH_NONE && atom == (apart == APART_ATOMS);
}

/* By type, without who holds whom. */
static int add_apart(struct making *making, const char *title, enum apart apart)
{
	const bool native = apart == APART_NATIVE;
	struct analysis *analysis = making->analysis;
	struct view *view = analysis->view;
	struct pl_held_tree *tree = making->tree;
	uint32_t parent = UINT32_MAX;

	for (uint32_t i = 1; i < view->count; i++) {
		uint32_t type = view->type_of[i], node;
		uint64_t size = native ? analysis->retained[i] : view->sizes[i];

		if (!belongs(analysis, i, apart))
			continue;
		if (parent == UINT32_MAX) {
			char *path = strdup(title);

			parent = path ? add_node(making, 0, path, NULL) : UINT32_MAX;
			if (parent == UINT32_MAX)
				return -ENOMEM;
		}
		if (!making->bucket[type]) {
			node = add_node(making, parent, NULL, type_of(view, i));
			if (node == UINT32_MAX)
				return -ENOMEM;
			making->bucket[type] = node + 1;
			making->touched[making->touched_count++] = type;
		}
		node = making->bucket[type] - 1;
		tree->nodes[node].size += size;
		tree->nodes[node].own += size;
		tree->nodes[node].count += native ? analysis->retained_count[i] : 1;
		tree->nodes[node].own_count += native ? analysis->retained_count[i] : 1;
		tree->nodes[node].members++;
		tree->nodes[parent].size += size;
		tree->nodes[parent].count += native ? analysis->retained_count[i] : 1;
		if (!native) {
			tree->nodes[0].size += size;
			tree->nodes[0].count++;
		}
	}
	forget_buckets(making);
	return 0;
}

int make_tree(struct analysis *analysis, struct pl_held_tree *ret)
{
	struct making making = { .analysis = analysis, .tree = ret };
	uint32_t types = analysis->view->type_count;
	char *title = strdup("objects");
	int code = 0;

	*ret = (struct pl_held_tree){ 0 };
	making.bucket = calloc((size_t)types + 1, sizeof(*making.bucket));
	making.touched = calloc((size_t)types + 1, sizeof(*making.touched));
	making.capacity = 256;
	making.parts = calloc(making.capacity, sizeof(*making.parts));
	ret->nodes = calloc(making.capacity, sizeof(*ret->nodes));
	making.alone = analysis->retained[0] / ALONE_SHARE > LEAST ? analysis->retained[0] / ALONE_SHARE : LEAST;
	making.least = analysis->retained[0] / LEAST_SHARE > LEAST ? analysis->retained[0] / LEAST_SHARE : LEAST;
	if (!making.bucket || !making.touched || !making.parts || !ret->nodes || !title) {
		free(title);
		code = -ENOMEM;
	} else if (add_node(&making, UINT32_MAX, title, NULL) == UINT32_MAX) {
		code = -ENOMEM;
	}
	if (code == 0)
		code = find_modules(&making);
	if (code == 0)
		code = put(&making, 0, 0);
	for (uint32_t at = 0; code == 0 && at < ret->count; at++)
		code = take_apart(&making, at);
	if (code == 0)
		code = add_apart(&making, PL_HELD_BY_NATIVE, APART_NATIVE);
	if (code == 0)
		code = add_apart(&making, PL_HELD_BY_GARBAGE, APART_GARBAGE);
	if (code == 0)
		code = add_apart(&making, PL_HELD_FOR_EVER, APART_ATOMS);
	for (size_t i = 0; making.parts && i < ret->count; i++)
		free(making.parts[i].objects);
	free(making.parts);
	free(making.bucket);
	free(making.touched);
	pl_table_free(&making.modules);
	return code;
}

void pl_held_tree_free(struct pl_held_tree *tree)
{
	for (size_t i = 0; i < tree->count; i++) {
		free(tree->nodes[i].path);
		free(tree->nodes[i].type);
	}
	free(tree->nodes);
	*tree = (struct pl_held_tree){ 0 };
}
