/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_GRAPH_H
#define PYLEAK_GRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A directed graph of many nodes, and who dominates whom in it. Knows nothing of objects or processes.
 *
 * Nodes are numbered from 0 on; node 0 is the root. A node d dominates a node v if every way from the root to v leads
 * over d: whoever lets go of d lets go of v. All is iterative: a chain of a million nodes is a graph like any other.
 * A node without edges of its own (a number, a text: most of a heap) costs 8 bytes here, another one some 40 while
 * dominators are computed, and 8 for each edge.
 */
enum { PL_GRAPH_ROOT = 0 };
#define PL_GRAPH_NONE UINT32_MAX

struct pl_graph {
	uint32_t count;    /* of nodes */
	uint32_t *offsets; /* count + 1: the edges of node v are targets[offsets[v]] to targets[offsets[v + 1]] */
	uint32_t *targets; /* below count; the same target may come more than once */
};

/* The immediate dominator of each node: `idom` has room for graph->count. Of the root it is itself, of what the root
 * does not lead to PL_GRAPH_NONE. -ENOMEM; -EINVAL: an edge leads nowhere. */
int pl_graph_dominators(const struct pl_graph *graph, uint32_t *idom);

/* What each node dominates, itself included: the sum of `sizes`, and how many nodes. What is not reached keeps nothing.
 * -ENOMEM; -EINVAL: `idom` is no tree. */
int pl_graph_retained(const uint32_t *idom, const uint32_t *sizes, uint32_t count, uint64_t *ret_size, uint32_t *ret_count);

/* The children of each node in the tree of dominators, as a graph of its own: release with pl_graph_free(). -ENOMEM. */
int pl_graph_children(const uint32_t *idom, uint32_t count, struct pl_graph *ret);

/* The first of the ways to each node from `sources`, which are taken in this order, breadth first: the node before it
 * in `via` (count entries, PL_GRAPH_NONE: not reached yet), and itself for a source. Nodes that have a value in `via`
 * already stay as they are and are not passed again: so ways can be looked for in stages, the better ones first.
 * What is reached is appended to `order` (room for count, ret_reached of them so far). */
void pl_graph_reach(const struct pl_graph *graph, const uint32_t *sources, uint32_t source_count, uint32_t *via,
	uint32_t *order, uint32_t *reached);

void pl_graph_free(struct pl_graph *graph);

#endif
