/* SPDX-License-Identifier: MIT */
#include "edges.h"

#include <errno.h>
#include <stdlib.h>

/* All edges in one pass over the objects, in the order of their numbers, as pl_graph keeps them. */

enum { EDGES_FIRST = 1 << 16 };

struct pair {
	uint32_t from, to;
};
struct collecting {
	struct view *view;
	uint32_t from;
	size_t count, capacity;
	uint32_t *targets;
	/* Words of memory that objects lead to: what they own of it, the counts decide. */
	struct pair *pairs;
	size_t pair_count, pair_capacity;
	uint64_t owned;
	int code;
};

static bool is_atom(const struct view *view, uint32_t object)
{
	return view->atoms[object / 64] >> object % 64 & 1;
}

static void add_pair(struct collecting *collecting, uint32_t to)
{
	if (collecting->pair_count == collecting->pair_capacity) {
		size_t capacity = collecting->pair_capacity ? 2 * collecting->pair_capacity : EDGES_FIRST;
		struct pair *grown = reallocarray(collecting->pairs, capacity, sizeof(*grown));

		if (!grown) {
			collecting->code = -ENOMEM;
			return;
		}
		collecting->pairs = grown;
		collecting->pair_capacity = capacity;
	}
	collecting->pairs[collecting->pair_count++] = (struct pair){ collecting->from, to };
}

static void collect(void *context, uint32_t target, const struct edge *edge)
{
	struct collecting *collecting = context;
	struct view *view = collecting->view;

	if (is_atom(view, target))
		return;
	if (target == collecting->from) {
		if (edge->owned)
			rest_take(view, target);
		return;
	}
	if (edge->kind == EDGE_MEMORY) {
		add_pair(collecting, target);
		return;
	}
	if (collecting->count == collecting->capacity) {
		size_t capacity = collecting->capacity + collecting->capacity / 2 + EDGES_FIRST;
		uint32_t *grown = capacity < UINT32_MAX ? reallocarray(collecting->targets, capacity, sizeof(*grown)) : NULL;

		if (!grown) {
			collecting->code = -ENOMEM;
			return;
		}
		collecting->targets = grown;
		collecting->capacity = capacity;
	}
	collecting->targets[collecting->count++] = target;
	if (edge->owned)
		rest_take(view, target);
}

static void collect_owned(void *context, uint64_t address, uint64_t size)
{
	(void)address;
	((struct collecting *)context)->owned += (size + 15) & ~UINT64_C(15);
}

/* Which are atoms. */
static int start(struct view *view)
{
	view->atoms = calloc((size_t)view->count / 64 + 1, sizeof(*view->atoms));
	if (!view->atoms)
		return -ENOMEM;
	for (uint32_t i = 1; i < view->count; i++) {
		const struct image_piece *piece = image_find(view->image, address_of(view, i));
		const struct type *type = type_of(view, i);

		if ((view->rest[i] == REST_IMMORTAL || is_static(piece, address_of(view, i))) && edges_none(type))
			view->atoms[i / 64] |= UINT64_C(1) << i % 64;
	}
	return claim_module_states(view);
}

/* Puts the pairs that counts confirm among the edges. */
static int add_memory(struct view *view, const struct collecting *collecting)
{
	uint32_t *offsets = view->graph.offsets, *targets, kept = 0, at;

	for (size_t i = 0; i < collecting->pair_count; i++) {
		struct pair *pair = &collecting->pairs[i];

		if (rest_left(view, pair->to) || view->rest[pair->to] == REST_UNKNOWN) {
			rest_take(view, pair->to);
			collecting->pairs[kept++] = *pair;
		}
	}
	if (!kept)
		return 0;
	at = offsets[view->count];
	targets = reallocarray(view->graph.targets, (size_t)at + kept + 1, sizeof(*targets));
	if (!targets)
		return -ENOMEM;
	view->graph.targets = targets;
	/* From the end on; pairs are in the order of their sources too. */
	for (uint32_t v = view->count, left = kept; v-- > 0 && left;) {
		uint32_t end = offsets[v + 1], begin = offsets[v];

		offsets[v + 1] = end + left;
		while (left && collecting->pairs[left - 1].from == v) {
			left--;
			targets[end + left] = collecting->pairs[left].to;
		}
		memmove(targets + begin + left, targets + begin, (end - begin) * sizeof(*targets));
	}
	return 0;
}

/* An object whose edges are known is asked for again only where it is named. */
static void fill(struct view *view, struct image_filling *filling, uint32_t object)
{
	const struct type *type = type_of(view, object);
	uint64_t address = address_of(view, object);
	struct image_piece *piece = object ? image_find(view->image, address) : NULL;
	const uint8_t *bytes;

	if (!piece || piece->file)
		return;
	if (edges_none(type)) {
		image_fill(view->image, filling, piece, address, address + view->sizes[object], true);
		return;
	}
	image_need(piece, address, type->basic_size + 8);
	bytes = piece->bytes + (address - piece->start);
	address -= headers_size(view, type, bytes);
	image_fill(view->image, filling, piece, address,
		address + ((headers_size(view, type, bytes) + body_size(view, type, bytes, piece->end - address) + 15) & ~UINT64_C(15)), true);
}

int edges_find(struct view *view)
{
	struct collecting collecting = { .view = view };
	const struct edge_visitor visitor = { collect, collect_owned, &collecting };
	struct image_filling filling = { .piece = NULL };
	int code = start(view);

	view->graph.count = view->count;
	view->graph.offsets = malloc(((size_t)view->count + 1) * sizeof(uint32_t));
	if (code == 0 && !view->graph.offsets)
		code = -ENOMEM;
	for (uint32_t i = 0; code == 0 && i < view->count; i++) {
		view->graph.offsets[i] = (uint32_t)collecting.count;
		collecting.from = i;
		collecting.owned = 0;
		if (i)
			edges_of(view, i, &visitor);
		if (collecting.owned)
			view->sizes[i] = view->sizes[i] + collecting.owned < UINT32_MAX ? view->sizes[i] + (uint32_t)collecting.owned :
				UINT32_MAX;
		fill(view, &filling, i);
		code = view->failed ? -ENOMEM : collecting.code;
	}
	if (code == 0)
		code = image_fill_end(view->image, &filling);
	view->graph.targets = collecting.targets;
	if (code == 0) {
		view->graph.offsets[view->count] = (uint32_t)collecting.count;
		code = add_memory(view, &collecting);
	}
	free(collecting.pairs);
	return code;
}
