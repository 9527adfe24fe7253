/* SPDX-License-Identifier: MIT */
#include "roots.h"

#include <errno.h>
#include <stdlib.h>

#include "edges.h"
#include "pyleak/cleanup.h"
#include "pyleak/resident.h"

enum {
	INTERPRETERS_MAX = 1024, THREADS_MAX = 1 << 16, FRAMES_MAX = 1 << 16,
	MODULES_MIN = 8, /* entries of sys.modules */
	STATE_MAX = 1 << 20,
};

struct finding {
	struct view *view;
	struct roots *roots;
	enum root_kind kind;
	uint32_t thread;
	int code;
};

static void add(struct finding *finding, struct root root)
{
	struct roots *roots = finding->roots;

	if (roots->count == roots->capacity) {
		size_t capacity = roots->capacity ? 2 * roots->capacity : 4096;
		struct root *grown = reallocarray(roots->items, capacity, sizeof(*grown));

		if (!grown) {
			finding->code = -ENOMEM;
			return;
		}
		roots->items = grown;
		roots->capacity = capacity;
	}
	root.found = (uint32_t)roots->count;
	roots->items[roots->count++] = root;
}

static bool is_atom(const struct view *view, uint32_t object)
{
	return view->atoms[object / 64] >> object % 64 & 1;
}

/* Arrays of parked lists and dicts (free lists): what is in one may have been given out again. */
static bool is_free_list(struct view *view, const uint8_t *words, uint64_t at, uint64_t length, uint32_t object)
{
	enum { NEIGHBOURS = 8, LIKE_MIN = 6 };
	const struct type *type = type_of(view, object);
	int like = 0;

	/* From 3.14 on they are chains. */
	if ((type->kind != KIND_LIST && type->kind != KIND_DICT) || (type->flags & FLAG_HEAP_TYPE) ||
		view->python->minor >= 14)
		return false;
	for (int64_t i = -NEIGHBOURS; i <= NEIGHBOURS; i++) {
		uint64_t place = at + (uint64_t)(i * 8), word;

		if (place + 8 > length)
			continue;
		word = word_of(words, place);
		/* It may also be free still: then there is a header without a count. */
		if (i && word % 8 == 0 && word > 1 << 20 &&
			image_word(view->image, word + (uint64_t)view->python->layout.object_type) == type->address)
			like++;
	}
	return like >= LIKE_MIN;
}

/* Objects that words of some memory lead to. */
static void add_words(struct finding *finding, uint64_t start, uint64_t length, bool with_addresses)
{
	struct image_piece *piece = image_find(finding->view->image, start);

	if (!piece)
		return;
	if (length > piece->end - start)
		length = piece->end - start;
	for (uint64_t at = 0; at + 8 <= length; at += 8) {
		uint64_t word = word_of(piece->bytes, start - piece->start + at);
		uint32_t object;

		if (word < 1 << 20 || word % 8 || word >> 47)
			continue;
		object = image_object(finding->view->image, word);
		if (object != NO_OBJECT && !is_atom(finding->view, object) &&
			!is_free_list(finding->view, piece->bytes + (start - piece->start), at, length, object))
			add(finding, (struct root){ object, finding->kind, finding->thread, with_addresses ? start + at : at, 0 });
	}
}

static void add_local(void *context, uint32_t target, const struct edge *edge)
{
	struct finding *finding = context;

	if (!is_atom(finding->view, target))
		add(finding, (struct root){ target, edge->kind == EDGE_LOCAL ? ROOT_LOCAL : ROOT_THREAD, finding->thread,
			edge->kind == EDGE_LOCAL ? edge->name : UINT64_MAX, (uint32_t)edge->index });
}

