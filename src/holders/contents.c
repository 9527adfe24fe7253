/* SPDX-License-Identifier: MIT */
#include "scan.h"
#include "pyleak/page.h"

/* What one object refers to. See the headers of CPython that heap_layout.c names, and Objects/, Modules/ of each. */

enum {
	DEQUE_BLOCK = 64,          /* BLOCKLEN of Modules/_collectionsmodule.c */
	DEQUE_BLOCK_BYTES = (DEQUE_BLOCK + 2) * 8,
	BLOCKS_MAX = 1 << 22,
	INTERNED_MIN = 256, INTERNED_LOOKED = 64,
};

static void see_array(const struct scan *scan, uint64_t address, uint64_t count, struct edge edge)
{
	const uint8_t *bytes = count < UINT64_C(1) << 40 ? image_at(scan->view->image, address, count * 8) : NULL;

	for (uint64_t i = 0; bytes && i < count; i++) {
		edge.index = i;
		see(scan, word_of(bytes, i * 8), edge);
	}
}

/* Values in the order of a table of keys. */
static void see_values(const struct scan *scan, uint64_t values, uint64_t keys_address, enum edge_kind kind)
{
	struct keys keys;
	const uint8_t *bytes, *entries;

	if (!keys_read(scan->view, keys_address, &keys))
		return;
	values += (uint64_t)scan->view->layout.values_head;
	bytes = image_at(scan->view->image, values, keys.count * 8);
	entries = image_at(scan->view->image, keys.entries, keys.count * keys.stride);
	for (uint64_t i = 0; bytes && entries && i < keys.count; i++)
		see(scan, word_of(bytes, i * 8), (struct edge){ kind, i, word_of(entries, i * keys.stride + keys.key), true });
}

static bool is_interned(const struct keys *keys, const uint8_t *entries)
{
	uint64_t same = 0, live = 0;

	for (uint64_t i = 0; keys->count >= INTERNED_MIN && i < keys->count && live < INTERNED_LOOKED; i++) {
		uint64_t value = word_of(entries, i * keys->stride + keys->value);

		live += value != 0;
		same += value && value == word_of(entries, i * keys->stride + keys->key);
	}
	return live == INTERNED_LOOKED && same == live;
}

static void see_dict(const struct scan *scan)
{
	uint64_t keys_address = word_of(scan->object, scan->head + 16), values = word_of(scan->object, scan->head + 24), live = 0;
	const uint8_t *entries;
	struct keys keys;

	if (!keys_of_dict(scan->view, scan->object, &keys))
		return;
	if (values) {
		const uint8_t *head = image_at(scan->view->image, values, 8);

		/* Values within an instance are the instance's (3.13+). */
		if (head && scan->view->layout.inline_values && head[2])
			return;
		see_values(scan, values, keys_address, EDGE_VALUE);
		own(scan, values, (keys.count + keys.usable) * 8);
		return;
	}
	own(scan, keys_address, image_word(scan->view->image, keys_address) > 1 && keys.count == 0 ? 0 : keys.size);
	entries = image_at(scan->view->image, keys.entries, keys.count * keys.stride);
	/* The dict of interned strings owns none of them. */
	if (entries && is_interned(&keys, entries)) {
		scan->view->interned = image_object(scan->view->image, scan->address);
		return;
	}
	if (!entries)
		return;
	for (uint64_t i = 0; i < keys.count; i++) {
		uint64_t key = word_of(entries, i * keys.stride + keys.key), value = word_of(entries, i * keys.stride + keys.value);

		if (!value)
			continue;
		live++;
		see(scan, value, (struct edge){ EDGE_VALUE, i, key, true });
		see(scan, key, (struct edge){ EDGE_KEY, i, 0, true });
	}
	torn_note(scan->view, scan->address, word_of(scan->object, scan->head), live);
}

static void see_set(const struct scan *scan)
{
	uint64_t mask = word_of(scan->object, scan->head + 16), table = word_of(scan->object, scan->head + 24), there = 0;
	const uint8_t *bytes;

	if (mask >= UINT64_C(1) << 36 || (mask & (mask + 1)))
		return;
	bytes = image_at(scan->view->image, table, (mask + 1) * 16);
	if (table - scan->address >= scan->type->basic_size)
		own(scan, table, (mask + 1) * 16);
	for (uint64_t i = 0; bytes && i <= mask; i++) {
		/* What was taken out has a hash of -1. */
		there += word_of(bytes, i * 16) && word_of(bytes, i * 16 + 8) != UINT64_MAX;
		see(scan, word_of(bytes, i * 16), (struct edge){ EDGE_ITEM, i, 0, true });
	}
	torn_note(scan->view, scan->address, word_of(scan->object, scan->head + 8), there);
}

