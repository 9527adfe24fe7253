/* SPDX-License-Identifier: MIT */
#include "pyleak/holders.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "edges.h"
#include "holders_private.h"
#include "pyleak/cleanup.h"
#include "pyleak/log.h"
#include "pyleak/units.h"

/* From the copy of a heap to its holders. */

struct pl_heap_copy {
	const struct pl_python *python;
	struct image image;
	bool as_it_is; /* what is torn in it is no matter */
};

int pl_heap_copy_prepare(const struct pl_python *python, struct pl_heap_copy **ret, int64_t *ret_ns, struct pl_error *err)
{
	struct pl_heap_copy *copy = calloc(1, sizeof(*copy));
	int64_t from;
	int code;

	if (!copy)
		return pl_fail(err, -ENOMEM, "out of memory");
	copy->python = python;
	copy->image.space = python->space;
	code = image_copy(&copy->image, false);
	/* The first time includes that our own memory comes into being. */
	from = pl_now_ns();
	if (code == 0)
		code = image_copy(&copy->image, true);
	*ret_ns = pl_now_ns() - from;
	if (code < 0) {
		pl_heap_copy_free(copy);
		return pl_fail(err, code, "the memory of %s cannot be copied: %s", python->space->name, strerror(-code));
	}
	*ret = copy;
	return 0;
}

int pl_heap_copy_finish(struct pl_heap_copy *copy, struct pl_error *err)
{
	int code = image_copy(&copy->image, true);

	if (code < 0)
		return pl_fail(err, code, "the memory of %s cannot be copied: %s", copy->image.space->name, strerror(-code));
	return 0;
}

int pl_heap_copy_take(const struct pl_python *python, struct pl_heap_copy **ret, struct pl_error *err)
{
	struct pl_heap_copy *copy = calloc(1, sizeof(*copy));
	int code;

	if (!copy)
		return pl_fail(err, -ENOMEM, "out of memory");
	copy->python = python;
	copy->image.space = python->space;
	copy->as_it_is = true;
	code = image_copy(&copy->image, false);
	if (code < 0) {
		pl_heap_copy_free(copy);
		return pl_fail(err, code, "the memory of %s cannot be copied: %s", python->space->name, strerror(-code));
	}
	*ret = copy;
	return 0;
}

void pl_heap_copy_accept(struct pl_heap_copy *copy)
{
	copy->as_it_is = true;
}

int pl_heap_copy_runs(struct pl_heap_copy *copy, struct pl_memory_piece **ret, size_t *ret_count)
{
	image_unpack_all(&copy->image);
	return image_runs(&copy->image, ret, ret_count);
}

uint64_t pl_heap_copy_size(const struct pl_heap_copy *copy)
{
	return copy->image.copied;
}

void pl_heap_copy_free(struct pl_heap_copy *copy)
{
	if (!copy)
		return;
	image_free(&copy->image);
	free(copy);
}

static bool is_glibc(const struct image *image)
{
	for (size_t i = 0; i < image->count; i++) {
		const char *name = image->pieces[i].path ? strrchr(image->pieces[i].path, '/') : NULL;

		if (name && (strcmp(name, "/libc.so.6") == 0 || strncmp(name, "/libc-2.", 8) == 0))
			return true;
	}
	return false;
}

static void view_free(struct view *view)
{
	types_free(view);
	pl_table_free(&view->claimed);
	pl_graph_free(&view->graph);
	if (view->pages)
		free(view->pages->items);
	free(view->pages);
	free(view->type_of);
	free(view->sizes);
	free(view->rest);
	pl_table_free(&view->many);
	free(view->atoms);
}

static void say(const char *what, int64_t *from)
{
	int64_t now = pl_now_ns();

	pl_log_debug("%s: %.1f ms", what, (double)(now - *from) / PL_NSEC_PER_MSEC);
	*from = now;
}

