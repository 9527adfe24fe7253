/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HOLDERS_H
#define PYLEAK_HOLDERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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
 * smaller than the resident size. While the graph is made, it takes some 60 bytes more for each object.
 */
struct pl_heap_copy;
/* *ret_ns: how long the process would have to be stopped, by how long it took just now. -ESRCH, -EPERM, -ENOMEM. */
int pl_heap_copy_prepare(const struct pl_python *python, struct pl_heap_copy **ret, int64_t *ret_ns, struct pl_error *err);
/* The process is stopped. */
int pl_heap_copy_finish(struct pl_heap_copy *copy, struct pl_error *err);
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
	uint64_t count;
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
	bool compared;              /* the differences are known, and the holders are in their order */
	int64_t size_diff, count_diff, garbage_diff, native_diff; /* bytes, but for the count of all objects */
};

struct pl_holders_options {
	size_t limit;     /* holders, groups, types at most; 0: no limit */
	const char *type; /* who keeps objects of this type alone; NULL: of all */
};

/* -ENOMEM; -ENOTSUP: there are no objects that are known in it. Release in any case. */
int pl_holders_find(struct pl_heap_copy *copy, const struct pl_holders_options *options, struct pl_holders *ret,
	struct pl_error *err);
/* Says in `after` what grew since `before`, both found without a limit, by path; and leaves `limit` of its holders (0: all).
 * What is new counts as grown from nothing. */
void pl_holders_compare(const struct pl_holders *before, struct pl_holders *after, size_t limit);
void pl_holder_free(struct pl_holder *holder);
void pl_holders_free(struct pl_holders *holders);

#endif
