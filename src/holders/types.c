/* SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "pyleak/cleanup.h"
#include "view.h"

/* PyTypeObject: the same from 3.6 to 3.15, but for what comes before it. Offsets with a GIL. */
enum {
	TYPE_NAME = 24, TYPE_BASIC_SIZE = 32, TYPE_ITEM_SIZE = 40, TYPE_FLAGS = 168, TYPE_WEAK_LIST = 208, TYPE_BASE = 256,
	TYPE_DICT = 288, TYPE_READ = 304,
	TYPES_MAX = 1 << 18,
	NAME_MAX_BYTES = 256,
	BASES_MAX = 64,
};
#define KNOWN_MAX (1u << 22)

static const struct {
	const char *name;
	enum kind kind;
} kinds[] = {
	{ "set", KIND_SET }, { "frozenset", KIND_SET }, { "collections.deque", KIND_DEQUE },
	{ "weakref", KIND_WEAK }, { "weakref.ReferenceType", KIND_WEAK }, { "weakproxy", KIND_WEAK },
	{ "weakcallableproxy", KIND_WEAK }, { "weakref.ProxyType", KIND_WEAK }, { "weakref.CallableProxyType", KIND_WEAK },
	{ "frame", KIND_FRAME }, { "generator", KIND_GENERATOR }, { "coroutine", KIND_GENERATOR },
	{ "async_generator", KIND_GENERATOR }, { "functools._lru_cache_wrapper", KIND_CACHE },
	{ "functools._lru_list_elem", KIND_CACHE_LINK }, { "memoryview", KIND_MEMORYVIEW }, { "ContextVar", KIND_CONTEXTVAR },
	{ "_contextvars.ContextVar", KIND_CONTEXTVAR },
	{ "enumerate", KIND_ENUMERATE }, { "module", KIND_MODULE }, { "array.array", KIND_ARRAY },
	{ "bytearray", KIND_BYTEARRAY }, { "numpy.ndarray", KIND_NDARRAY }, { "code", KIND_CODE },
	{ "function", KIND_FUNCTION }, { "cell", KIND_CELL }, { "float", KIND_PLAIN }, { "complex", KIND_PLAIN },
	{ "bool", KIND_INT }, { "NoneType", KIND_PLAIN },
	{ "member_descriptor", KIND_BUILTIN }, { "getset_descriptor", KIND_BUILTIN }, { "method_descriptor", KIND_BUILTIN },
	{ "wrapper_descriptor", KIND_BUILTIN }, { "classmethod_descriptor", KIND_BUILTIN }, { "method-wrapper", KIND_BUILTIN },
	{ "builtin_function_or_method", KIND_BUILTIN }, { "PyCapsule", KIND_BUILTIN }, { "method", KIND_BUILTIN },
	{ "property", KIND_BUILTIN }, { "slice", KIND_BUILTIN }, { "traceback", KIND_BUILTIN }, { "mappingproxy", KIND_BUILTIN },
	{ "datetime.datetime", KIND_TIME }, { "datetime.time", KIND_TIME }, { "datetime.date", KIND_PLAIN }, { "range_iterator", KIND_PLAIN },
};

static enum kind kind_by_name(const char *name)
{
	const char *last = strrchr(name, '.');

	if (strcmp(last ? last + 1 : name, "cython_function_or_method") == 0)
		return KIND_CYTHON;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strcmp(kinds[i].name, name) == 0)
			return kinds[i].kind;
	return KIND_OTHER;
}

static enum kind kind_of(struct view *view, const struct type *type)
{
	static const struct {
		uint64_t flag;
		enum kind kind;
	} flagged[] = { { FLAG_INT, KIND_INT }, { FLAG_LIST, KIND_LIST }, { FLAG_TUPLE, KIND_TUPLE }, { FLAG_BYTES, KIND_BYTES },
		{ FLAG_TEXT, KIND_TEXT }, { FLAG_DICT, KIND_DICT }, { FLAG_TYPE, KIND_TYPE } };
	uint64_t base = type->base;
	enum kind kind = kind_by_name(type->name);

