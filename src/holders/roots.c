/* SPDX-License-Identifier: MIT */
#include "roots.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "edges.h"
#include "pyleak/cleanup.h"
#include "pyleak/page.h"
#include "pyleak/resident.h"

enum {
	INTERPRETERS_MAX = 1024, THREADS_MAX = 1 << 16, FRAMES_MAX = 1 << 16,
	MODULES_MIN = 8, /* entries of sys.modules */
	STATE_MAX = 1 << 20,
	CALLBACKS_STEP = 16, CALLBACKS_MIN = 32, CALLBACKS_MAX = 1 << 20, /* of atexit: how its array grows */
	MODULE_STATE = 16, /* behind a module's dict */
};

struct finding {
	struct view *view;
	struct roots *roots;
	enum root_kind kind;
	uint32_t thread;
	uint64_t frame_code; /* of the frame that is gone through */
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
	image_need(piece, start, length);
	for (uint64_t at = 0; at + 8 <= length; at += 8) {
		uint64_t word = word_of(piece->bytes, start - piece->start + at);
		uint32_t object;

		if (word < 1 << 20 || word % 8 || word >> PL_ADDRESS_BITS)
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

	if (is_atom(finding->view, target))
		return;
	if (edge->kind == EDGE_LOCAL)
		add(finding, (struct root){ target, ROOT_LOCAL, finding->thread, edge->name, (uint32_t)edge->index });
	else if (edge->index) /* of its stack */
		add(finding, (struct root){ target, ROOT_STACK, finding->thread, finding->frame_code, 0 });
	else
		add(finding, (struct root){ target, ROOT_THREAD, finding->thread, UINT64_MAX, 0 });
}

static void add_slot(void *context, uint32_t object, uint64_t code)
{
	struct finding *finding = context;

	if (!is_atom(finding->view, object))
		add(finding, (struct root){ object, ROOT_STACK, finding->thread, code, 0 });
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
			finding->frame_code = image_word(view->image, frame + (uint64_t)layout->frame_code) & ~UINT64_C(7);
			edges_of_frame(view, frame, true, &visitor);
		}
		stack_of_frame(view, frame, add_slot, finding);
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
	const uint8_t *bytes = image_at(view->image, address_of(view, object), (uint64_t)view->layout.head + 32), *entries;
	uint64_t modules = 0, others = 0;
	struct keys keys;