static void see_deque(const struct scan *scan)
{
	uint64_t block = word_of(scan->object, scan->head + 8), last = word_of(scan->object, scan->head + 16);
	uint64_t from = word_of(scan->object, scan->head + 24), to = word_of(scan->object, scan->head + 32), number = 0;

	for (int i = 0; i < BLOCKS_MAX; i++) {
		const uint8_t *bytes = image_at(scan->view->image, block, DEQUE_BLOCK_BYTES);
		uint64_t end = block == last ? to + 1 : DEQUE_BLOCK;

		if (!bytes || from > DEQUE_BLOCK || end > DEQUE_BLOCK)
			return;
		own(scan, block, DEQUE_BLOCK_BYTES);
		for (uint64_t j = from; j < end; j++)
			see(scan, word_of(bytes, 8 + j * 8), (struct edge){ EDGE_ITEM, number++, 0, true });
		if (block == last)
			return;
		from = 0;
		block = word_of(bytes, 8 + DEQUE_BLOCK * 8);
	}
}

/* Words of the body that own nothing, though they lead to objects. */
static bool is_masked(const struct scan *scan, uint64_t offset)
{
	const uint64_t head = scan->head, spec = (uint64_t)scan->view->layout.type_spec_cache;

	if (scan->type->weak_list > 0 && offset == (uint64_t)scan->type->weak_list)
		return true;
	switch (scan->type->kind) {
	case KIND_WEAK: /* the object, its neighbours; not the callback */
		return offset < (uint64_t)scan->view->layout.weak_size && offset != head + 8;
	case KIND_CACHE: /* functools.lru_cache: the list's anchor */
		return offset < head + 40;
	case KIND_CACHE_LINK:
		return offset < head + 16;
	case KIND_MEMORYVIEW: /* the object, which its buffer owns; shape, strides, and what is no number of them */
		return offset == head + 48 || offset >= scan->type->basic_size;
	case KIND_CONTEXTVAR:
		return offset == head + 16;
	case KIND_CYTHON:
		return offset == head + 8;
	case KIND_ENUMERATE:
		return offset == head + 32;
	case KIND_GENERATOR:
		return offset == head + 40 && scan->view->python->minor >= 13 && strcmp(scan->type->name, "generator") == 0;
	case KIND_TYPE:
		return spec && offset >= spec && offset < spec + 24;
	default:
		return false;
	}
}

static void see_attributes(const struct scan *scan)
{
	const struct pl_heap_layout *layout = &scan->view->layout;
	uint64_t keys = 0, word, at;
	struct keys table;

	if (!(scan->type->flags & FLAG_MANAGED_DICT) || !layout->managed_dict)
		return;
	if (scan->type->flags & FLAG_HEAP_TYPE)
		keys = image_word(scan->view->image, scan->type->address + (uint64_t)layout->type_cached_keys);
	at = (uint64_t)((int64_t)scan->address + layout->managed_dict);
	word = image_word(scan->view->image, at);
	if (layout->managed_values || (scan->view->python->minor == 12 && word & 1)) {
		uint64_t values = layout->managed_values ?
			image_word(scan->view->image, (uint64_t)((int64_t)scan->address + layout->managed_values)) : word + 1;

		if (values && keys_read(scan->view, keys, &table)) {
			see_values(scan, values, keys, EDGE_ATTRIBUTE);
			own(scan, values, (table.count + table.usable) * 8 + 16);
		}
	}
	if (!(word & 1))
		see(scan, word, (struct edge){ EDGE_WORD, (uint64_t)(int64_t)layout->managed_dict, 0, true });
	if (layout->inline_values && (scan->type->flags & FLAG_INLINE_VALUES)) {
		const uint8_t *values = image_at(scan->view->image, scan->address + scan->type->basic_size, 8);

		if (values && values[3])
			see_values(scan, scan->address + scan->type->basic_size, keys, EDGE_ATTRIBUTE);
	}
}

static void see_keys_of_type(const struct scan *scan)
{
	uint64_t address = word_of(scan->object, (uint64_t)scan->view->layout.type_cached_keys);
	struct keys keys;
	const uint8_t *entries;

	if (!address || !keys_read(scan->view, address, &keys))
		return;
	own(scan, address, keys.size);
	entries = image_at(scan->view->image, keys.entries, keys.count * keys.stride);
	for (uint64_t i = 0; entries && i < keys.count; i++)
		see(scan, word_of(entries, i * keys.stride + keys.key), (struct edge){ EDGE_KEY, i, 0, true });
}

bool edges_none(const struct type *type)
{
	return (type->kind == KIND_TEXT || type->kind == KIND_BYTES || type->kind == KIND_INT || type->kind == KIND_PLAIN) &&
		!(type->flags & FLAG_HEAP_TYPE);
}

