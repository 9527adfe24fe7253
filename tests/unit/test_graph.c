/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/graph.h"

enum { NODES_MAX = 64, EDGES_MAX = 256 };

/* Edges as pairs, in the order of their sources or not. */
static struct pl_graph make(uint32_t count, const uint32_t (*edges)[2], uint32_t edge_count)
{
	struct pl_graph graph = { count, calloc(count + 1, sizeof(uint32_t)), malloc((edge_count + 1) * sizeof(uint32_t)) };
	uint32_t at = 0;

	for (uint32_t v = 0; v < count; v++) {
		graph.offsets[v] = at;
		for (uint32_t e = 0; e < edge_count; e++)
			if (edges[e][0] == v)
				graph.targets[at++] = edges[e][1];
	}
	graph.offsets[count] = at;
	return graph;
}

/* Which nodes the root leads to if one is taken out, by the definition. */
static void reach_without(const struct pl_graph *graph, uint32_t without, bool *reached)
{
	bool more = without != 0;

	memset(reached, 0, graph->count * sizeof(*reached));
	reached[0] = without != 0;
	while (more) {
		more = false;
		for (uint32_t v = 0; v < graph->count; v++)
			for (uint32_t e = graph->offsets[v]; reached[v] && e < graph->offsets[v + 1]; e++) {
				uint32_t t = graph->targets[e];

				if (t != without && !reached[t])
					more = reached[t] = true;
			}
	}
}

static void compare_with_definition(const struct pl_graph *graph)
{
	static bool dominates[NODES_MAX][NODES_MAX]; /* [d][v] */
	bool all[NODES_MAX], reached[NODES_MAX];
	uint32_t idom[NODES_MAX];

	reach_without(graph, PL_GRAPH_NONE, all);
	for (uint32_t d = 0; d < graph->count; d++) {
		reach_without(graph, d, reached);
		for (uint32_t v = 0; v < graph->count; v++)
			dominates[d][v] = all[d] && all[v] && !reached[v];
	}
	cr_assert_eq(pl_graph_dominators(graph, idom), 0);
	for (uint32_t v = 1; v < graph->count; v++) {
		if (!all[v]) {
			cr_assert_eq(idom[v], PL_GRAPH_NONE);
			continue;
		}
		/* It dominates v, and every other that does dominates it. */
		cr_assert(idom[v] != v && dominates[idom[v]][v], "idom of %u is %u", v, idom[v]);
		for (uint32_t d = 0; d < graph->count; d++)
			cr_assert(d == v || !dominates[d][v] || d == idom[v] || dominates[d][idom[v]]);
	}
}

Test(graph, dominators_are_what_their_definition_says)
{
	uint32_t edges[EDGES_MAX][2];

	srand(4711);
	for (int round = 0; round < 3000; round++) {
		uint32_t count = 2 + (uint32_t)rand() % 30, edge_count = (uint32_t)rand() % (count * 3);

		for (uint32_t e = 0; e < edge_count; e++) {
			edges[e][0] = (uint32_t)rand() % count;
			/* Few sources in some rounds: then most are leaves. */
			if (round % 3 == 0)
				edges[e][0] /= 3;
			edges[e][1] = (uint32_t)rand() % count;
		}
		struct pl_graph graph = make(count, edges, edge_count);

		compare_with_definition(&graph);
		pl_graph_free(&graph);
	}
}

/* 1 keeps 2, which both 3 and 4 lead to; 5 is shared with the root's other child. */
static const uint32_t shared[][2] = { { 0, 1 }, { 0, 6 }, { 1, 3 }, { 1, 4 }, { 3, 2 }, { 4, 2 }, { 3, 5 }, { 6, 5 } };

Test(graph, retained)
{
	struct pl_graph graph = make(8, shared, 8);
	const uint32_t sizes[8] = { 0, 1, 10, 100, 1000, 10000, 100000, 7 };
	uint32_t idom[8], counts[8];
	uint64_t retained[8];

	cr_assert_eq(pl_graph_dominators(&graph, idom), 0);
	cr_assert_eq(pl_graph_retained(idom, sizes, 8, retained, counts), 0);
	cr_assert_eq(idom[2], 1);
	cr_assert_eq(idom[5], 0);
	cr_assert_eq(retained[1], 1111);
	cr_assert_eq(counts[1], 4);
	cr_assert_eq(retained[3], 100);
	cr_assert_eq(retained[6], 100000);
	cr_assert_eq(retained[0], 111111);
	cr_assert_eq(counts[0], 7);
	cr_assert_eq(idom[7], PL_GRAPH_NONE);
	cr_assert_eq(retained[7], 0);

	struct pl_graph tree;

	cr_assert_eq(pl_graph_children(idom, 8, &tree), 0);
	cr_assert_eq(tree.offsets[1] - tree.offsets[0], 3);
	cr_assert_eq(tree.offsets[2] - tree.offsets[1], 3);
	cr_assert_eq(tree.targets[tree.offsets[1]], 2);
	cr_assert_eq(tree.offsets[8], 6);
	pl_graph_free(&tree);
	pl_graph_free(&graph);
}

