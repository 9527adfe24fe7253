/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"
#include "pyleak/graph.h"

/*
 * Semi-NCA (Georgiadis, "Linear-Time Algorithms for Dominators and Related Problems", 2005, section 2.3), on the nodes
 * that have edges of their own. A node without any dominates nobody and is on nobody's way: it is hung afterwards on the
 * nearest node that dominates all who lead to it.
 *
 * Within this file `v`, `w` are numbers of nodes in the order of a depth-first search, 0 for the root.
 */

struct search {
	const struct pl_graph *graph;
	uint32_t count;      /* nodes in the core that are reached */
	uint32_t *number;    /* node → number + 1; 0: not reached, or a leaf */
	uint32_t *node;      /* number → node */
	uint32_t *parent;    /* in the search's tree; idom in the end */
	uint32_t *semi, *ancestor, *label;
	uint32_t *from, *sources; /* predecessors: sources[from[v]] to sources[from[v + 1]] */
	uint32_t *stack;
};

static bool is_leaf(const struct pl_graph *graph, uint32_t node)
{
	return node != PL_GRAPH_ROOT && graph->offsets[node] == graph->offsets[node + 1];
}

static void search_free(struct search *s)
{
	free(s->number);
	free(s->node);
	free(s->parent);
	free(s->semi);
	free(s->ancestor);
	free(s->label);
	free(s->from);
	free(s->sources);
	free(s->stack);
}

static uint32_t *words(size_t count)
{
	return malloc((count ? count : 1) * sizeof(uint32_t));
}

/* Numbers what is reached. The stack is the chain of parents; `semi` holds where each node's edges have been gone through
 * up to. */
static int search_core(struct search *s)
{
	const struct pl_graph *graph = s->graph;
	uint32_t v = 0, core = 1;

	for (uint32_t node = 1; node < graph->count; node++)
		core += !is_leaf(graph, node);
	s->number = calloc(graph->count, sizeof(*s->number));
	s->node = words(core);
	s->parent = words(core);
	s->semi = words(core);
	if (!s->number || !s->node || !s->parent || !s->semi)
		return -ENOMEM;
	s->node[0] = PL_GRAPH_ROOT;
	s->number[PL_GRAPH_ROOT] = 1;
	s->parent[0] = 0;
	s->semi[0] = graph->offsets[PL_GRAPH_ROOT];
	s->count = 1;
	for (;;) {
		if (s->semi[v] == graph->offsets[s->node[v] + 1]) {
			if (v == 0)
				return 0;
			v = s->parent[v];
			continue;
		}
		uint32_t target = graph->targets[s->semi[v]++];

		if (s->number[target] || is_leaf(graph, target))
			continue;
		s->node[s->count] = target;
		s->number[target] = s->count + 1;
		s->parent[s->count] = v;
		s->semi[s->count] = graph->offsets[target];
		v = s->count++;
	}
}

static int find_predecessors(struct search *s)
{
	const struct pl_graph *graph = s->graph;
	uint32_t sum = 0;

	s->from = calloc((size_t)s->count + 2, sizeof(*s->from));
	if (!s->from)
		return -ENOMEM;
	/* from[v + 2] counts, from[v + 1] is where the next one goes. */
	for (uint32_t v = 0; v < s->count; v++)
		for (uint32_t e = graph->offsets[s->node[v]]; e < graph->offsets[s->node[v] + 1]; e++)
			if (s->number[graph->targets[e]])
				s->from[s->number[graph->targets[e]] + 1]++;
	for (uint32_t v = 0; v < s->count; v++)
		s->from[v + 2] += s->from[v + 1];
	sum = s->from[s->count + 1];
	s->sources = words(sum);
	if (!s->sources)
		return -ENOMEM;
	for (uint32_t v = 0; v < s->count; v++)
		for (uint32_t e = graph->offsets[s->node[v]]; e < graph->offsets[s->node[v] + 1]; e++)
			if (s->number[graph->targets[e]])
				s->sources[s->from[s->number[graph->targets[e]]]++] = v;
	return 0;
}

/* The label with the smallest semidominator on the way from v up to the last node that is not linked (numbers above
 * `last` are); the way is shortened. */