static void see_body(const struct scan *scan, uint64_t size)
{
	/* The body of a type ends before the members that its slots are described by. */
	bool library = scan->type->kind == KIND_OTHER || scan->type->kind == KIND_MODULE || scan->type->kind == KIND_NDARRAY ||
		scan->type->kind == KIND_CYTHON; /* its defaults are in a block */

	for (uint64_t offset = scan->head; offset + 8 <= size; offset += 8) {
		uint64_t word = word_of(scan->object, offset);

		if (word < 1 << 20 || word % 8 || word >> PL_ADDRESS_BITS || is_masked(scan, offset))
			continue;
		see(scan, word, (struct edge){ EDGE_WORD, offset, 0, true });
		if (library)
			see_memory(scan, word, 0);
	}
}

void edges_of(struct view *view, uint32_t number, const struct edge_visitor *visitor)
{
	const struct type *type = type_of(view, number);
	struct image_piece *piece = image_find(view->image, address_of(view, number));
	struct scan scan = { view, visitor, type, address_of(view, number), NULL, (uint64_t)view->layout.head };
	const struct pl_heap_layout *layout = &view->layout;
	uint64_t size;

	if (!piece)
		return;
	if (type->object != NO_OBJECT && (type->flags & FLAG_HEAP_TYPE))
		visitor->see(visitor->context, type->object, &(struct edge){ EDGE_TYPE, 0, 0, true });
	if (edges_none(type))
		return;
	scan.object = piece->bytes + (scan.address - piece->start);
	image_need(piece, scan.address, type->basic_size + 8);
	size = body_size(view, type, scan.object, piece->end - scan.address);
	image_need(piece, scan.address, size);
	switch (type->kind) {
	case KIND_TUPLE:
		see_array(&scan, scan.address + (uint64_t)layout->tuple_items, (uint64_t)items_of(view, scan.object),
			(struct edge){ EDGE_ITEM, .owned = true });
		if (type->flags & FLAG_HEAP_TYPE) { /* a dict may follow the items */
			uint64_t end = (uint64_t)layout->tuple_items + (uint64_t)items_of(view, scan.object) * 8;

			for (; end + 8 <= size; end += 8)
				see(&scan, word_of(scan.object, end), (struct edge){ EDGE_WORD, end, 0, true });
		}
		see_attributes(&scan);
		return;
	case KIND_LIST:
		/* realloc() has moved its items already. */
		if (!image_at(view->image, word_of(scan.object, scan.head + 8), 8))
			torn_note(view, scan.address, (uint64_t)items_of(view, scan.object), 0);
		see_array(&scan, word_of(scan.object, scan.head + 8), (uint64_t)items_of(view, scan.object),
			(struct edge){ EDGE_ITEM, .owned = true });
		if (word_of(scan.object, scan.head + 16) < UINT64_C(1) << 36 &&
			image_at(view->image, word_of(scan.object, scan.head + 8), word_of(scan.object, scan.head + 16) * 8))
			own(&scan, word_of(scan.object, scan.head + 8), word_of(scan.object, scan.head + 16) * 8);
		break;
	case KIND_DICT:
		see_dict(&scan);
		break;
	case KIND_SET:
		see_set(&scan);
		break;
	case KIND_DEQUE:
		see_deque(&scan);
		break;
	case KIND_FRAME:
		if (layout->old_keys) {
			see_old_frame(&scan, size);
			return;
		}
		/* Behind the frame's words lie the locals of one that has ended: they are slots. */
		if (word_of(scan.object, (uint64_t)layout->frame_inner) == scan.address + (uint64_t)layout->frame_data)
			see_frame(&scan, scan.address + (uint64_t)layout->frame_data, false);
		size = (uint64_t)layout->frame_data;
		break;
	case KIND_GENERATOR:
		if (layout->old_keys)
			break;
		if ((int8_t)scan.object[layout->generator_state] < layout->generator_done)
			see_frame(&scan, scan.address + (uint64_t)layout->generator_frame, false);
		size = (uint64_t)layout->generator_frame;
		break;
	case KIND_TYPE:
		if (word_of(scan.object, (uint64_t)view->python->layout.type_flags) & FLAG_HEAP_TYPE)
			see_keys_of_type(&scan);
		break;
	case KIND_MODULE:
		see_module_state(&scan);
		break;
	case KIND_BYTEARRAY:
		if (image_at(view->image, word_of(scan.object, scan.head + 16), word_of(scan.object, scan.head + 8)))
			own(&scan, word_of(scan.object, scan.head + 16), word_of(scan.object, scan.head + 8));
		break;
	case KIND_ARRAY: case KIND_NDARRAY:
		see_data(&scan);
		break;
	default:
		break;
	}
	see_body(&scan, size);
	see_attributes(&scan);
}
