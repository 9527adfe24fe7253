/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HOLDERS_H
#define PYLEAK_HOLDERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "pyleak/error.h"
#include "pyleak/python.h"

/*
 * Who keeps a process's memory: the objects of its Python as a graph, from outside, and which variables retain what. A
 * variable retains what would go if it went.
 *
 * It needs the memory as it was at one moment. Nothing here stops the process: the caller does, between
 * pl_heap_copy_prepare() and pl_heap_copy_finish():
 *
 *   pl_heap_copy_prepare()   while it runs: copies once, which brings our own memory into being and tells how long it takes
 *   stop ─> pl_heap_copy_finish() ─> let go
 *   pl_holders_find()        from the copy alone (and what is read-only: the names of C types)
 *
 * Only pages that are in memory are copied, and of those not the ones that hold nothing but data: so the copy is somewhat
 * smaller than the resident size. While the graph is made, it takes up to 60 bytes more for each object; parts of the copy that
 * have been gone through are kept packed, which makes up for half of that.
 */
struct pl_heap_copy;
/* *ret_ns: how long the process would have to be stopped, by how long it took just now. -ESRCH, -EPERM, -ENOMEM. */
int pl_heap_copy_prepare(const struct pl_python *python, struct pl_heap_copy **ret, int64_t *ret_ns, struct pl_error *err);
/* The process is stopped. */
int pl_heap_copy_finish(struct pl_heap_copy *copy, struct pl_error *err);
/* Of a space that does not change (a core file): all at once. */
int pl_heap_copy_take(const struct pl_python *python, struct pl_heap_copy **ret, struct pl_error *err);
/* What was copied: runs of whole pages in ascending order, which last as long as the copy; *ret is the caller's to free.
 * -ENOMEM. */
int pl_heap_copy_runs(struct pl_heap_copy *copy, struct pl_memory_piece **ret, size_t *ret_count);
/* Bytes that the last copy took. */
uint64_t pl_heap_copy_size(const struct pl_heap_copy *copy);
void pl_heap_copy_free(struct pl_heap_copy *copy);

#define PL_SAMPLE_KEY "<key>" /* it is a key of its holder */
struct pl_held_type {
	char *type;
	char *sample;          /* how its holder leads to one of them: "['user:10']"; of objects without one, "" */
	uint64_t count, size;  /* objects, and what they retain */
	int64_t count_diff, size_diff; /* where two are compared */
	bool unowned;          /* native: nothing that is known holds them: a reference that was forgotten */
	char *library;         /* native: the file that the type is from; NULL: not known */
};

struct pl_holder {
	char *path, *type;
	uint64_t size, count;  /* what it retains, itself included, and how many objects that is */
	int64_t size_diff, count_diff; /* where two are compared */
	uint64_t own;          /* its own part: with tables and items, without what they hold */
	struct pl_held_type *contents; /* what it keeps, by type, the largest first */
	size_t content_count;
};

struct pl_held_by {
	char *path;
	uint64_t count, size; /* size: of blocks alone */
};
/* Objects that no single variable retains. */
struct pl_held_group {
	char *type;
	uint64_t count, size;
	struct pl_held_by *held_by; /* the variables that lead to most of them */
	size_t held_by_count;
};

struct pl_held_sum {
	uint64_t size, count;
	struct pl_held_type *types; /* the largest first */
	size_t type_count;
};

struct pl_holders {
	uint64_t size, count;       /* of all objects */
	struct pl_held_sum reached; /* from what is known of Python's; no types */
	struct pl_holder *holders;  /* the largest first */
	size_t holder_count;
	struct pl_held_group *groups;
	size_t group_count;
	struct pl_held_sum garbage; /* nothing leads to it: cycles that wait for the collector */
	struct pl_held_sum native;  /* counted, but held by nothing of Python's */
	bool collector_known, collector_enabled;
	bool frozen_known;          /* 3.8+ with a GIL: objects that gc.freeze() has taken from the collector */
	uint64_t frozen;
	bool full_known;            /* 3.8 to 3.13 with a GIL */
	uint64_t full;              /* full collections so far, */
	uint32_t since_full, full_after; /* those of the middle generation since then; with how many more the next may come */
	bool compared;              /* the differences are known, and the holders are in their order */
	int64_t size_diff, count_diff, garbage_diff, native_diff; /* bytes, but for the count of all objects */
};

/*
 * What retains what, as a tree that is small enough to be looked at: of the tree of dominators, what keeps a good part of all
 * is a node by itself, and of the rest the things of one type under one holder are a node together. Modules are nodes below
 * the first one, and so are "native code", "garbage in cycles" and "never freed" (texts and numbers that nobody counts). The
 * sum of `own` over all nodes is that of all objects.
 */
