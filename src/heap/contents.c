/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "types.h"

/*
 * Which memory belongs to an object alone. The structs are those of CPython from 3.6 to 3.15, with a GIL: Objects/listobject.c,
 * dictobject.c, setobject.c, odictobject.c, Modules/_collectionsmodule.c, and of what CONTENTS_WORDS is said of no more than that
 * they have such pointers: which word it is differs by version.
 */

enum {
	HEAD = 16,
	WORDS_MAX = 64, /* of an object; code has some 30 */
	DEQUE_LEFT = 24, DEQUE_RIGHT = 32, /* the first block and the last; … */
	DEQUE_NEXT = 8 + 64 * 8,           /* … in a block, behind the one before and its items */
	DICT_KEYS = 32, DICT_VALUES = 40,
	ORDERED_FIRST = 48, ORDERED_FAST = 64, /* od_first, od_last, od_fast_nodes, behind the dict */
	NODE_BYTES = 32, /* key, hash, next, previous */
};
#define FLAG_LIST (UINT64_C(1) << 25)
#define FLAG_DICT (UINT64_C(1) << 29)

enum type_contents contents_named(const char *name)
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
		{"collections.deque", CONTENTS_DEQUE},
		{"collections.OrderedDict", CONTENTS_ORDERED},
		{"code", CONTENTS_WORDS}, /* what is kept for its evaluation, for tools, for its cells; by version */
		{"decimal.Decimal", CONTENTS_WORDS},  /* digits */
		{"_struct.Struct", CONTENTS_WORDS},   /* s_codes */
		{"Struct", CONTENTS_WORDS},           /* … up to 3.8 */
		{"_io.StringIO", CONTENTS_WORDS},     /* buf */
		{"_io.BufferedReader", CONTENTS_WORDS},
		{"_io.BufferedWriter", CONTENTS_WORDS},
		{"_io.BufferedRandom", CONTENTS_WORDS},
		{"_thread.lock", CONTENTS_WORDS},  /* up to 3.12 */
		{"_thread.RLock", CONTENTS_WORDS},
		{"_queue.SimpleQueue", CONTENTS_WORDS},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (strcmp(name, table[i].name) == 0)
			return table[i].contents;
	return CONTENTS_NONE;
}

enum type_contents contents_flagged(uint64_t flags)
{
	return flags & FLAG_LIST ? CONTENTS_AT_24 : flags & FLAG_DICT ? CONTENTS_DICT : CONTENTS_NONE;
}

/* 3.11 and 3.12 keep the attributes of an object in a table before it. */
static uint64_t managed_values(
	const struct types *types, const struct type *type, const struct block *block, size_t offset)
{
	uint64_t word;

	if (!(type->flags & FLAG_MANAGED_DICT) || offset != 32)
		return 0;
	if (types->python->minor == 11)
		return block_word(block, 0);
	if (types->python->minor != 12)
		return 0;
	word = block_word(block, 8);
	return word & 1 ? word + 1 : 0;
}

static void own(struct contents_visitor *visitor, uint64_t address)
{
	if (address)
		visitor->own(visitor->context, address);
}

/* Blocks of 64 items, from the first to the last. */
static void own_deque(const struct types *types, const struct block *block, size_t offset, struct contents_visitor *visitor)
{
	uint64_t at = block_word(block, offset + DEQUE_LEFT), last = block_word(block, offset + DEQUE_RIGHT);

	for (; at && visitor->links_left; visitor->links_left--) {
		own(visitor, at);
		if (at == last || pl_space_read_u64(types->python->space, at + DEQUE_NEXT, &at) < 0)
			return;
	}
}

static void own_tables(const struct block *block, size_t offset, struct contents_visitor *visitor)
{
	own(visitor, block_word(block, offset + DICT_KEYS));
	own(visitor, block_word(block, offset + DICT_VALUES));
}

/* A node for each key, in their order; each knows the one before. */
static void own_nodes(const struct types *types, const struct block *block, size_t offset, struct contents_visitor *visitor)
{
	uint64_t at = block_word(block, offset + ORDERED_FIRST), before = 0, node[NODE_BYTES / 8];

	own(visitor, block_word(block, offset + ORDERED_FAST));
	for (; at && visitor->links_left; visitor->links_left--) {
		if (pl_space_read(types->python->space, at, node, sizeof(node)) < 0 || node[3] != before)
			return;
		own(visitor, at);
		before = at;
		at = node[2];
	}
}

static void own_words(const struct types *types, const struct type *type, const struct block *block, size_t offset,
	struct contents_visitor *visitor)
{
	uint64_t words[WORDS_MAX];
	size_t count = type->basic_size / sizeof(words[0]);

	if (count > WORDS_MAX)
		count = WORDS_MAX;
	if (!visitor->links_left)
		return;
	visitor->links_left--;
	if (pl_space_read(types->python->space, block->address + offset, words, count * sizeof(words[0])) < 0)
		return;
	for (size_t i = HEAD / sizeof(words[0]); i < count; i++)
		if (words[i] % 8 == 0 && pl_maps_find(types->maps, words[i]))
			own(visitor, words[i]);
}

void contents_visit(const struct types *types, const struct type *type, const struct block *block, size_t offset,
	struct contents_visitor *visitor)
{
	static const size_t places[] = {
		[CONTENTS_AT_16] = 16, [CONTENTS_AT_24] = 24, [CONTENTS_AT_32] = 32, [CONTENTS_AT_40] = 40};

	own(visitor, managed_values(types, type, block, offset));
	switch (type->contents) {
	case CONTENTS_NONE:
		return;
	case CONTENTS_WORDS:
		own_words(types, type, block, offset, visitor);
		return;
	case CONTENTS_DEQUE:
		own_deque(types, block, offset, visitor);
		return;
	case CONTENTS_ORDERED:
		own_nodes(types, block, offset, visitor);
		own_tables(block, offset, visitor);
		return;
	case CONTENTS_DICT:
		own_tables(block, offset, visitor);
		return;
	default:
		own(visitor, block_word(block, offset + places[type->contents]));
	}
}
