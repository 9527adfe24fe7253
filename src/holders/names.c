/* SPDX-License-Identifier: MIT */
#include "names.h"

#include <stdlib.h>

#include "edges.h"
#include "fields.h"
#include "pyleak/cleanup.h"
#include "pyleak/holders.h"

/* Paths. */

enum { NAME_BYTES = 256, STEPS_MAX = 4096, STEPS_SHOWN = 24, STEPS_AT_END = 8 };
/* PyTypeObject with a GIL: tp_dict. */
enum { TYPE_DICT = 264 };

struct looking {
	uint32_t wanted;
	bool found;
	struct edge edge;
};

/* How good a way of saying it each kind is. */
static int rank(enum edge_kind kind)
{
	switch (kind) {
	case EDGE_ATTRIBUTE: case EDGE_LOCAL: return 0;
	case EDGE_VALUE: case EDGE_ITEM: return 1;
	case EDGE_WORD: return 2;
	case EDGE_KEY: return 3;
	default: return 4;
	}
}

static void look(void *context, uint32_t target, const struct edge *edge)
{
	struct looking *looking = context;

	if (target != looking->wanted || (looking->found && rank(edge->kind) >= rank(looking->edge.kind)))
		return;
	looking->found = true;
	looking->edge = *edge;
}

static bool find_edge(struct view *view, uint32_t from, uint32_t to, struct edge *ret)
{
	struct looking looking = { .wanted = to };
	const struct edge_visitor visitor = { look, NULL, &looking };

	edges_of(view, from, &visitor);
	*ret = looking.edge;
	return looking.found;
}

struct path {
	FILE *out;
	char *text;
	size_t length;
	bool names;          /* what comes is a dict of names: .name, not ['name'] */
	uint64_t free_names; /* a code object: what comes is its function's closure */
	bool coroutine;      /* what comes is its frame */
	bool local;          /* what comes is by threads what a threading.local has */
};

static void restart(struct path *path)
{
	(void)fflush(path->out);
	(void)fseeko(path->out, 0, SEEK_SET);
	path->names = path->local = path->coroutine = false;
	path->free_names = 0;
}

static void print_name(FILE *out, struct view *view, uint64_t address)
{
	char text[NAME_BYTES];

	if (text_at(view, address, text, sizeof(text))) {
		for (const char *c = text; *c; c++)
			(void)fputc((unsigned char)*c < 32 ? '?' : *c, out);
	} else {
		print_value(out, view, address, 0);
	}
}

static uint64_t code_of_function(const struct view *view, const uint8_t *function)
{
	return word_of(function, (uint64_t)view->layout.head + (view->python->minor >= 10 ? 32 : 0));
}

static uint64_t closure_of_function(const struct view *view, const uint8_t *function)
{
	return word_of(function, (uint64_t)view->layout.head + (view->python->minor >= 10 ? 56 : 32));
}

/* Of default arguments, and the dict of those that are keywords only. */
static uint64_t defaults_of_function(const struct view *view, const uint8_t *function, bool keywords)
{
	return word_of(function, (uint64_t)view->layout.head + (view->python->minor >= 10 ? 40 : 16) + (keywords ? 8 : 0));
}

static uint64_t tuple_item(struct view *view, uint64_t tuple, uint64_t index)
{
	const uint8_t *bytes = image_at(view->image, tuple, 48);

	if (!bytes || index >= (uint64_t)items_of(view, bytes))
		return 0;
	return image_word(view->image, tuple + (uint64_t)view->layout.tuple_items + index * 8);
}

static uint64_t tuple_count(struct view *view, uint64_t tuple)
{
	const uint8_t *bytes = image_at(view->image, tuple, 48);

	return bytes ? (uint64_t)items_of(view, bytes) : 0;
}

/* The name of a frame's slot. */
static uint64_t slot_name(struct view *view, uint64_t code, uint64_t index)
{
	const struct pl_heap_layout *layout = &view->layout;
	uint64_t names, count;

	if (layout->code_slots_names && !layout->old_keys)
		return tuple_item(view, image_word(view->image, code + (uint64_t)layout->code_slots_names), index);
	names = image_word(view->image, code + (uint64_t)layout->code_names);
	count = tuple_count(view, names);
	if (index < count)
		return tuple_item(view, names, index);
	index -= count;
	names = image_word(view->image, code + (uint64_t)layout->code_cell_names);
	count = tuple_count(view, names);
	if (index < count)
		return tuple_item(view, names, index);
	return tuple_item(view, image_word(view->image, code + (uint64_t)layout->code_free_names), index - count);
}