/* For a test, which compares them with what gc.get_referents() says: PYLEAK_EDGES names a file. */
static void write_edges(const struct view *view)
{
	const char *path = getenv("PYLEAK_EDGES");
	pl_autofclose FILE *file = path ? fopen(path, "we") : NULL;

	for (uint32_t v = 1; file && v < view->count; v++) {
		(void)fprintf(file, "%" PRIx64 " %s", address_of(view, v), type_of(view, v)->name);
		for (uint32_t e = view->graph.offsets[v]; e < view->graph.offsets[v + 1]; e++)
			(void)fprintf(file, " %" PRIx64, address_of(view, view->graph.targets[e]));
		(void)fputc('\n', file);
	}
}

struct pl_heap_graph {
	struct pl_heap_copy *copy;
	struct view view;
	struct analysis analysis;
};

/* The objects, and which of them something leads to. */
static int find(struct pl_heap_graph *graph)
{
	struct view *view = &graph->view;
	int64_t from = pl_now_ns();
	int code = objects_find(view);

	if (code == 0 && view->count <= 1)
		return -ENOTSUP;
	say("objects", &from);
	if (code == 0)
		code = edges_find(view);
	if (code == 0)
		write_edges(view);
	say("edges", &from);
	if (code == 0)
		code = roots_of(view, &graph->analysis.roots);
	/* They have told who holds what. */
	free(view->rest);
	view->rest = NULL;
	pl_table_free(&view->many);
	say("roots", &from);
	return code;
}

static int make(struct pl_heap_graph *graph)
{
	int code = find(graph);
	int64_t from = pl_now_ns();

	if (code == 0 && !graph->copy->as_it_is && torn_is_other_now(&graph->view))
		return -EAGAIN;
	if (code == 0)
		code = analysis_prepare(&graph->analysis);
	if (code == 0)
		code = image_pack(graph->view.image);
	say("packing", &from);
	if (code == 0)
		code = analysis_make(&graph->analysis);
	say("dominators", &from);
	return code;
}

static int explain(const struct pl_heap_copy *copy, int code, struct pl_error *err)
{
	if (code == -EAGAIN)
		return pl_fail(err, code, "a container of %s was being resized", copy->python->space->name);
	if (code == -ENOTSUP)
		return pl_fail(err, code, "no objects were found in %s", copy->python->space->name);
	if (code < 0)
		return pl_fail(err, code, "the heap of %s cannot be made a graph: %s", copy->python->space->name, strerror(-code));
	return 0;
}

static int open_graph(struct pl_heap_copy *copy, int (*how)(struct pl_heap_graph *graph), struct pl_heap_graph **ret,
	struct pl_error *err)
{
	struct pl_heap_graph *graph = calloc(1, sizeof(*graph));
	int code;

	if (!graph)
		return pl_fail(err, -ENOMEM, "out of memory");
	graph->copy = copy;
	graph->view = (struct view){ .python = copy->python, .image = &copy->image, .glibc = is_glibc(&copy->image) };
	graph->analysis.view = &graph->view;
	code = pl_heap_layout(copy->python, &graph->view.layout);
	if (code == 0) {
		graph->view.metatype = image_word(&copy->image, copy->python->code_type + (uint64_t)copy->python->layout.object_type);
		code = how(graph);
	}
	if (code < 0) {
		pl_heap_graph_free(graph);
		return explain(copy, code, err);
	}
	*ret = graph;
	return 0;
}

int pl_heap_graph_make(struct pl_heap_copy *copy, struct pl_heap_graph **ret, struct pl_error *err)
{
	return open_graph(copy, make, ret, err);
}

void pl_heap_graph_free(struct pl_heap_graph *graph)
{
	if (!graph)
		return;
	analysis_free(&graph->analysis);
	view_free(&graph->view);
	free(graph);
}

int pl_heap_graph_holders(struct pl_heap_graph *graph, const struct pl_holders_options *options, struct pl_holders *ret,
	struct pl_error *err)
{
	int64_t from = pl_now_ns();
	int code;

	*ret = (struct pl_holders){ 0 };
	find_collector(&graph->view, ret);
	code = analysis_report(&graph->analysis, options, ret);
	say("report", &from);
	return explain(graph->copy, code, err);
}

