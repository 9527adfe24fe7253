/* SPDX-License-Identifier: MIT */
#include "types.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"
#include "pyleak/page.h"

/*
 * What CPython's objects begin with (Include/object.h, Include/internal/pycore_gc.h): the header of the garbage
 * collector, if the type has one, and from 3.11 on two words before that, if it has a dict or weak references that the
 * interpreter manages.
 */

/* Offsets with a GIL; without one, 16 bytes more. */
enum {
	TYPE_BASIC_SIZE = 32, /* PyTypeObject.tp_basicsize, next to tp_name */
	TYPE_BASE = 256,      /* tp_base, tp_dict */
	TYPE_DICT = 264,
	TYPE_BYTES = 272,     /* up to that */
	HEAD_GROWTH = 16,
	LOCAL_AT = 12, SHARED_AT = 16, /* PyObject without a GIL: ob_ref_local, ob_ref_shared */
	REFERENCES = 0,       /* PyObject.ob_refcnt */
	NAME_BYTES_MAX = 256,
	TYPES_MAX = 1 << 18,
	KNOWN_MAX = 1 << 20,
	PREHEADER = 16,
	COLLECTED_HEADER = 16, /* PyGC_Head: next, previous; up to 3.7 with a count behind them */
	LINK_FLAGS = 3, LINK_COLLECTING = 2, /* _PyGC_PREV_MASK_COLLECTING */
	LINK_PAGES = 1024,
	LINK_TRIES = 4,
	BASES_MAX = 16,
	TEXT_BASIC_SIZE = 40, /* of an ASCII str; tp_basicsize is that of the largest kind (48 up to 3.11) */
};
#define FLAG_MANAGED_WEAKREF (UINT64_C(1) << 3) /* 3.12; nothing before */
#define FLAG_HEAP_TYPE (UINT64_C(1) << 9)
#define FLAG_READY (UINT64_C(1) << 12)
#define FLAG_GC (UINT64_C(1) << 14)
#define FLAG_TEXT (UINT64_C(1) << 28)
#define FLAG_TYPE (UINT64_C(1) << 31)

struct type_bytes {
	uint64_t type, name, basic_size, flags, base, dict;
};

static uint64_t moved(const struct types *types)
{
	return types->python->free_threaded ? HEAD_GROWTH : 0;
}

static bool read_type(const struct types *types, uint64_t address, struct type_bytes *ret)
{
	const struct pl_python_layout *layout = &types->python->layout;
	uint8_t bytes[TYPE_BYTES + HEAD_GROWTH];

	if (pl_space_read(types->python->space, address, bytes, TYPE_BYTES + moved(types)) < 0)
		return false;
	memcpy(&ret->type, bytes + layout->object_type, 8);
	memcpy(&ret->name, bytes + layout->type_name, 8);
	memcpy(&ret->basic_size, bytes + TYPE_BASIC_SIZE + moved(types), 8);
	memcpy(&ret->base, bytes + TYPE_BASE + moved(types), 8);
	memcpy(&ret->dict, bytes + TYPE_DICT + moved(types), 8);
	memcpy(&ret->flags, bytes + layout->type_flags, 8);
	return (ret->flags & FLAG_READY) && ret->basic_size >= 16 && ret->basic_size < 1 << 20;
}

/* Whether it is an object of `type`, or of a class that is one of `type`'s and makes types: a metaclass of a metaclass
 * of its own is too rare for a weaker check, as neighbouring objects that point to each other look much like types. */
static bool is_type(const struct types *types, uint64_t address, struct type_bytes *ret)
{
	struct type_bytes metatype;

	return read_type(types, address, ret) &&
	       (ret->type == types->metatype ||
		       (ret->type % 8 == 0 && read_type(types, ret->type, &metatype) &&
			       metatype.type == types->metatype && (metatype.flags & FLAG_TYPE)));
}

