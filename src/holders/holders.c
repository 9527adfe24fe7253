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
};

int pl_heap_copy_prepare(const struct pl_python *python, struct pl_heap_copy **ret, int64_t *ret_ns, struct pl_error *err)
{
	struct pl_heap_copy *copy = calloc(1, sizeof(*copy));
	int64_t from;
	int code;

	if (!copy)
		return pl_fail(err, -ENOMEM, "out of memory");
	copy->python = python;
	copy->image.pid = python->pid;
	code = image_copy(&copy->image, false);
	/* The first time includes that our own memory comes into being. */
	from = pl_now_ns();
	if (code == 0)
		code = image_copy(&copy->image, true);
	*ret_ns = pl_now_ns() - from;
	if (code < 0) {
		pl_heap_copy_free(copy);
		return pl_fail(err, code, "the memory of process %d cannot be copied: %s", (int)python->pid, strerror(-code));
	}
	*ret = copy;
	return 0;
}

int pl_heap_copy_finish(struct pl_heap_copy *copy, struct pl_error *err)
{
	int code = image_copy(&copy->image, true);

	if (code < 0)
		return pl_fail(err, code, "the memory of process %d cannot be copied: %s", (int)copy->image.pid, strerror(-code));
	return 0;
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
	free(view->addresses);
	free(view->type_of);
	free(view->sizes);
	free(view->rest);
	free(view->atoms);
}

static void find_collector(struct view *view, struct pl_holders *ret)
{
	uint64_t at = view->layout.collector_in_runtime ? view->python->runtime :
		image_word(view->image, view->python->interpreters_head);
	const uint8_t *word = view->layout.collector_enabled ?
		image_at(view->image, at + (uint64_t)view->layout.collector_enabled, 4) : NULL;
	uint32_t enabled = word ? half_of(word, 0) : 2;

	ret->collector_known = enabled <= 1;
	ret->collector_enabled = enabled == 1;
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
		(void)fprintf(file, "%" PRIx64 " %s", view->addresses[v], type_of(view, v)->name);
		for (uint32_t e = view->graph.offsets[v]; e < view->graph.offsets[v + 1]; e++)
			(void)fprintf(file, " %" PRIx64, view->addresses[view->graph.targets[e]]);
		(void)fputc('\n', file);
	}
}

static int find(struct view *view, const struct pl_holders_options *options, struct pl_holders *ret)
{
	struct analysis analysis = { .view = view };
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
		code = roots_of(view, &analysis.roots);
	say("roots", &from);
	if (code == 0)
		code = analysis_make(&analysis);
	say("dominators", &from);
	if (code == 0) {
		find_collector(view, ret);
		code = analysis_report(&analysis, options, ret);
	}
	say("report", &from);
	analysis_free(&analysis);
	return code;
}

int pl_holders_find(struct pl_heap_copy *copy, const struct pl_holders_options *options, struct pl_holders *ret,
	struct pl_error *err)
{
	struct view view = { .python = copy->python, .image = &copy->image, .glibc = is_glibc(&copy->image) };
	int code = pl_heap_layout(copy->python, &view.layout);

	*ret = (struct pl_holders){ 0 };
	view.metatype = image_word(&copy->image, copy->python->code_type + (uint64_t)copy->python->layout.object_type);
	if (code == 0)
		code = find(&view, options, ret);
	view_free(&view);
	if (code == -ENOTSUP)
		return pl_fail(err, code, "no objects were found in process %d", (int)copy->python->pid);
	if (code < 0)
		return pl_fail(err, code, "the heap of process %d cannot be made a graph: %s", (int)copy->python->pid, strerror(-code));
	return 0;
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

void pl_holder_free(struct pl_holder *holder)
{
	free(holder->path);
	free(holder->type);
	types_of_sum_free(holder->contents, holder->content_count);
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
	types_of_sum_free(holders->garbage.types, holders->garbage.type_count);
	types_of_sum_free(holders->native.types, holders->native.type_count);
	*holders = (struct pl_holders){ 0 };
}
