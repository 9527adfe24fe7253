/* SPDX-License-Identifier: MIT */
#include "pyleak/census.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"
#include "types.h"

/*
 * Two walks over all blocks. The first finds the objects, and notes which memory is whose; the second counts: a block
 * that holds no object belongs to the one that said so.
 */

enum {
	OWNED_MAX = 1 << 22, /* 200 MiB of our own memory */
	LINKS_MAX = 1 << 21, /* a read of the process each: some two seconds */
	/* A table of attributes begins behind the bytes that say in which order they were set: up to 30 of them. */
	VALUES_PREFIX_MAX = 32,
};

struct counting {
	struct types types;
	struct pl_table owned; /* address → 1 + place of its owner's type */
	bool second;
	uint64_t links_left;
	uint64_t other, other_size;
};

/* The object whose contents are noted. */
struct owner {
	struct counting *counting;
	const struct type *type;
	const struct block *block;
};

static void note(void *context, uint64_t address)
{
	const struct owner *owner = context;
	struct counting *counting = owner->counting;
	struct pl_table_entry *entry;

	/* A small set has its table in itself. */
	if (address - owner->block->address < owner->block->size || counting->owned.count >= OWNED_MAX)
		return;
	entry = pl_table_insert(&counting->owned, address);
	counting->types.failed |= !entry;
	/* A table that several share is the first one's. */
	if (entry && !entry->value[0])
		entry->value[0] = (uint64_t)(owner->type - counting->types.items) + 1;
}

static void note_contents(struct counting *counting, const struct type *type, const struct block *block, size_t offset)
{
	struct owner owner = {counting, type, block};
	struct contents_visitor visitor = {note, &owner, counting->links_left};

	contents_visit(&counting->types, type, block, offset, &visitor);
	counting->links_left = visitor.links_left;
}

static struct type *owner_of(struct counting *counting, const struct block *block)
{
	uint64_t last = block->size < VALUES_PREFIX_MAX ? block->size : VALUES_PREFIX_MAX;

	for (uint64_t prefix = 0; prefix <= last; prefix += 8) {
		const struct pl_table_entry *entry = pl_table_find(&counting->owned, block->address + prefix);

		if (entry)
			return &counting->types.items[entry->value[0] - 1];
	}
	return NULL;
}

static void see(void *context, const struct block *block)
{
	struct counting *counting = context;
	size_t offset = 0;
	struct type *type = types_of_block(&counting->types, block, &offset);

	if (!counting->second) {
		if (type)
			note_contents(counting, type, block, offset);
		return;
	}
	if (type)
		type->count++;
	else
		type = owner_of(counting, block);
	if (type) {
		type->size += block->size;
	} else {
		counting->other++;
		counting->other_size += block->size;
	}
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct type *)a)->name, ((const struct type *)b)->name);
}

/* Classes in Python are told apart by nothing but their names. */
static int make_rows(struct counting *counting, struct pl_census *census)
{
	struct types *types = &counting->types;
	struct pl_census_row *row = NULL;

	census->rows = calloc(types->count + 1, sizeof(*census->rows));
	if (!census->rows)
		return -ENOMEM;
	if (types->count)
		qsort(types->items, types->count, sizeof(*types->items), by_name);
	for (size_t i = 0; i < types->count; i++) {
		struct type *type = &types->items[i];

		if (!type->count && !type->size)
			continue;
		if (!row || strcmp(row->name, type->name) != 0) {
			row = &census->rows[census->count++];
			row->name = PL_TAKE(type->name);
		}
		row->count += type->count;
		row->size += type->size;
		census->objects += type->count;
		census->object_size += type->size;
	}
	census->other = counting->other;
	census->other_size = counting->other_size;
	return 0;
}

static int count_all(const struct pl_heap_reader *reader, const struct pl_maps *maps, struct pl_census *census)
{
	const struct moment moment = {reader, maps};
	struct counting counting = {.links_left = LINKS_MAX};
	const struct block_visitor visitor = {see, &counting};
	int code = types_open(&counting.types, reader->python, maps);

	for (int walk = 0; code == 0 && walk < 2; walk++) {
		counting.second = walk == 1;
		census->arenas = arenas_visit(&moment, &visitor);
		census->heap = heap_visit(&moment, &visitor);
	}
	if (code == 0)
		code = counting.types.failed ? -ENOMEM : make_rows(&counting, census);
	types_close(&counting.types);
	pl_table_free(&counting.owned);
	return code;
}

int pl_census_take(const struct pl_python *python, struct pl_census *ret, struct pl_error *err)
{
	struct pl_heap_reader *reader = NULL;
	struct pl_maps maps = {0};
	int code;

	*ret = (struct pl_census){0};
	if (python->free_threaded)
		return pl_fail(err, -ENOTSUP,
			"%s: a Python without a GIL keeps its objects in mimalloc's memory, which pyleak cannot "
			"walk: 'pyleak attach' records what is allocated from now on",
			python->space->name);
	code = pl_heap_open(python, &reader);
	if (code == 0)
		code = pl_space_maps(python->space, &maps);
	if (code == 0)
		code = count_all(reader, &maps, ret);
	pl_maps_free(&maps);
	pl_heap_close(reader);
	if (code < 0)
		return pl_fail(err, code, "%s cannot be read: %s", python->space->name, strerror(-code));
	if (!ret->arenas && !ret->heap)
		return pl_fail(err, -ENOTSUP,
			"%s has neither arenas of Python nor a heap of glibc that pyleak can walk: 'pyleak attach' "
			"records what is allocated from now on",
			python->space->name);
	return 0;
}

void pl_census_free(struct pl_census *census)
{
	for (size_t i = 0; i < census->count; i++)
		free(census->rows[i].name);
	free(census->rows);
	*census = (struct pl_census){0};
}