/* From the innermost frame on. Up to 3.10 they are objects, of which each leads to the next. */
static void add_frames(struct finding *finding, uint64_t thread)
{
	struct view *view = finding->view;
	const struct pl_python_layout *layout = &view->python->layout;
	const struct edge_visitor visitor = { add_local, NULL, finding };
	uint64_t frame = image_word(view->image, thread + (uint64_t)layout->thread_frame);

	if (layout->cframe_frame != PL_NO_FIELD)
		frame = frame ? image_word(view->image, frame + (uint64_t)layout->cframe_frame) : 0;
	for (int i = 0; frame && i < FRAMES_MAX; i++) {
		if (view->layout.old_keys) {
			uint32_t object = image_object(view->image, frame);

			if (object != NO_OBJECT)
				add(finding, (struct root){ object, ROOT_LOCAL, finding->thread, 0, 0 });
		} else {
			edges_of_frame(view, frame, true, &visitor);
		}
		frame = image_word(view->image, frame + (uint64_t)layout->frame_previous);
	}
}

static void add_threads(struct finding *finding, uint64_t interpreter)
{
	struct view *view = finding->view;
	const struct pl_python_layout *layout = &view->python->layout;
	uint64_t thread = image_word(view->image, interpreter + (uint64_t)layout->interpreter_threads_head);

	for (int i = 0; thread && i < THREADS_MAX; i++) {
		add_frames(finding, thread);
		finding->kind = ROOT_THREAD;
		add_words(finding, thread, (uint64_t)view->layout.thread_size, false);
		finding->thread++;
		thread = image_word(view->image, thread + (uint64_t)layout->thread_next);
	}
}

/* sys.modules: the dict of an interpreter's that nearly all values of are modules. */
static bool is_modules(struct view *view, uint32_t object)
{
	const struct type *type = type_of(view, object);
	uint64_t address = view->addresses[object];
	const uint8_t *entries;
	uint64_t modules = 0, others = 0;
	struct keys keys;

	if (type->kind != KIND_DICT ||
		!keys_read(view, image_word(view->image, address + (uint64_t)view->layout.head + 16), &keys))
		return false;
	entries = image_at(view->image, keys.entries, keys.count * keys.stride);
	for (uint64_t i = 0; entries && i < keys.count; i++) {
		uint64_t value = word_of(entries, i * keys.stride + keys.value);
		uint32_t number = value ? image_object(view->image, value) : NO_OBJECT;

		if (!value)
			continue;
		if (number != NO_OBJECT && type_of(view, number)->kind == KIND_MODULE)
			modules++;
		else
			others++;
	}
	return modules >= MODULES_MIN && others <= modules / 4;
}

static void add_interpreters(struct finding *finding)
{
	struct view *view = finding->view;
	const struct pl_python_layout *layout = &view->python->layout;
	uint64_t interpreter = image_word(view->image, view->python->interpreters_head);

	for (int i = 0; interpreter && i < INTERPRETERS_MAX; i++) {
		size_t from = finding->roots->count;

		finding->kind = ROOT_INTERPRETER;
		add_words(finding, interpreter, (uint64_t)view->layout.interpreter_size, false);
		for (size_t j = from; j < finding->roots->count; j++)
			if (is_modules(view, finding->roots->items[j].object)) {
				finding->roots->items[j].kind = ROOT_MODULES;
				finding->roots->modules = finding->roots->items[j].object;
				break;
			}
		add_threads(finding, interpreter);
		interpreter = image_word(view->image, interpreter + (uint64_t)layout->interpreter_next);
	}
}

static void add_static(struct finding *finding)
{
	struct view *view = finding->view;

	for (uint32_t i = 1; i < view->count; i++) {
		const struct image_piece *piece;

		if (is_atom(view, i))
			continue;
		piece = image_find(view->image, view->addresses[i]);
		if (view->rest[i] == REST_IMMORTAL || i == view->interned || is_static(piece, view->addresses[i]))
			add(finding, (struct root){ i, ROOT_STATIC, 0, 0, 0 });
	}
}

static void add_variables(struct finding *finding)
{
	struct image *image = finding->view->image;

	finding->kind = ROOT_VARIABLE;
	for (size_t i = 0; i < image->count; i++) {
		const struct image_piece *piece = &image->pieces[i];
		uint64_t end = piece->file ? piece->end : piece->static_end < piece->end ? piece->static_end : piece->end;

		if (end > piece->start)
			add_words(finding, piece->start, end - piece->start, true);
	}
}

static int by_kind(const void *a, const void *b)
{
	const struct root *left = a, *right = b;

	if (left->kind != right->kind)
		return left->kind < right->kind ? -1 : 1;
	return left->found < right->found ? -1 : 1;
}