/* NULL: there is none, or no memory for it. */
static char *read_name(struct types *types, const struct type_bytes *bytes)
{
	char text[NAME_BYTES_MAX + 1] = "";
	ssize_t got = pl_space_read_some(types->python->space, bytes->name, text, NAME_BYTES_MAX);
	pl_autofree char *module = NULL;
	char *name = NULL;

	if (got <= 0 || !text[0])
		return NULL;
	/* One that was written in C has its module in its name; what has none is the interpreter's own. */
	if ((bytes->flags & FLAG_HEAP_TYPE) && !strchr(text, '.'))
		(void)pl_python_dict_text(types->python, bytes->dict, "__module__", NAME_BYTES_MAX, &module);
	if (!module || strcmp(module, "builtins") == 0)
		name = strdup(text);
	else if (asprintf(&name, "%s.%s", module, text) < 0)
		name = NULL;
	types->failed |= !name;
	return name;
}

/* A class has what its bases have: in the order of tp_base, which decides how it is laid out. */
static enum type_contents find_contents(struct types *types, const char *name, const struct type_bytes *bytes)
{
	enum type_contents contents = contents_named(name);
	struct type_bytes base = *bytes;

	for (int depth = 0; !contents && depth < BASES_MAX && (base.flags & FLAG_HEAP_TYPE) && read_type(types, base.base, &base);
		depth++) {
		pl_autofree char *text = read_name(types, &base);

		contents = text ? contents_named(text) : CONTENTS_NONE;
	}
	return contents ? contents : contents_flagged(bytes->flags);
}

static struct type *add_type(struct types *types, const struct type_bytes *bytes)
{
	char *name = types->count < TYPES_MAX ? read_name(types, bytes) : NULL;
	struct type *type;

	if (!name)
		return NULL;
	if (!types->items || types->count == types->capacity) {
		size_t capacity = types->capacity ? 2 * types->capacity : 256;
		struct type *grown = reallocarray(types->items, capacity, sizeof(*grown));

		if (!grown) {
			types->failed = true;
			free(name);
			return NULL;
		}
		types->items = grown;
		types->capacity = capacity;
	}
	type = &types->items[types->count++];
	*type = (struct type){.name = name, .flags = bytes->flags, .basic_size = bytes->basic_size};
	if (bytes->flags & FLAG_TEXT)
		type->basic_size = TEXT_BASIC_SIZE;
	type->contents = find_contents(types, name, bytes);
	return type;
}

/* NULL: no type is there. */
static struct type *find_type(struct types *types, uint64_t address)
{
	const struct pl_table_entry *known;
	struct pl_table_entry *entry;
	const struct pl_map *map;
	struct type_bytes bytes;
	struct type *type;

	if (!address || address % 8)
		return NULL;
	known = pl_table_find(&types->known, address);
	if (known)
		return known->value[0] ? &types->items[known->value[0] - 1] : NULL;
	map = pl_maps_find(types->maps, address);
	if (!map || !(map->flags & PL_MAP_WRITE) || (map->flags & PL_MAP_SHARED) || map->end - address < TYPE_BYTES + moved(types))
		return NULL;
	type = is_type(types, address, &bytes) ? add_type(types, &bytes) : NULL;
	if (type || types->known.count < KNOWN_MAX) {
		entry = pl_table_insert(&types->known, address);
		types->failed |= !entry;
		if (entry)
			entry->value[0] = type ? types->count : 0;
	}
	return type;
}

int types_open(struct types *types, const struct pl_python *python, const struct pl_maps *maps)
{
	*types = (struct types){.python = python, .maps = maps};
	return pl_space_read_u64(
		python->space, python->code_type + (uint64_t)python->layout.object_type, &types->metatype);
}

void types_close(struct types *types)
{
	for (size_t i = 0; i < types->count; i++)
		free(types->items[i].name);
	free(types->items);
	free(types->pages);
	pl_table_free(&types->known);
}

/* Where an object can begin, of a type with the header of the collector and without; up to 3.7 that was three words,
 * and on some builds four. */
