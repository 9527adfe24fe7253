/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HOLDERS_PRIVATE_H
#define PYLEAK_HOLDERS_PRIVATE_H

#include "names.h"
#include "pyleak/holders.h"
#include "roots.h"

/* The graph with its dominators, and what the report is made from. */
struct analysis {
	struct view *view;
	struct roots roots;
	uint32_t *idom;        /* PL_GRAPH_NONE: garbage */
	uint64_t *retained;
	uint32_t *retained_count;
	struct pl_graph tree;  /* of dominators, downwards */
	uint8_t *known;        /* a bit for each that only native code holds: it knows its address (native.c) */
	uint64_t *namespaces;  /* a bit for each: modules, their dicts, sys.modules, the list of atexit: their parts are the holders */
};

/* What is asked of all of the image, and then the rest, which asks little of it. */
int analysis_prepare(struct analysis *analysis);
int analysis_make(struct analysis *analysis);
int analysis_report(struct analysis *analysis, const struct pl_holders_options *options, struct pl_holders *ret);
void analysis_free(struct analysis *analysis);

static inline bool is_namespace(const struct analysis *analysis, uint32_t object)
{
	return analysis->namespaces[object / 64] >> object % 64 & 1;
}

/* What some objects are, by type: counts and what they retain (or their own sizes), the largest first. The name of each
 * row's first object's way from `holder` is its sample; 0: none has one. */
struct tally {
	struct analysis *analysis;
	uint64_t *count, *size;  /* by type */
	uint32_t *first;         /* of each type, an object */
	uint32_t types;          /* how many there were when it was opened: naming things can find new ones */
};
int tally_open(struct tally *tally, struct analysis *analysis);
void tally_close(struct tally *tally);
void tally_clear(struct tally *tally);
static inline void tally_add(struct tally *tally, uint32_t object, uint64_t size)
{
	uint32_t type = tally->analysis->view->type_of[object];

	if (!tally->count[type]++)
		tally->first[type] = object;
	tally->size[type] += size;
}
int tally_rows(struct tally *tally, uint32_t holder, size_t limit, struct pl_held_type **ret, size_t *ret_count);

/* The holders (holders_list.c) and the groups of what no single one retains (groups.c). */
int list_holders(struct analysis *analysis, struct tally *tally, size_t limit, struct pl_holders *ret);
int list_groups(struct analysis *analysis, struct tally *tally, size_t limit, const char *type_name, struct pl_holders *ret);
/* Objects that only native code holds: which of them nobody is known to (native.c). */
/* Fills what is known of the collector (collector.c). */
void find_collector(struct view *view, struct pl_holders *ret);
int find_known(struct analysis *analysis);
int list_native(struct analysis *analysis, struct tally *tally, size_t limit, struct pl_holders *ret);

/* The object that each block is or belongs to; NO_OBJECT: none (blocks.c). */
int blocks_find(struct view *view, const struct pl_block *blocks, size_t count, uint32_t *ret);
/* Who keeps them, row by row (held.c). */
int held_rows(struct analysis *analysis, const struct pl_block *blocks, size_t count, struct pl_held_row *ret, size_t rows);

/* For looking at: the tree of dominators, made small (tree.c), and the whole graph (heapsnapshot.c). */
int make_tree(struct analysis *analysis, struct pl_held_tree *ret);
int write_snapshot(struct analysis *analysis, FILE *out);

#endif
