/* SPDX-License-Identifier: MIT */
#include "edges.h"

/* What one object refers to. See the headers of CPython that heap_layout.c names, and Objects/, Modules/ of each. */

enum {
	DEQUE_BLOCK = 64,          /* BLOCKLEN of Modules/_collectionsmodule.c */
	DEQUE_BLOCK_BYTES = (DEQUE_BLOCK + 2) * 8,
	BLOCKS_MAX = 1 << 22,
	CLAIMED_MAX = 1 << 22,
	MEMORY_DEPTH = 2,
	UNKNOWN_BYTES = 64,
	MEMORY_MAX = 1 << 28,      /* bytes of a block that are looked through */
	INTERNED_MIN = 256, INTERNED_LOOKED = 64,
	FRAME_READ = 88,
};

struct scan {
	struct view *view;
	const struct edge_visitor *visitor;
	const struct type *type;
	uint64_t address;
	const uint8_t *object;
	uint64_t head;
};

static void see(const struct scan *scan, uint64_t word, struct edge edge)
{
	uint32_t target = image_object(scan->view->image, word);

	if (target != NO_OBJECT)
		scan->visitor->see(scan->visitor->context, target, &edge);
}

static void own(const struct scan *scan, uint64_t size)
{
	if (scan->visitor->own)
		scan->visitor->own(scan->visitor->context, size);
}

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
	uint64_t keys_address = word_of(scan->object, scan->head + 16), values = word_of(scan->object, scan->head + 24);
	const uint8_t *entries;
	struct keys keys;

	if (!keys_read(scan->view, keys_address, &keys))
		return;
	if (values) {
		const uint8_t *head = image_at(scan->view->image, values, 8);

		/* Values within an instance are the instance's (3.13+). */
		if (head && scan->view->layout.inline_values && head[2])
			return;
		see_values(scan, values, keys_address, EDGE_VALUE);
		own(scan, (keys.count + keys.usable) * 8);
		return;
	}
	own(scan, image_word(scan->view->image, keys_address) > 1 && keys.count == 0 ? 0 : keys.size);
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
		see(scan, value, (struct edge){ EDGE_VALUE, i, key, true });
		see(scan, key, (struct edge){ EDGE_KEY, i, 0, true });
	}
}

static void see_set(const struct scan *scan)
{
	uint64_t mask = word_of(scan->object, scan->head + 16), table = word_of(scan->object, scan->head + 24);
	const uint8_t *bytes;

	if (mask >= UINT64_C(1) << 36 || (mask & (mask + 1)))
		return;
	bytes = image_at(scan->view->image, table, (mask + 1) * 16);
	if (table - scan->address >= scan->type->basic_size)
		own(scan, (mask + 1) * 16);
	for (uint64_t i = 0; bytes && i <= mask; i++)
		see(scan, word_of(bytes, i * 16), (struct edge){ EDGE_ITEM, i, 0, true });
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
		own(scan, DEQUE_BLOCK_BYTES);
		for (uint64_t j = from; j < end; j++)
			see(scan, word_of(bytes, 8 + j * 8), (struct edge){ EDGE_ITEM, number++, 0, true });
		if (block == last)
			return;
		from = 0;
		block = word_of(bytes, 8 + DEQUE_BLOCK * 8);
	}
}

/* Up to 3.10: a frame is an object with its locals and its stack behind. */
static void see_old_frame(const struct scan *scan, uint64_t body)
{
	const struct pl_heap_layout *layout = &scan->view->layout;
	uint64_t code = word_of(scan->object, (uint64_t)scan->view->python->layout.frame_code), locals = 0, stack, end;
	const uint8_t *bytes = image_at(scan->view->image, code, 128);
	uint64_t at = (uint64_t)layout->frame_locals;

	for (uint64_t offset = scan->head; offset + 8 <= at; offset += 8)
		if (offset != (uint64_t)layout->frame_generator && offset != (uint64_t)layout->frame_stack &&
			offset != (uint64_t)layout->frame_stack_top)
			see(scan, word_of(scan->object, offset), (struct edge){ EDGE_WORD, offset, 0, true });
	stack = word_of(scan->object, (uint64_t)layout->frame_stack);
	locals = (stack - scan->address - at) / 8;
	if (!bytes || stack < scan->address + at || stack - scan->address > body)
		return;
	end = locals;
	if (layout->frame_stack_top) {
		uint64_t top = word_of(scan->object, (uint64_t)layout->frame_stack_top);

		if (top >= stack && top - scan->address <= body)
			end = (top - scan->address - at) / 8;
	} else {
		int32_t depth = (int32_t)half_of(scan->object, (uint64_t)layout->frame_stack_depth);

		if (depth > 0 && stack - scan->address + (uint64_t)depth * 8 <= body)
			end = locals + (uint64_t)depth;
	}
	for (uint64_t i = 0; i < end; i++)
		see(scan, word_of(scan->object, at + i * 8), i < locals ? (struct edge){ EDGE_LOCAL, i, code, true } :
			(struct edge){ EDGE_WORD, at + i * 8, 0, true });
}