#define PL_HELD_FOR_EVER "never freed"
struct pl_held_node {
	char *path;        /* NULL: several things of one type */
	char *type;        /* "": none */
	uint32_t parent;   /* before it in the list; UINT32_MAX: of the first */
	uint32_t depth;
	uint64_t members;  /* objects that it stands for */
	uint64_t own, own_count; /* bytes and objects without those of the nodes below it */
	uint64_t size, count;    /* with them: retained */
};
struct pl_held_tree {
	struct pl_held_node *nodes;
	size_t count;
};
void pl_held_tree_free(struct pl_held_tree *tree);

struct pl_holders_options {
	size_t limit;     /* holders, groups, types at most; 0: no limit */
	const char *type; /* who keeps objects of this type alone; NULL: of all */
	struct pl_held_tree *tree; /* is made too, empty before; NULL: not wanted */
	/* Where the whole graph is written, as a .heapsnapshot for Chrome's Memory tab and memlab; NULL: nowhere. What waits for
	 * the collector is below a node of its own. Retained sizes are the same there. */
	FILE *snapshot;
};

/* The copy as a graph, to be asked more than one thing. The copy is needed for as long as the graph. -ENOMEM; -ENOTSUP: there
 * are no objects that are known in it. -EAGAIN: at that very moment a dict, a set or a list was being resized, so that not all
 * that it holds can be known: another copy is needed, or this one is to be taken as it is. */
struct pl_heap_graph;
int pl_heap_graph_make(struct pl_heap_copy *copy, struct pl_heap_graph **ret, struct pl_error *err);
void pl_heap_graph_free(struct pl_heap_graph *graph);
/* -ENOMEM. Release in any case. */
int pl_heap_graph_holders(struct pl_heap_graph *graph, const struct pl_holders_options *options, struct pl_holders *ret,
	struct pl_error *err);
/* What was being resized is read as far as it was there. So is a core file always. */
void pl_heap_copy_accept(struct pl_heap_copy *copy);
/* The same of a copy that nobody needs a graph of. */
int pl_holders_find(struct pl_heap_copy *copy, const struct pl_holders_options *options, struct pl_holders *ret,
	struct pl_error *err);

/*
 * The objects of a copy by type, each with its own size and that of the tables that are its own: those that something leads
 * to, in no order, several types of one name apart; and, without types, the sum of the others (garbage in cycles; what looks
 * like an object and was freed). Not among them: what lies in the interpreter or a library itself. Takes less time and memory
 * than a graph. Release both in any case. -ENOMEM; -ENOTSUP: there are no objects that are known in it.
 */
int pl_heap_copy_types(struct pl_heap_copy *copy, struct pl_held_sum *reached, struct pl_held_sum *unreached,
	struct pl_error *err);
void pl_held_sum_free(struct pl_held_sum *sum);

/*
 * Who keeps blocks of memory: of the blocks of a row, by their addresses. A block is an object, or a part of one (a list's
 * items, a dict's table, an array's data), or a thing of native code's that an object leads to. Named is what holds most of a
 * row's blocks, as far down as it still does: "app.IMPORTS", and not the module, nor each of the lists in it. Where several
 * variables lead to a block, it counts at each of them.
 */
struct pl_block {
	uint64_t address, size; /* as the allocator gave it out */
	uint32_t row;
	float weight; /* it stands for so many: 1 where each block is given */
};
struct pl_held_row {
	uint64_t count, size; /* of the blocks that were given, with their weights */
	uint64_t looked_at;   /* how many were given */
	struct pl_held_by *held_by; /* the most blocks first */
	size_t held_by_count;
};
#define PL_HELD_BY_GARBAGE "garbage in cycles"
#define PL_HELD_BY_NATIVE "native code" /* an object, counted, and no more known than that */
#define PL_HELD_BY_NONE "no object"     /* memory of native code's that no object leads to; or it was freed just now */
/* ret: [rows]; release each with pl_held_row_free(), after a failure too. -ENOMEM. */
int pl_heap_graph_blocks(struct pl_heap_graph *graph, const struct pl_block *blocks, size_t count, struct pl_held_row *ret,
	size_t rows, struct pl_error *err);
void pl_held_row_free(struct pl_held_row *row);
/* Says in `after` what grew since `before`, both found without a limit, by path; and leaves `limit` of its holders (0: all).
 * What is new counts as grown from nothing. */
void pl_holders_compare(const struct pl_holders *before, struct pl_holders *after, size_t limit);
void pl_holder_free(struct pl_holder *holder);
void pl_holders_free(struct pl_holders *holders);

#endif