int pl_heap_graph_blocks(struct pl_heap_graph *graph, const struct pl_block *blocks, size_t count, struct pl_held_row *ret,
	size_t rows, struct pl_error *err)
{
	int64_t from = pl_now_ns();
	int code;

	for (size_t i = 0; i < rows; i++)
		ret[i] = (struct pl_held_row){ 0 };
	code = held_rows(&graph->analysis, blocks, count, ret, rows);
	say("blocks", &from);
	return explain(graph->copy, code, err);
}

int pl_holders_find(struct pl_heap_copy *copy, const struct pl_holders_options *options, struct pl_holders *ret,
	struct pl_error *err)
{
	struct pl_heap_graph *graph = NULL;
	int code;

	*ret = (struct pl_holders){ 0 };
	code = pl_heap_graph_make(copy, &graph, err);
	if (code == 0 && graph)
		code = pl_heap_graph_holders(graph, options, ret, err);
	pl_heap_graph_free(graph);
	return code;
}

static int count_by_type(struct pl_heap_graph *graph, struct pl_held_sum *reached, struct pl_held_sum *unreached)
{
	struct view *view = &graph->view;
	const uint32_t types = view->type_count; /* naming one can find more */

	reached->types = calloc((size_t)types + 1, sizeof(*reached->types));
	if (!reached->types)
		return -ENOMEM;
	for (uint32_t i = 1; i < view->count; i++) {
		const uint64_t address = address_of(view, i);
		const bool alive = (view->atoms[i / 64] >> i % 64 & 1) || graph->analysis.roots.via[i] != PL_GRAPH_NONE;
		struct pl_held_sum *sum = alive ? reached : unreached;

		if (is_static(image_find(view->image, address), address))
			continue;
		sum->count++;
		sum->size += view->sizes[i];
		if (alive) {
			reached->types[view->type_of[i]].count++;
			reached->types[view->type_of[i]].size += view->sizes[i];
		}
	}
	for (uint32_t type = 0; type < types; type++) {
		struct pl_held_type *row = &reached->types[reached->type_count];

		if (!reached->types[type].count)
			continue;
		*row = reached->types[type];
		reached->type_count++;
		row->type = name_of_type(view, &view->types[type]);
		if (!row->type)
			return -ENOMEM;
	}
	return 0;
}

int pl_heap_copy_types(struct pl_heap_copy *copy, struct pl_held_sum *reached, struct pl_held_sum *unreached,
	struct pl_error *err)
{
	struct pl_heap_graph *graph = NULL;
	int code;

	*reached = *unreached = (struct pl_held_sum){ 0 };
	code = open_graph(copy, find, &graph, err);
	if (code == 0 && graph)
		code = explain(copy, count_by_type(graph, reached, unreached), err);
	pl_heap_graph_free(graph);
	return code;
}

static void types_of_sum_free(struct pl_held_type *types, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(types[i].type);
		free(types[i].sample);
		free(types[i].library);
	}
	free(types);
}

void pl_held_sum_free(struct pl_held_sum *sum)
{
	types_of_sum_free(sum->types, sum->type_count);
	*sum = (struct pl_held_sum){ 0 };
}

void pl_holder_free(struct pl_holder *holder)
{
	free(holder->path);
	free(holder->type);
	types_of_sum_free(holder->contents, holder->content_count);
}

void pl_held_row_free(struct pl_held_row *row)
{
	for (size_t i = 0; i < row->held_by_count; i++)
		free(row->held_by[i].path);
	free(row->held_by);
	*row = (struct pl_held_row){ 0 };
}

void pl_holders_free(struct pl_holders *holders)
{
	for (size_t i = 0; i < holders->holder_count; i++)
		pl_holder_free(&holders->holders[i]);
	free(holders->holders);
	for (size_t i = 0; i < holders->group_count; i++) {
		for (size_t j = 0; j < holders->groups[i].held_by_count; j++)
			free(holders->groups[i].held_by[j].path);
		free(holders->groups[i].held_by);
		free(holders->groups[i].type);
	}
	free(holders->groups);
	pl_held_sum_free(&holders->garbage);
	pl_held_sum_free(&holders->native);
	*holders = (struct pl_holders){ 0 };
}