static void see_frame(const struct scan *scan, uint64_t frame, bool executing)
{
	const struct pl_heap_layout *layout = &scan->view->layout;
	const uint64_t mask = layout->frame_tagged ? ~UINT64_C(3) : ~UINT64_C(0);
	const uint8_t *bytes = image_at(scan->view->image, frame, FRAME_READ), *code, *slots;
	uint64_t words[4], code_address, count, end;

	if (!bytes)
		return;
	words[0] = word_of(bytes, (uint64_t)scan->view->python->layout.frame_code);
	words[1] = word_of(bytes, (uint64_t)layout->frame_function);
	words[2] = word_of(bytes, (uint64_t)layout->frame_mapping);
	words[3] = word_of(bytes, (uint64_t)layout->frame_object);
	code_address = words[0] & mask;
	code = image_at(scan->view->image, code_address, 128);
	if (!code || word_of(code, (uint64_t)scan->view->python->layout.object_type) != scan->view->python->code_type)
		return;
	for (int i = 0; i < 4; i++)
		see(scan, words[i] & mask, (struct edge){ EDGE_WORD, 0, 0, mask == ~UINT64_C(0) || !(words[i] & 1) });
	count = half_of(code, (uint64_t)layout->code_slots_count);
	if (count > 1 << 16)
		return;
	end = count;
	if (layout->frame_top_is_pointer) {
		uint64_t top = word_of(bytes, (uint64_t)layout->frame_top), base = frame + (uint64_t)layout->frame_slots;

		if (top >= base && (top - base) / 8 <= count + (1 << 12) && (top - base) / 8 >= count)
			end = (top - base) / 8;
	} else if (!executing) {
		int32_t top = (int32_t)half_of(bytes, (uint64_t)layout->frame_top);

		if (top >= (int32_t)count && top < (int32_t)count + (1 << 12))
			end = (uint64_t)top;
	}
	slots = image_at(scan->view->image, frame + (uint64_t)layout->frame_slots, end * 8);
	for (uint64_t i = 0; slots && i < end; i++) {
		uint64_t word = word_of(slots, i * 8);

		if (layout->frame_tagged && (word & 3) == 3)
			continue;
		see(scan, word & mask, (struct edge){ i < count ? EDGE_LOCAL : EDGE_WORD, i, i < count ? code_address : 0,
			!layout->frame_tagged || !(word & 1) });
	}
}

void edges_of_frame(struct view *view, uint64_t frame, bool executing, const struct edge_visitor *visitor)
{
	const struct scan scan = { .view = view, .visitor = visitor };

	see_frame(&scan, frame, executing);
}