	if (type->kind != KIND_DICT || !bytes || !keys_of_dict(view, bytes, &keys))
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

static bool is_kind(struct view *view, uint64_t address, enum kind kind)
{
	uint32_t object = image_object(view->image, address);

	return object != NO_OBJECT && type_of(view, object)->kind == kind;
}

/* A function, a tuple, and a dict or none, as atexit keeps them. */
static bool is_callback(struct view *view, const uint64_t words[3])
{
	uint32_t named = words[2] ? image_object(view->image, words[2]) : 0;

	return image_object(view->image, words[0]) != NO_OBJECT && is_kind(view, words[1], KIND_TUPLE) && named != NO_OBJECT &&
		(!named || type_of(view, named)->kind == KIND_DICT || strcmp(type_of(view, named)->name, "NoneType") == 0);
}

/* The state of atexit up to 3.13: { callbacks, how many, room for so many }. Nothing else has all of that. */
static bool is_atexit(struct view *view, uint64_t state, uint64_t *ret_callbacks, uint32_t *ret_count)
{
	uint64_t callbacks = image_word(view->image, state), counts = image_word(view->image, state + 8), words[3];
	uint32_t count = (uint32_t)counts, room = (uint32_t)(counts >> 32);
	bool any = false;

	if (room < CALLBACKS_MIN || room % CALLBACKS_STEP || room > CALLBACKS_MAX || !count || count > room ||
		!image_at(view->image, callbacks, room * 8))
		return false;
	for (uint32_t i = 0; i < count; i++) {
		uint64_t callback = image_word(view->image, callbacks + i * 8);

		/* It was taken out again. */
		if (!callback)
			continue;
		any = true;
		if (!image_read(view->image, callback, words, sizeof(words)) || !is_callback(view, words))
			return false;
	}
	*ret_callbacks = callbacks;
	*ret_count = count;
	return any;
}

static void add_callbacks(struct finding *finding, uint64_t callbacks, uint32_t count)
{
	struct image *image = finding->view->image;

	for (uint32_t i = 0; i < count; i++) {
		uint64_t callback = image_word(image, callbacks + i * 8);

		for (uint32_t j = 0; callback && j < 3; j++) {
			uint32_t object = image_object(image, image_word(image, callback + j * 8));

			if (object != NO_OBJECT && !is_atom(finding->view, object))
				add(finding, (struct root){ object, ROOT_ATEXIT, 0, j, i });
		}
	}
}

/* From 3.14 on it is a list. */
static bool is_atexit_list(struct view *view, uint32_t object)
{
	uint64_t address = address_of(view, object), items, words[3];
	const uint8_t *bytes = image_at(view->image, address, (uint64_t)view->layout.head + 16);
	int64_t count = bytes ? items_of(view, bytes) : 0;

	if (view->python->minor < 14 || type_of(view, object)->kind != KIND_LIST || count <= 0 || count > CALLBACKS_MAX)
		return false;
	items = word_of(bytes, (uint64_t)view->layout.head + 8);
	for (int64_t i = 0; i < count; i++) {
		uint64_t tuple = image_word(view->image, items + (uint64_t)i * 8);

		if (!is_kind(view, tuple, KIND_TUPLE) || image_word(view->image, tuple + (uint64_t)view->layout.head) != 3 ||
			!image_read(view->image, tuple + (uint64_t)view->layout.tuple_items, words, sizeof(words)) ||
			!is_callback(view, words))
			return false;
	}
	return true;
}

/* Up to 3.9 it is the module's, then the interpreter's. */
static void add_atexit(struct finding *finding, uint64_t interpreter)
{
	struct view *view = finding->view;
	uint64_t callbacks;
	uint32_t count;

	if (view->python->minor >= 14)
		return;
	for (uint64_t at = 0; interpreter && view->python->minor >= 10 && at + 16 <= (uint64_t)view->layout.interpreter_size; at += 8)
		if (is_atexit(view, interpreter + at, &callbacks, &count)) {
			add_callbacks(finding, callbacks, count);
			return;
		}
	for (uint32_t i = 1; !interpreter && view->python->minor <= 9 && i < view->count; i++)
		if (type_of(view, i)->kind == KIND_MODULE &&
			is_atexit(view, image_word(view->image, address_of(view, i) + (uint64_t)view->layout.head + MODULE_STATE), &callbacks, &count))
			add_callbacks(finding, callbacks, count);
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
			if (is_atexit_list(view, finding->roots->items[j].object)) {
				finding->roots->items[j].kind = ROOT_ATEXIT;
				finding->roots->items[j].where = ATEXIT_LIST;
			}
		add_atexit(finding, interpreter);
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
		piece = image_find(view->image, address_of(view, i));
		if (view->rest[i] == REST_IMMORTAL || i == view->interned || is_static(piece, address_of(view, i)))
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
	uint8_t rest = view->rest[root->object];

	if (root->kind == ROOT_MODULES || root->kind == ROOT_LOCAL || root->kind == ROOT_ATEXIT || root->kind == ROOT_STATIC)
		return true;
	if (rest == REST_UNKNOWN || rest == REST_IMMORTAL)
		return roots->via[root->object] == PL_GRAPH_NONE;
	return rest_left(view, root->object);
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
		if (roots->via[i] == PL_GRAPH_NONE && rest_left(view, i) && !is_atom(view, i)) {
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
		add_atexit(&finding, 0);
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