static uint32_t evaluate(struct search *s, uint32_t v, uint32_t last)
{
	uint32_t depth = 0, best;

	if (s->ancestor[v] <= last)
		return s->label[v];
	while (s->ancestor[v] > last) {
		s->stack[depth++] = v;
		v = s->ancestor[v];
	}
	best = v;
	while (depth > 0) {
		v = s->stack[--depth];
		if (s->semi[s->label[best]] < s->semi[s->label[v]])
			s->label[v] = s->label[best];
		s->ancestor[v] = s->ancestor[best];
		best = v;
	}
	return s->label[v];
}

static int dominate_core(struct search *s)
{
	s->ancestor = words(s->count);
	s->label = words(s->count);
	s->stack = words(s->count);
	if (!s->ancestor || !s->label || !s->stack)
		return -ENOMEM;
	memcpy(s->ancestor, s->parent, s->count * sizeof(*s->ancestor));
	for (uint32_t v = 0; v < s->count; v++)
		s->label[v] = s->semi[v] = v;
	for (uint32_t w = s->count; w-- > 1;) {
		uint32_t least = s->parent[w];

		for (uint32_t p = s->from[w]; p < s->from[w + 1]; p++) {
			uint32_t v = s->sources[p], semi;

			semi = v <= w ? v : s->semi[evaluate(s, v, w)];
			if (semi < least)
				least = semi;
		}
		s->semi[w] = least;
	}
	for (uint32_t w = 1; w < s->count; w++)
		while (s->parent[w] > s->semi[w])
			s->parent[w] = s->parent[s->parent[w]];
	return 0;
}

/* Intervals: d dominates v if enter[d] <= enter[v] < enter[d] + span[d]. They take the places of label and ancestor. */
static void number_tree(struct search *s)
{
	uint32_t *enter = s->label, *span = s->ancestor, *next = s->stack;

	for (uint32_t v = 0; v < s->count; v++)
		span[v] = 1;
	for (uint32_t v = s->count; v-- > 1;)
		span[s->parent[v]] += span[v];
	enter[0] = 0;
	next[0] = 1;
	for (uint32_t v = 1; v < s->count; v++) {
		enter[v] = next[s->parent[v]];
		next[s->parent[v]] += span[v];
		next[v] = enter[v] + 1;
	}
}

/* A leaf's dominator only ever moves up, however many lead to it. */
static void hang_leaves(struct search *s, uint32_t *idom)
{
	const uint32_t *enter = s->label, *span = s->ancestor;

	for (uint32_t v = 0; v < s->count; v++) {
		uint32_t node = s->node[v];

		for (uint32_t e = s->graph->offsets[node]; e < s->graph->offsets[node + 1]; e++) {
			uint32_t leaf = s->graph->targets[e], d;

			if (!is_leaf(s->graph, leaf))
				continue;
			d = idom[leaf];
			if (d == PL_GRAPH_NONE) {
				idom[leaf] = v;
				continue;
			}
			while (enter[v] - enter[d] >= span[d])
				d = s->parent[d];
			idom[leaf] = d;
		}
	}
}

static bool is_whole(const struct pl_graph *graph)
{
	if (!graph->count || graph->offsets[0])
		return false;
	for (uint32_t v = 0; v < graph->count; v++)
		if (graph->offsets[v] > graph->offsets[v + 1])
			return false;
	for (uint32_t e = 0; e < graph->offsets[graph->count]; e++)
		if (graph->targets[e] >= graph->count)
			return false;
	return true;
}

int pl_graph_dominators(const struct pl_graph *graph, uint32_t *idom)
{
	struct search s = { .graph = graph };
	int code;

	if (!is_whole(graph))
		return -EINVAL;
	code = search_core(&s);
	if (code == 0)
		code = find_predecessors(&s);
	if (code == 0)
		code = dominate_core(&s);
	if (code < 0) {
		search_free(&s);
		return code;
	}
	number_tree(&s);
	for (uint32_t node = 0; node < graph->count; node++)
		idom[node] = PL_GRAPH_NONE;
	hang_leaves(&s, idom);
	for (uint32_t node = 1; node < graph->count; node++)
		if (s.number[node])
			idom[node] = s.node[s.parent[s.number[node] - 1]];
		else if (idom[node] != PL_GRAPH_NONE)
			idom[node] = s.node[idom[node]];
	idom[PL_GRAPH_ROOT] = PL_GRAPH_ROOT;
	search_free(&s);
	return 0;
}