	for (size_t i = 0; i < sizeof(flagged) / sizeof(flagged[0]); i++)
		if (type->flags & flagged[i].flag)
			return flagged[i].kind;
	/* A class is laid out as what it derives from, with its own attributes behind. */
	for (int i = 0; kind == KIND_OTHER && base && i < BASES_MAX; i++) {
		const struct pl_table_entry *entry = pl_table_find(&view->known, base);

		if (!entry || !entry->value[0])
			return type_at(view, base) ? view->types[pl_table_find(&view->known, base)->value[0] - 1].kind : KIND_OTHER;
		kind = view->types[entry->value[0] - 1].kind;
		base = view->types[entry->value[0] - 1].base;
	}
	return kind == KIND_PLAIN && (type->flags & FLAG_HEAP_TYPE) && type->dict ? KIND_OTHER : kind;
}

static bool read_type(struct view *view, uint64_t address, struct type *ret, uint64_t *ret_metatype, uint64_t *ret_name)
{
	const uint64_t moved = (uint64_t)view->layout.head - 16;
	const uint8_t *bytes = address % 8 == 0 ? image_at(view->image, address, TYPE_READ + moved) : NULL;

	if (!bytes)
		return false;
	*ret_metatype = word_of(bytes, (uint64_t)view->python->layout.object_type);
	*ret_name = word_of(bytes, TYPE_NAME + moved);
	*ret = (struct type){
		.address = address,
		.flags = word_of(bytes, TYPE_FLAGS + moved),
		.basic_size = word_of(bytes, TYPE_BASIC_SIZE + moved),
		.item_size = word_of(bytes, TYPE_ITEM_SIZE + moved),
		.weak_list = (int64_t)word_of(bytes, TYPE_WEAK_LIST + moved),
		.dict = (int64_t)word_of(bytes, TYPE_DICT + moved),
		.base = word_of(bytes, TYPE_BASE + moved),
		.object = NO_OBJECT,
	};
	return ret->basic_size >= (uint64_t)view->layout.head && ret->basic_size < 1 << 20 && ret->item_size <= 1 << 16;
}

/* Whether it is an object of `type`, or of a class that is one of `type`'s and makes types. Types that were never readied
 * are types too: some libraries use them so. */
static bool is_type(struct view *view, uint64_t address, struct type *ret, uint64_t *ret_name)
{
	struct type metatype;
	uint64_t meta, above, name;

	if (!read_type(view, address, ret, &meta, ret_name))
		return false;
	if (meta == view->metatype)
		return true;
	return read_type(view, meta, &metatype, &above, &name) && above == view->metatype && (metatype.flags & FLAG_TYPE);
}

static struct type *add_type(struct view *view, const struct type *found, uint64_t name)
{
	char text[NAME_MAX_BYTES];
	struct type *type;
	uint32_t place = view->type_count;

	if (place == TYPES_MAX || !image_text(view->image, name, text, sizeof(text)) || !text[0])
		return NULL;
	for (const char *c = text; *c; c++)
		if ((unsigned char)*c < 32)
			return NULL;
	if (place == view->type_capacity) {
		uint32_t capacity = place ? 2 * place : 1024;
		struct type *grown = reallocarray(view->types, capacity, sizeof(*grown));

		if (!grown) {
			view->failed = true;
			return NULL;
		}
		view->types = grown;
		view->type_capacity = capacity;
	}
	type = &view->types[place];
	*type = *found;
	type->name = strdup(text);
	view->failed |= !type->name;
	if (!type->name)
		return NULL;
	view->type_count++;
	return type;
}

static void note(struct view *view, uint64_t address, uint64_t value)
{
	struct pl_table_entry *entry;

	if (!value && view->known.count >= KNOWN_MAX)
		return;
	entry = pl_table_insert(&view->known, address);
	view->failed |= !entry;
	if (entry)
		entry->value[0] = value;
}

struct type *type_at(struct view *view, uint64_t address)
{
	const struct pl_table_entry *known;
	struct type found, *type;
	uint64_t name;
	uint32_t place;

	if (!address || address % 8)
		return NULL;
	known = pl_table_find(&view->known, address);
	if (known)
		return known->value[0] ? &view->types[known->value[0] - 1] : NULL;
	type = is_type(view, address, &found, &name) ? add_type(view, &found, name) : NULL;
	place = view->type_count;
	note(view, address, type ? place : 0);
	if (!type)
		return NULL;
	{
		/* Its base may be added now: the array may move. */
		found = *type;
		enum kind kind = kind_of(view, &found);

		view->types[place - 1].kind = kind;
		if (view->numbered)
			view->types[place - 1].object = image_object(view->image, address);
	}
	return &view->types[place - 1];
}

void types_free(struct view *view)
{
	for (uint32_t i = 0; i < view->type_count; i++)
		free(view->types[i].name);
	free(view->types);
	pl_table_free(&view->known);
}