/* A chain of a million nodes, each with the same leaf: no recursion, and no walk along the chain for each of them. */
Test(graph, long_chain, .timeout = 60)
{
	enum { LENGTH = 1000000 };
	struct pl_graph graph = { LENGTH + 2, malloc((LENGTH + 3) * sizeof(uint32_t)), malloc(2 * LENGTH * sizeof(uint32_t)) };
	uint32_t *idom = malloc((LENGTH + 2) * sizeof(*idom)), *sizes = malloc((LENGTH + 2) * sizeof(*sizes));
	uint32_t *counts = malloc((LENGTH + 2) * sizeof(*counts)), at = 0;
	uint64_t *retained = malloc((LENGTH + 2) * sizeof(*retained));

	for (uint32_t v = 0; v <= LENGTH; v++) {
		graph.offsets[v] = at;
		if (v < LENGTH)
			graph.targets[at++] = v + 1;
		if (v > 0 && v < LENGTH)
			graph.targets[at++] = LENGTH + 1;
		sizes[v] = 1;
	}
	sizes[LENGTH + 1] = 1;
	graph.offsets[LENGTH + 1] = graph.offsets[LENGTH + 2] = at;
	cr_assert_eq(pl_graph_dominators(&graph, idom), 0);
	cr_assert_eq(idom[LENGTH + 1], 1);
	cr_assert_eq(idom[LENGTH], LENGTH - 1);
	cr_assert_eq(pl_graph_retained(idom, sizes, LENGTH + 2, retained, counts), 0);
	cr_assert_eq(counts[1], LENGTH + 1);
	cr_assert_eq(counts[2], LENGTH - 1);
	pl_graph_free(&graph);
	free(idom);
	free(sizes);
	free(counts);
	free(retained);
}

Test(graph, ways_in_stages)
{
	struct pl_graph graph = make(8, shared, 8);
	uint32_t via[8], order[8], reached = 0;
	const uint32_t first[] = { 6 }, second[] = { 1 };

	memset(via, 0xff, sizeof(via));
	pl_graph_reach(&graph, first, 1, via, order, &reached);
	cr_assert_eq(reached, 2);
	cr_assert_eq(via[6], 6);
	cr_assert_eq(via[5], 6);
	pl_graph_reach(&graph, second, 1, via, order, &reached);
	cr_assert_eq(reached, 6);
	cr_assert_eq(via[5], 6, "it was reached before");
	cr_assert_eq(via[2], 3);
	cr_assert_eq(order[2], 1);
	cr_assert_eq(via[7], PL_GRAPH_NONE);
	pl_graph_free(&graph);
}

/* What does not hold together is refused, not followed. */
Test(graph, hostile)
{
	uint32_t offsets[] = { 0, 2, 1, 2 }, targets[] = { 1, 9 }, idom[3], counts[3];
	const uint32_t sizes[3] = { 1, 1, 1 }, circle[3] = { 0, 2, 1 }, outside[3] = { 0, 7, 0 },
		unreached[3] = { 0, 2, PL_GRAPH_NONE };
	struct pl_graph graph = { 3, offsets, targets };
	uint64_t retained[3];

	cr_assert_eq(pl_graph_dominators(&graph, idom), -EINVAL);
	offsets[2] = 2;
	cr_assert_eq(pl_graph_dominators(&graph, idom), -EINVAL);
	targets[1] = 2;
	cr_assert_eq(pl_graph_dominators(&graph, idom), 0);
	cr_assert_eq(pl_graph_retained(circle, sizes, 3, retained, counts), -EINVAL);
	cr_assert_eq(pl_graph_retained(outside, sizes, 3, retained, counts), -EINVAL);
	/* tests/fuzz found it: a node that nothing reaches dominates none. */
	cr_assert_eq(pl_graph_retained(unreached, sizes, 3, retained, counts), -EINVAL);
}