/* What counts as held by the roots of one kind: all that sys.modules, frames and statics hold; of the rest, what has
 * references that no object explains, or what nothing else reaches (and what is counted elsewhere). */
static bool holds(const struct view *view, const struct roots *roots, const struct root *root)
{
	int32_t rest = view->rest[root->object];

	if (root->kind == ROOT_MODULES || root->kind == ROOT_LOCAL || root->kind == ROOT_STATIC)
		return true;
	if (rest == REST_UNKNOWN || rest == REST_IMMORTAL)
		return roots->via[root->object] == PL_GRAPH_NONE;
	return rest > 0;
}

static void reach(const struct view *view, struct roots *roots, const uint32_t *sources, uint32_t count)
{
	pl_graph_reach(&view->graph, sources, count, roots->via, roots->order, &roots->reached);
}

/* Stage by stage; what holds nothing is forgotten. */
static int reach_all(struct finding *finding)
{
	struct view *view = finding->view;
	struct roots *roots = finding->roots;
	pl_autofree uint32_t *sources = malloc((size_t)view->count * sizeof(*sources));
	size_t kept = 0, at = 0;

	if (!sources)
		return -ENOMEM;
	for (int kind = 0; kind < ROOT_NATIVE; kind++) {
		uint32_t count = 0;

		for (; at < roots->count && (int)roots->items[at].kind == kind; at++) {
			const struct root root = roots->items[at];

			if (roots->of[root.object] || !holds(view, roots, &root))
				continue;
			roots->items[kept++] = root;
			roots->of[root.object] = (uint32_t)kept;
			sources[count++] = root.object;
		}
		reach(view, roots, sources, count);
	}
	roots->count = kept;
	roots->reached_from_known = roots->reached;
	/* Counted, and nothing leads to it. */
	for (uint32_t i = 1; i < view->count; i++)
		if (roots->via[i] == PL_GRAPH_NONE && view->rest[i] > 0 && !is_atom(view, i)) {
			add(finding, (struct root){ i, ROOT_NATIVE, 0, 0, 0 });
			roots->of[i] = (uint32_t)roots->count;
			reach(view, roots, &i, 1);
		}
	return finding->code;
}

/* The edges of number 0 come before all others. */
static int add_edges(struct view *view, const struct roots *roots)
{
	struct pl_graph *graph = &view->graph;
	uint32_t count = graph->offsets[graph->count], added = (uint32_t)roots->count;
	uint32_t *targets;

	if ((uint64_t)count + added >= UINT32_MAX)
		return -E2BIG;
	targets = reallocarray(graph->targets, (size_t)count + added + 1, sizeof(*targets));
	if (!targets)
		return -ENOMEM;
	memmove(targets + added, targets, (size_t)count * sizeof(*targets));
	for (uint32_t i = 0; i < added; i++)
		targets[i] = roots->items[i].object;
	graph->targets = targets;
	for (uint32_t v = 1; v <= graph->count; v++)
		graph->offsets[v] += added;
	return 0;
}

int roots_of(struct view *view, struct roots *ret)
{
	struct roots roots = { .modules = NO_OBJECT };
	struct finding finding = { .view = view, .roots = &roots };
	int code;

	roots.of = calloc(view->count, sizeof(*roots.of));
	roots.via = malloc((size_t)view->count * sizeof(*roots.via));
	roots.order = malloc((size_t)view->count * sizeof(*roots.order));
	if (roots.of && roots.via && roots.order) {
		memset(roots.via, 0xff, (size_t)view->count * sizeof(*roots.via));
		add_interpreters(&finding);
		add_static(&finding);
		add_variables(&finding);
	} else {
		finding.code = -ENOMEM;
	}
	code = finding.code;
	if (code == 0 && roots.count)
		qsort(roots.items, roots.count, sizeof(*roots.items), by_kind);
	if (code == 0)
		code = reach_all(&finding);
	if (code == 0)
		code = add_edges(view, &roots);
	*ret = roots;
	return code;
}

void roots_free(struct roots *roots)
{
	free(roots->items);
	free(roots->of);
	free(roots->via);
	free(roots->order);
	*roots = (struct roots){ 0 };
}
