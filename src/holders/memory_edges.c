/* SPDX-License-Identifier: MIT */
#include "scan.h"
#include "pyleak/page.h"

#include <errno.h>

/* Memory outside of objects that is an object's own: what it holds counts as what the object holds. */

enum {
	CLAIMED_MAX = 1 << 22,
	MEMORY_DEPTH = 2,
	UNKNOWN_BYTES = 64,
	MEMORY_MAX = 1 << 28,      /* bytes of a block that are looked through */
	STATE_MAX = 1 << 20,
};

/* A block that nobody else claimed, and that holds no object: the object's, as far as can be known. */
void see_memory(const struct scan *scan, uint64_t address, int depth)
{
	struct view *view = scan->view;
	struct pl_table_entry *entry;
	const uint8_t *bytes;
	uint64_t size, usable, claimer = scan->address;
	bool known = true;

	if (address < 1 << 20 || address % 8 || address >> PL_ADDRESS_BITS)
		return;
	size = block_size(view, address, &usable);
	/* Of mimalloc's blocks, which say no size where they begin, a small part: what is counted decides. */
	if (!size && view->python->free_threaded) {
		const struct image_piece *piece = image_find(view->image, address);

		known = false;
		if (piece && !piece->stack && !is_static(piece, address) && piece->end - address >= UNKNOWN_BYTES)
			size = usable = UNKNOWN_BYTES;
	}
	if (!size || size > MEMORY_MAX)
		return;
	if (block_has_object(view, address, usable))
		return;
	entry = pl_table_find(&view->claimed, address);
	if (!entry && view->claimed.count < CLAIMED_MAX) {
		entry = pl_table_insert(&view->claimed, address);
		view->failed |= !entry;
		if (entry)
			entry->value[0] = claimer;
	}
	if (!entry || entry->value[0] != claimer || entry->value[1] > (uint64_t)depth + 1)
		return;
	/* Which depth it is at: it may be led to twice. */
	if (scan->visitor->own && entry->value[1])
		return;
	entry->value[1] = (uint64_t)depth + 1;
	own(scan, address, known ? size : 0);
	bytes = image_at(view->image, address, usable);
	for (uint64_t at = 0; bytes && at + 8 <= usable; at += 8) {
		uint64_t word = word_of(bytes, at);

		see(scan, word, (struct edge){ EDGE_MEMORY, at, 0, false });
		if (depth + 1 < MEMORY_DEPTH && image_object(view->image, word) == NO_OBJECT)
			see_memory(scan, word, depth + 1);
	}
}

/* PyModuleObject: md_state comes behind md_dict and md_def, from 3.15 on behind md_dict. */
static uint64_t state_at(const struct view *view)
{
	return (uint64_t)view->layout.head + (view->python->minor >= 15 ? 8 : 16);
}

/* md_state_size; before 3.15 PyModuleDef.m_size. */
static uint64_t state_size(const struct scan *scan)
{
	if (scan->view->python->minor >= 15)
		return word_of(scan->object, scan->head + 40);
	return image_word(scan->view->image, word_of(scan->object, scan->head + 8) + scan->head + 40);
}

int claim_module_states(struct view *view)
{
	for (uint32_t i = 1; i < view->count; i++) {
		uint64_t state = type_of(view, i)->kind == KIND_MODULE ? image_word(view->image, address_of(view, i) + state_at(view)) : 0;
		struct pl_table_entry *entry;

		if (!state || pl_table_find(&view->claimed, state) || view->claimed.count >= CLAIMED_MAX)
			continue;
		entry = pl_table_insert(&view->claimed, state);
		if (!entry)
			return -ENOMEM;
		entry->value[0] = address_of(view, i);
	}
	return 0;
}

/* What a module written in C has for itself, where no block tells how much that is: it says so. */
void see_module_state(const struct scan *scan)
{
	/* A type of that name that is smaller is none. */
	const bool fits = scan->type->basic_size >= scan->head + (scan->view->python->minor >= 15 ? 48 : 24);
	uint64_t state = fits ? word_of(scan->object, state_at(scan->view)) : 0, size;
	struct pl_table_entry *entry = state ? pl_table_find(&scan->view->claimed, state) : NULL;
	const uint8_t *bytes;

	if (!entry || entry->value[0] != scan->address || block_size(scan->view, state, NULL))
		return;
	size = state_size(scan);
	bytes = size && size <= STATE_MAX ? image_at(scan->view->image, state, size) : NULL;
	if (!bytes)
		return;
	own(scan, state, size);
	for (uint64_t at = 0; at + 8 <= size; at += 8)
		see(scan, word_of(bytes, at), (struct edge){ EDGE_MEMORY, at, 0, false });
	/* All of it has been seen. */
	entry->value[1] = UINT64_MAX;
}

/* An array's data. Where it lies in a block that is known, what is behind ndarray's words has it already. */
void see_data(const struct scan *scan)
{
	const uint64_t at = scan->head + (scan->type->kind == KIND_ARRAY ? 8 : 0);
	uint64_t data = scan->type->basic_size < at + 8 ? 0 : word_of(scan->object, at);
	uint64_t size = block_size(scan->view, data, NULL);

	if (!size)
		size = data_size(scan->view, scan->type, scan->object);
	else if (scan->type->kind == KIND_NDARRAY)
		return;
	if (size)
		own(scan, data, size);
}
