/* SPDX-License-Identifier: MIT */
#include "pyleak/graph.h"

#include <errno.h>
#include <stdlib.h>

#include "pyleak/cleanup.h"

void pl_graph_free(struct pl_graph *graph)
{
	free(graph->offsets);
	free(graph->targets);
	*graph = (struct pl_graph){ 0 };
}

/* From the leaves of the tree up: a node is ready when all of its children are. */
int pl_graph_retained(const uint32_t *idom, const uint32_t *sizes, uint32_t count, uint64_t *ret_size, uint32_t *ret_count)
{
	pl_autofree uint32_t *waits_for = calloc(count ? count : 1, sizeof(*waits_for));
	pl_autofree uint32_t *ready = malloc((count ? count : 1) * sizeof(*ready));
	uint32_t end = 0, wanted = 0;

	if (!waits_for || !ready)
		return -ENOMEM;
	for (uint32_t v = 0; v < count; v++) {
		bool reached = idom[v] != PL_GRAPH_NONE;

		/* Nor by what is not reached itself. */
		if (reached && (idom[v] >= count || idom[idom[v]] == PL_GRAPH_NONE))
			return -EINVAL;
		ret_size[v] = reached ? sizes[v] : 0;
		ret_count[v] = reached;
		wanted += reached;
		if (reached && v != PL_GRAPH_ROOT)
			waits_for[idom[v]]++;
	}
	for (uint32_t v = 0; v < count; v++)
		if (idom[v] != PL_GRAPH_NONE && !waits_for[v])
			ready[end++] = v;
	for (uint32_t at = 0; at < end; at++) {
		uint32_t v = ready[at], d = idom[v];

		if (v == PL_GRAPH_ROOT)
			continue;
		ret_size[d] += ret_size[v];
		ret_count[d] += ret_count[v];
		if (--waits_for[d] == 0)
			ready[end++] = d;
	}
	return end == wanted ? 0 : -EINVAL;
}

int pl_graph_children(const uint32_t *idom, uint32_t count, struct pl_graph *ret)
{
	struct pl_graph graph = { .count = count, .offsets = calloc((size_t)count + 2, sizeof(uint32_t)) };

	if (!graph.offsets)
		return -ENOMEM;
	/* offsets[v + 2] counts, offsets[v + 1] is where the next child goes. */
	for (uint32_t v = 1; v < count; v++)
		if (idom[v] != PL_GRAPH_NONE)
			graph.offsets[idom[v] + 2]++;
	for (uint32_t v = 0; v < count; v++)
		graph.offsets[v + 2 <= count + 1 ? v + 2 : count + 1] += graph.offsets[v + 1];
	graph.targets = malloc(((size_t)graph.offsets[count + 1] + 1) * sizeof(uint32_t));
	if (!graph.targets) {
		pl_graph_free(&graph);
		return -ENOMEM;
	}
	for (uint32_t v = 1; v < count; v++)
		if (idom[v] != PL_GRAPH_NONE)
			graph.targets[graph.offsets[idom[v] + 1]++] = v;
	*ret = graph;
	return 0;
}

void pl_graph_reach(const struct pl_graph *graph, const uint32_t *sources, uint32_t source_count, uint32_t *via,
	uint32_t *order, uint32_t *reached)
{
	uint32_t at = *reached;

	for (uint32_t i = 0; i < source_count; i++)
		if (via[sources[i]] == PL_GRAPH_NONE) {
			via[sources[i]] = sources[i];
			order[(*reached)++] = sources[i];
		}
	for (; at < *reached; at++)
		for (uint32_t e = graph->offsets[order[at]]; e < graph->offsets[order[at] + 1]; e++) {
			uint32_t target = graph->targets[e];

			if (via[target] != PL_GRAPH_NONE)
				continue;
			via[target] = order[at];
			order[(*reached)++] = target;
		}
}
