/* SPDX-License-Identifier: MIT */
#include "types.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>


/*
 * What CPython's objects begin with (Include/object.h, Include/internal/pycore_gc.h): the header of the garbage
 * collector, if the type has one, and from 3.11 on two words before that, if it has a dict or weak references that the
 * interpreter manages.
 */

enum {
	TYPE_BASIC_SIZE = 32, /* PyTypeObject.tp_basicsize, next to tp_name */
	TYPE_BYTES = 176,     /* up to tp_flags and that */
	REFERENCES = 0,       /* PyObject.ob_refcnt */
	NAME_BYTES_MAX = 256,
	TYPES_MAX = 1 << 18,
	KNOWN_MAX = 1 << 20,
	PREHEADER = 16,
	TEXT_BASIC_SIZE = 40, /* of an ASCII str; tp_basicsize is that of the largest kind (48 up to 3.11) */
};
#define FLAG_MANAGED_WEAKREF (UINT64_C(1) << 3) /* 3.12; nothing before */
#define FLAG_MANAGED_DICT (UINT64_C(1) << 4)
#define FLAG_READY (UINT64_C(1) << 12)
#define FLAG_GC (UINT64_C(1) << 14)
#define FLAG_TEXT (UINT64_C(1) << 28)
#define FLAG_LIST (UINT64_C(1) << 25)
#define FLAG_DICT (UINT64_C(1) << 29)
#define FLAG_TYPE (UINT64_C(1) << 31)

struct type_bytes {
	uint64_t type, name, basic_size, flags;
};

static bool read_type(const struct types *types, uint64_t address, struct type_bytes *ret)
{
	const struct pl_python_layout *layout = &types->python->layout;
	uint8_t bytes[TYPE_BYTES];

	if (pl_space_read(types->python->space, address, bytes, sizeof(bytes)) < 0)
		return false;
	memcpy(&ret->type, bytes + layout->object_type, 8);
	memcpy(&ret->name, bytes + layout->type_name, 8);
	memcpy(&ret->basic_size, bytes + TYPE_BASIC_SIZE, 8);
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

static enum type_contents contents_of(const char *name, uint64_t flags)
{
	static const struct {
		const char *name;
		enum type_contents contents;
	} table[] = {
		{"bytearray", CONTENTS_AT_32},     /* ob_bytes */
		{"array.array", CONTENTS_AT_24},   /* ob_item */
		{"set", CONTENTS_AT_40},           /* table */
		{"frozenset", CONTENTS_AT_40},
		{"numpy.ndarray", CONTENTS_AT_16}, /* data */
	};

	if (flags & FLAG_LIST)
		return CONTENTS_AT_24; /* ob_item */
	if (flags & FLAG_DICT)
		return CONTENTS_DICT;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (strcmp(name, table[i].name) == 0)
			return table[i].contents;
	return CONTENTS_NONE;
}

/* NULL: there is none, or no memory for it. */
static char *read_name(struct types *types, uint64_t address)
{
	char text[NAME_BYTES_MAX + 1] = "";
	ssize_t got = pl_space_read_some(types->python->space, address, text, NAME_BYTES_MAX);
	char *name;

	if (got <= 0 || !text[0])
		return NULL;
	name = strdup(text);
	types->failed |= !name;
	return name;
}

static struct type *add_type(struct types *types, const struct type_bytes *bytes)
{
	char *name = types->count < TYPES_MAX ? read_name(types, bytes->name) : NULL;
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
	type->contents = contents_of(name, bytes->flags);
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
	if (!map || !(map->flags & PL_MAP_WRITE) || (map->flags & PL_MAP_SHARED) || map->end - address < TYPE_BYTES)
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
	pl_table_free(&types->known);
}

/* Where an object can begin, of a type with the header of the collector and without; up to 3.7 that was three words,
 * and on some builds four. */
static bool is_offset(const struct types *types, const struct type *type, size_t offset)
{
	bool preheader = types->python->minor >= 11 && (type->flags & (FLAG_MANAGED_DICT | FLAG_MANAGED_WEAKREF));

	if (!(type->flags & FLAG_GC))
		return offset == 0;
	return types->python->minor >= 8 ? offset == (preheader ? 16 + PREHEADER : 16) : offset == 24 || offset == 32;
}

/* What was freed, and parked, has no references. From 3.14 on they are counted in 32 bits, with flags at the other
 * end of the word. */
static bool is_referenced(const struct types *types, uint64_t word)
{
	uint64_t high = types->python->minor >= 14 ? word >> 32 & 0xffff : word >> 32;

	return (uint32_t)word && !high;
}

struct type *types_of_block(struct types *types, const struct block *block, size_t *ret_offset)
{
	static const size_t offsets[] = {0, 16, 24, 32};
	size_t header = (size_t)types->python->layout.object_type;

	for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		size_t offset = offsets[i];
		struct type *type;

		if (offset + 16 > block->length || !is_referenced(types, block_word(block, offset + REFERENCES)))
			continue;
		type = find_type(types, block_word(block, offset + header));
		if (type && is_offset(types, type, offset) && offset + type->basic_size <= block->size) {
			*ret_offset = offset;
			return type;
		}
	}
	return NULL;
}

/* 3.11 and 3.12 keep the attributes of an object in a table before it. */
static uint64_t managed_values(
	const struct types *types, const struct type *type, const struct block *block, size_t offset)
{
	uint64_t word;

	if (!(type->flags & FLAG_MANAGED_DICT) || offset != 16 + PREHEADER)
		return 0;
	if (types->python->minor == 11)
		return block_word(block, 0);
	if (types->python->minor != 12)
		return 0;
	word = block_word(block, 8);
	return word & 1 ? word + 1 : 0;
}

size_t types_contents(const struct types *types, const struct type *type, const struct block *block, size_t offset,
	uint64_t addresses[CONTENTS_MAX])
{
	static const size_t places[] = {
		[CONTENTS_AT_16] = 16, [CONTENTS_AT_24] = 24, [CONTENTS_AT_32] = 32, [CONTENTS_AT_40] = 40};
	size_t count = 0;

	if (type->contents == CONTENTS_DICT) {
		addresses[count++] = block_word(block, offset + 32); /* ma_keys, ma_values */
		addresses[count++] = block_word(block, offset + 40);
	} else if (type->contents) {
		addresses[count++] = block_word(block, offset + places[type->contents]);
	}
	addresses[count++] = managed_values(types, type, block, offset);
	return count;
}