/* Names of free variables: a function's closure has cells for them, in this order. */
static uint64_t free_name(struct view *view, uint64_t code, uint64_t index, uint64_t count)
{
	const struct pl_heap_layout *layout = &view->layout;
	uint64_t names;

	if (layout->old_keys)
		return tuple_item(view, image_word(view->image, code + (uint64_t)layout->code_free_names), index);
	names = image_word(view->image, code + (uint64_t)layout->code_slots_names);
	return tuple_item(view, names, tuple_count(view, names) - count + index);
}

static void print_function(struct path *path, struct view *view, uint64_t code)
{
	int32_t at = view->python->layout.code_qualname != PL_NO_FIELD ? view->python->layout.code_qualname :
		view->python->layout.code_name;

	print_name(path->out, view, image_word(view->image, code + (uint64_t)at));
}

/* What an object is called by itself. False: it has no name. */
static bool begin_anew(struct path *path, struct view *view, uint32_t object)
{
	const struct type *type = type_of(view, object);
	uint64_t address = address_of(view, object), name;
	const uint8_t *bytes = image_at(view->image, address, 64);
	const struct type *self;

	switch (type->kind) {
	case KIND_MODULE:
		name = dict_get(view, image_word(view->image, address + (uint64_t)view->layout.head), "__name__");
		restart(path);
		print_name(path->out, view, name);
		return true;
	case KIND_TYPE:
		self = type_at(view, address);
		if (!self)
			return false;
		restart(path);
		{
			pl_autofree char *text = name_of_type(view, self);

			(void)fputs(text ? text : "?", path->out);
		}
		return true;
	case KIND_FUNCTION:
		restart(path);
		name = image_word(view->image, address + (uint64_t)view->layout.head + (view->python->minor >= 10 ? 24 : 88));
		print_name(path->out, view, name);
		return true;
	case KIND_GENERATOR:
		if (!bytes)
			return false;
		restart(path);
		(void)fprintf(path->out, "%s ", type->name);
		if (view->layout.old_keys) {
			/* gi_code; up to 3.9 gi_running comes before it */
			uint64_t code = image_word(view->image, address + (uint64_t)view->layout.generator_frame +
				(view->python->minor >= 10 ? 8 : 16));

			print_function(path, view, code);
		} else {
			print_function(path, view, image_word(view->image, address + (uint64_t)view->layout.generator_frame +
				(uint64_t)view->python->layout.frame_code) & ~UINT64_C(3));
		}
		(void)fputs("()", path->out);
		return true;
	default:
		return false;
	}
}