/* A block that nobody else claimed, and that holds no object: the object's, as far as can be known. */
static void see_memory(const struct scan *scan, uint64_t address, int depth)
{
	struct view *view = scan->view;
	struct pl_table_entry *entry;
	const uint8_t *bytes;
	uint64_t size, claimer = scan->address;
	bool known = true;

	if (address < 1 << 20 || address % 8 || address >> 47)
		return;
	size = block_size(view, address);
	/* Of mimalloc's blocks, which say no size where they begin, a small part: what is counted decides. */
	if (!size && view->python->free_threaded) {
		const struct image_piece *piece = image_find(view->image, address);

		known = false;
		if (piece && !piece->stack && !is_static(piece, address) && piece->end - address >= UNKNOWN_BYTES + 8)
			size = UNKNOWN_BYTES + 8;
	}
	if (!size || size > MEMORY_MAX)
		return;
	for (uint64_t offset = 0; offset <= 32; offset += 16)
		if (image_object(view->image, address + offset) != NO_OBJECT)
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
	own(scan, known ? size : 0);
	bytes = image_at(view->image, address, size - 8);
	for (uint64_t at = 0; bytes && at + 8 <= size - 8; at += 8) {
		uint64_t word = word_of(bytes, at);

		see(scan, word, (struct edge){ EDGE_MEMORY, at, 0, false });
		if (depth + 1 < MEMORY_DEPTH && image_object(view->image, word) == NO_OBJECT)
			see_memory(scan, word, depth + 1);
	}
}

/* What a module written in C has for itself, where no block tells how much that is: its definition does. */
static void see_state(const struct scan *scan)
{
	enum { STATE_MAX = 1 << 20 };
	uint64_t definition = word_of(scan->object, scan->head + 8), state = word_of(scan->object, scan->head + 16), size;
	const uint8_t *bytes;

	if (!state || block_size(scan->view, state) || scan->view->python->minor >= 15)
		return;
	/* PyModuleDef.m_size */
	size = image_word(scan->view->image, definition + scan->head + 40);
	bytes = size && size <= STATE_MAX ? image_at(scan->view->image, state, size) : NULL;
	if (!bytes)
		return;
	own(scan, size);
	for (uint64_t at = 0; at + 8 <= size; at += 8)
		see(scan, word_of(bytes, at), (struct edge){ EDGE_MEMORY, at, 0, false });
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
	case KIND_MEMORYVIEW:
		return offset == head + 48;
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
			own(scan, (table.count + table.usable) * 8 + 16);
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
	own(scan, keys.size);
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
	bool library = scan->type->kind == KIND_OTHER || scan->type->kind == KIND_MODULE || scan->type->kind == KIND_NDARRAY;

	for (uint64_t offset = scan->head; offset + 8 <= size; offset += 8) {
		uint64_t word = word_of(scan->object, offset);

		if (word < 1 << 20 || word % 8 || word >> 47 || is_masked(scan, offset))
			continue;
		see(scan, word, (struct edge){ EDGE_WORD, offset, 0, true });
		if (library)
			see_memory(scan, word, 0);
	}
}

void edges_of(struct view *view, uint32_t number, const struct edge_visitor *visitor)
{
	const struct type *type = type_of(view, number);
	struct image_piece *piece = image_find(view->image, view->addresses[number]);
	struct scan scan = { view, visitor, type, view->addresses[number], NULL, (uint64_t)view->layout.head };
	const struct pl_heap_layout *layout = &view->layout;
	uint64_t size;

	if (!piece)
		return;
	scan.object = piece->bytes + (scan.address - piece->start);
	size = body_size(view, type, scan.object, piece->end - scan.address);
	if (type->object != NO_OBJECT && (type->flags & FLAG_HEAP_TYPE))
		visitor->see(visitor->context, type->object, &(struct edge){ EDGE_TYPE, 0, 0, true });
	if (edges_none(type))
		return;
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
		see_array(&scan, word_of(scan.object, scan.head + 8), (uint64_t)items_of(view, scan.object),
			(struct edge){ EDGE_ITEM, .owned = true });
		if (word_of(scan.object, scan.head + 16) < UINT64_C(1) << 36 &&
			image_at(view->image, word_of(scan.object, scan.head + 8), word_of(scan.object, scan.head + 16) * 8))
			own(&scan, word_of(scan.object, scan.head + 16) * 8);
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
		see_state(&scan);
		break;
	case KIND_BYTEARRAY:
		if (image_at(view->image, word_of(scan.object, scan.head + 16), word_of(scan.object, scan.head + 8)))
			own(&scan, word_of(scan.object, scan.head + 8));
		break;
	case KIND_ARRAY:
		own(&scan, block_size(view, word_of(scan.object, scan.head + 8)));
		break;
	default:
		break;
	}
	see_body(&scan, size);
	see_attributes(&scan);
}