static bool is_offset(const struct types *types, const struct type *type, size_t offset)
{
	bool preheader = types->python->minor >= 11 && (type->flags & (FLAG_MANAGED_DICT | FLAG_MANAGED_WEAKREF));

	if (types->python->free_threaded) /* the collector's is in the object's own */
		return offset == (preheader ? PREHEADER : 0);
	if (!(type->flags & FLAG_GC))
		return offset == 0;
	return types->python->minor >= 8 ? offset == (preheader ? 16 + PREHEADER : 16) : offset == 24 || offset == 32;
}

/* What was freed, and parked, has no references. From 3.14 on they are counted in 32 bits, with flags at the other
 * end of the word. Without a GIL, in two words behind that of the thread. */
static bool is_referenced(const struct types *types, const struct block *block, size_t offset)
{
	uint64_t word = block_word(block, offset + REFERENCES), high;

	if (types->python->free_threaded)
		return word % 8 == 0 && word >> 47 == 0 &&
		       (block_word(block, offset + LOCAL_AT) & UINT32_MAX || block_word(block, offset + SHARED_AT) >> 2);
	high = types->python->minor >= 14 ? word >> 32 & 0xffff : word >> 32;

	return (uint32_t)word && !high;
}

/* -- the collector's links -------------------------------------------------------------------------- */

struct link_page {
	uint64_t address; /* 0: none */
	uint8_t bytes[PL_PAGE];
};

/* Neighbours in the list are neighbours in memory mostly. As it may have been a moment ago. */
static bool recent_word(struct types *types, uint64_t address, uint64_t *ret)
{
	struct link_page *page;

	if (!types->pages)
		types->pages = calloc(LINK_PAGES, sizeof(*types->pages));
	if (!types->pages || address % 8)
		return false;
	page = &types->pages[address / PL_PAGE % LINK_PAGES];
	if (page->address != address / PL_PAGE * PL_PAGE) {
		page->address = 0;
		if (pl_space_read(types->python->space, address / PL_PAGE * PL_PAGE, page->bytes, PL_PAGE) < 0)
			return false;
		page->address = address / PL_PAGE * PL_PAGE;
	}
	memcpy(ret, page->bytes + address % PL_PAGE, sizeof(*ret));
	return true;
}

/*
 * The collector's header before an object: a neighbour that does not link back shows that it is none, but something that
 * looks like one (structs of extensions hold pointers to types too). The lists change while they are read: what does not
 * fit is read again.
 */
static bool is_linked(struct types *types, const struct block *block, size_t offset)
{
	const size_t size = types->python->minor >= 8 ? COLLECTED_HEADER : offset;
	const uint64_t header = block->address + offset - size;
	uint64_t next = block_word(block, offset - size), previous = block_word(block, offset - size + 8), back;

	for (int again = 0; again < LINK_TRIES; again++) {
		if (again && (pl_space_read_u64(types->python->space, header, &next) < 0 ||
				     pl_space_read_u64(types->python->space, header + 8, &previous) < 0))
			return false;
		/* Not in a list; or a collection is at work on it, and what was the link back counts. */
		if (!(next & ~(uint64_t)LINK_FLAGS) || (types->python->minor >= 8 && (previous & LINK_COLLECTING)))
			return true;
		next &= ~(uint64_t)LINK_FLAGS;
		if (!(again ? pl_space_read_u64(types->python->space, next + 8, &back) == 0 : recent_word(types, next + 8, &back)))
			continue;
		if ((back & ~(uint64_t)LINK_FLAGS) == header)
			return true;
	}
	return false;
}

struct type *types_of_block(struct types *types, const struct block *block, size_t *ret_offset)
{
	static const size_t offsets[] = {0, 16, 24, 32};
	size_t header = (size_t)types->python->layout.object_type;

	for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		size_t offset = offsets[i];
		struct type *type;

		if (offset + 16 + moved(types) > block->length || !is_referenced(types, block, offset))
			continue;
		type = find_type(types, block_word(block, offset + header));
		if (type && is_offset(types, type, offset) && offset + type->basic_size <= block->size &&
			(!(type->flags & FLAG_GC) || types->python->free_threaded || is_linked(types, block, offset))) {
			*ret_offset = offset;
			return type;
		}
	}
	return NULL;
}