static bool is_identifier(struct view *view, uint64_t address)
{
	char text[NAME_BYTES];

	if (!text_at(view, address, text, sizeof(text)) || !text[0] || (text[0] >= '0' && text[0] <= '9'))
		return false;
	for (const char *c = text; *c; c++)
		if (!((*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || *c == '_' || *c & 0x80))
			return false;
	return true;
}

/* Values of context variables are in a trie (Python/hamt.c): in a node of it, behind their variable, which names them. */
static bool print_variable(struct path *path, struct view *view, uint32_t from, uint64_t offset)
{
	uint64_t key = image_word(view->image, address_of(view, from) + offset - 8);
	uint32_t variable = image_object(view->image, key);

	if (strcmp(type_of(view, from)->name, "hamt_bitmap_node") != 0 || variable == NO_OBJECT ||
		type_of(view, variable)->kind != KIND_CONTEXTVAR)
		return false;
	restart(path);
	(void)fputs("contextvar ", path->out);
	print_name(path->out, view, image_word(view->image, key + (uint64_t)view->layout.head));
	return true;
}

static void print_word_step(struct path *path, struct view *view, uint32_t from, uint32_t to, uint64_t offset)
{
	const uint64_t moved = (uint64_t)view->layout.head - 16;
	const struct type *type = type_of(view, from), *held = type_of(view, to);
	const uint8_t *bytes = image_at(view->image, address_of(view, from), (uint64_t)view->layout.head + 64);
	const char *field;
	char text[NAME_BYTES];

	/* Dicts of names say nothing themselves. */
	if (held->kind == KIND_DICT && (type->kind == KIND_MODULE || (type->kind == KIND_TYPE && offset == TYPE_DICT + moved) ||
		(type->dict > 0 && offset == (uint64_t)type->dict) || offset == (uint64_t)(int64_t)view->layout.managed_dict)) {
		path->names = true;
		return;
	}
	if (type->kind == KIND_CELL || print_variable(path, view, from, offset))
		return;
	if (type->kind == KIND_GENERATOR && held->kind == KIND_FRAME) {
		path->coroutine = true;
		return;
	}
	if (held->kind == KIND_DICT && strcmp(type->name, "_thread._local") == 0) {
		(void)fputs(" (threading.local)", path->out);
		path->local = true;
		return;
	}
	if (type->kind == KIND_CACHE && held->kind == KIND_DICT) {
		(void)fputs(" lru_cache", path->out);
		return;
	}
	if (type->kind == KIND_FUNCTION && held->kind == KIND_TUPLE && bytes &&
		closure_of_function(view, bytes) == address_of(view, to)) {
		path->free_names = code_of_function(view, bytes);
		return;
	}
	for (int keywords = 0; type->kind == KIND_FUNCTION && bytes && keywords < 2; keywords++)
		if (defaults_of_function(view, bytes, keywords) == address_of(view, to)) {
			(void)fputs(keywords ? ".__kwdefaults__" : ".__defaults__", path->out);
			return;
		}
	if (member_name(view, type, offset, text, sizeof(text))) {
		/* From one frame of a traceback to the next: what is said is which function it is. */
		if (strcmp(text, "tb_next") == 0 || strcmp(text, "tb_frame") == 0 || strcmp(text, "f_back") == 0)
			return;
		(void)fprintf(path->out, ".%s", text);
		return;
	}
	field = exception_field(view, type, offset);
	if (field && strcmp(field, "__dict__") == 0) {
		path->names = true;
		return;
	}
	(void)fprintf(path->out, ".%s", field ? field : "");
	if (!field)
		(void)fprintf(path->out, "<%s>", held->name);
}

static void print_edge(struct path *path, struct view *view, uint32_t from, uint32_t to, const struct edge *known)
{
	const struct type *type = type_of(view, from);
	uint64_t free_names = path->free_names;
	bool names = path->names, local = path->local, coroutine = path->coroutine;
	struct edge edge;

	path->names = local;
	path->free_names = 0;
	path->local = path->coroutine = false;
	if (known) {
		edge = *known;
	} else if (!find_edge(view, from, to, &edge)) {
		(void)fprintf(path->out, ".<%s>", type_of(view, to)->name);
		return;
	}
	switch (edge.kind) {
	case EDGE_ATTRIBUTE:
		(void)fputc('.', path->out);
		print_name(path->out, view, edge.name);
		return;
	case EDGE_VALUE:
		if (local)
			return;
		if (names && is_identifier(view, edge.name)) {
			(void)fputc('.', path->out);
			print_name(path->out, view, edge.name);
		} else {
			(void)fputc('[', path->out);
			print_value(path->out, view, edge.name, 0);
			(void)fputc(']', path->out);
		}
		return;
	case EDGE_ITEM:
		if (free_names && type->kind == KIND_TUPLE) {
			(void)fputc(':', path->out);
			print_name(path->out, view, free_name(view, free_names, edge.index, tuple_count(view, address_of(view, from))));
		} else if (type->kind == KIND_SET) {
			(void)fputs("{…}", path->out);
		} else {
			(void)fprintf(path->out, "[%llu]", (unsigned long long)edge.index);
		}
		return;
	case EDGE_LOCAL:
		if (type->kind == KIND_FRAME && !coroutine) {
			if (ftello(path->out) > 0)
				(void)fputs(": ", path->out);
			print_function(path, view, edge.name);
			(void)fputs("()", path->out);
		}
		(void)fputc(':', path->out);
		print_name(path->out, view, slot_name(view, edge.name, edge.index));
		return;
	case EDGE_KEY:
		(void)fputs(PL_SAMPLE_KEY, path->out);
		return;
	case EDGE_WORD:
		print_word_step(path, view, from, to, edge.index);
		return;
	default:
		(void)fprintf(path->out, ".<%s>", type_of(view, to)->name);
		return;
	}
}

static void print_step(struct path *path, struct view *view, uint32_t from, uint32_t to)
{
	print_edge(path, view, from, to, NULL);
}

static void print_root(struct path *path, struct view *view, const struct root *root)
{
	const char *library;

	if (root->object == view->interned) {
		(void)fputs("interned strings", path->out);
		return;
	}
	switch (root->kind) {
	case ROOT_MODULES:
		(void)fputs("sys.modules", path->out);
		return;
	case ROOT_LOCAL:
		if (!root->where)
			return; /* a frame that is an object */
		print_function(path, view, root->where);
		(void)fputs("():", path->out);
		print_name(path->out, view, slot_name(view, root->where, root->index));
		return;
	case ROOT_ATEXIT:
		(void)fputs("atexit", path->out);
		if (root->where != ATEXIT_LIST)
			(void)fprintf(path->out, "[%u][%u]", root->index, (unsigned int)root->where);
		return;
	case ROOT_THREAD:
		if (root->where == (uint64_t)view->layout.thread_dict)
			(void)fprintf(path->out, "threading.local of thread %u", root->thread);
		else
			(void)fprintf(path->out, "thread %u", root->thread);
		return;
	case ROOT_STACK:
		print_function(path, view, root->where);
		(void)fprintf(path->out, "():<%s>", type_of(view, root->object)->name);
		return;
	case ROOT_INTERPRETER:
		(void)fputs("interpreter", path->out);
		return;
	case ROOT_VARIABLE:
		library = library_at(view, root->where);
		(void)fprintf(path->out, "a variable of %s", library[0] ? library : "a library");
		return;
	case ROOT_NATIVE:
		(void)fputs("native code", path->out);
		return;
	default:
		(void)fprintf(path->out, "<%s>", type_of(view, root->object)->name);
		return;
	}
}

static char *path_end(struct path *path)
{
	off_t length = ftello(path->out);

	if (fclose(path->out) != 0) {
		free(path->text);
		return NULL;
	}
	/* What was there before the last new beginning may be longer. */
	if (path->text && length >= 0)
		path->text[length] = '\0';
	return path->text;
}

char *name_of_path(struct view *view, const struct roots *roots, uint32_t object)
{
	pl_autofree uint32_t *steps = malloc(STEPS_MAX * sizeof(*steps));
	struct path path = { 0 };
	uint32_t count = 0, at = object;

	if (!steps)
		return NULL;
	path.out = open_memstream(&path.text, &path.length);
	if (!path.out)
		return NULL;
	/* The last ones of a very long way. */
	for (; at != PL_GRAPH_NONE && count < STEPS_MAX; at = roots->via[at]) {
		steps[count++] = at;
		if (roots->via[at] == at)
			break;
	}
	if (at != PL_GRAPH_NONE && roots->via[at] == at && roots->of[at])
		print_root(&path, view, &roots->items[roots->of[at] - 1]);
	else
		(void)fputs("…", path.out);
	for (uint32_t i = count; i-- > 0;) {
		bool left_out = count - 1 - i > STEPS_SHOWN && i > STEPS_AT_END;

		if (i + 1 < count && !left_out)
			print_step(&path, view, steps[i + 1], steps[i]);
		if (left_out && count - 1 - i == STEPS_SHOWN + 1)
			(void)fputs("…", path.out);
		(void)begin_anew(&path, view, steps[i]);
	}
	return path_end(&path);
}

char *name_of_step(struct view *view, uint32_t holder, uint32_t held)
{
	struct path path = { 0 };

	path.out = open_memstream(&path.text, &path.length);
	if (!path.out)
		return NULL;
	print_step(&path, view, holder, held);
	return path_end(&path);
}

char *name_of_edge(struct view *view, uint32_t from, uint32_t to, const struct edge *edge)
{
	struct path path = { 0 };

	path.out = open_memstream(&path.text, &path.length);
	if (!path.out)
		return NULL;
	print_edge(&path, view, from, to, edge);
	return path_end(&path);
}
