/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>

#include "holders_private.h"

enum { TYPES_SHOWN = 8, ROWS_MAX = 1000 };

static void mark(struct analysis *analysis, uint32_t object)
{
	if (object != NO_OBJECT)
		analysis->namespaces[object / 64] |= UINT64_C(1) << object % 64;
}

static void mark_namespaces(struct analysis *analysis)
{
	struct view *view = analysis->view;

	mark(analysis, 0);
	mark(analysis, analysis->roots.modules);
	for (size_t i = 0; i < analysis->roots.count; i++)
		if (analysis->roots.items[i].kind == ROOT_ATEXIT && analysis->roots.items[i].where == ATEXIT_LIST)
			mark(analysis, analysis->roots.items[i].object);
	for (uint32_t i = 1; i < view->count; i++)
		if (type_of(view, i)->kind == KIND_MODULE) {
			mark(analysis, i);
			mark(analysis, image_object(view->image,
				image_word(view->image, address_of(view, i) + (uint64_t)view->layout.head)));
		}
}

int analysis_prepare(struct analysis *analysis)
{
	analysis->namespaces = calloc(analysis->view->count / 64 + 1, sizeof(*analysis->namespaces));
	if (!analysis->namespaces)
		return -ENOMEM;
	mark_namespaces(analysis);
	return find_known(analysis);
}

int analysis_make(struct analysis *analysis)
{
	struct view *view = analysis->view;
	size_t count = view->count;
	int code;

	analysis->idom = malloc(count * sizeof(*analysis->idom));
	if (!analysis->idom)
		return -ENOMEM;
	code = pl_graph_dominators(&view->graph, analysis->idom);
	/* Not before: the search has needed room for itself. */
	analysis->retained = malloc(count * sizeof(*analysis->retained));
	analysis->retained_count = malloc(count * sizeof(*analysis->retained_count));
	if (!analysis->retained || !analysis->retained_count)
		return -ENOMEM;
	if (code == 0)
		code = pl_graph_retained(analysis->idom, view->sizes, view->count, analysis->retained, analysis->retained_count);
	if (code == 0)
		code = pl_graph_children(analysis->idom, view->count, &analysis->tree);
	return code;
}

void analysis_free(struct analysis *analysis)
{
	roots_free(&analysis->roots);
	pl_graph_free(&analysis->tree);
	free(analysis->idom);
	free(analysis->retained);
	free(analysis->retained_count);
	free(analysis->namespaces);
	free(analysis->known);
}

static int list_garbage(struct analysis *analysis, struct tally *tally, size_t limit, struct pl_holders *ret)
{
	struct view *view = analysis->view;

	tally_clear(tally);
	for (uint32_t i = 1; i < view->count; i++) {
		bool atom = view->atoms[i / 64] >> i % 64 & 1;

		ret->count++;
		ret->size += view->sizes[i];
		if (atom || analysis->roots.via[i] != PL_GRAPH_NONE) {
			ret->reached.count++;
			ret->reached.size += view->sizes[i];
			continue;
		}
		ret->garbage.count++;
		ret->garbage.size += view->sizes[i];
		tally_add(tally, i, view->sizes[i]);
	}
	return tally_rows(tally, 0, limit < TYPES_SHOWN ? TYPES_SHOWN : limit, &ret->garbage.types, &ret->garbage.type_count);
}

int analysis_report(struct analysis *analysis, const struct pl_holders_options *options, struct pl_holders *ret)
{
	size_t limit = options->limit && options->limit < ROWS_MAX ? options->limit : ROWS_MAX;
	struct tally tally;
	int code = tally_open(&tally, analysis);

	if (code == 0)
		code = list_garbage(analysis, &tally, limit, ret);
	if (code == 0)
		code = list_native(analysis, &tally, limit, ret);
	if (code == 0)
		code = list_holders(analysis, &tally, limit, ret);
	if (code == 0)
		code = list_groups(analysis, &tally, limit, options->type, ret);
	tally_close(&tally);
	if (code == 0 && options->tree)
		code = make_tree(analysis, options->tree);
	if (code == 0 && options->snapshot)
		code = write_snapshot(analysis, options->snapshot);
	return code;
}
