/* SPDX-License-Identifier: MIT */
#include "view.h"

enum {
	TIME_READ = 40,
	OLD_KEYS_HEAD = 40, OLD_KEYS_SIZE = 8, OLD_KEYS_USABLE = 24, OLD_KEYS_COUNT = 32, OLD_ENTRY = 24,
	KEYS_HEAD = 32, KEYS_LOG_SIZE = 8, KEYS_LOG_INDEX_BYTES = 9, KEYS_KIND = 10, KEYS_USABLE = 16, KEYS_COUNT = 24,
	SMALL_ENTRY = 16,
	LOG_MAX = 40,
	CODE_READ = 128,
	SLOTS_MAX = 1 << 20,
	POOL_MAX = 16384,
	ARRAY_READ = 32, ITEM_SIZE_AT = 4, ITEM_MAX = 64,
	DIMENSIONS_MAX = 64, NDARRAY_READ = 56, OWNS_DATA = 4, /* NPY_ARRAY_OWNDATA */
	CHUNK_FLAGS = 7, CHUNK_MAPPED = 2, CHUNK_MIN = 32, CHUNK_HEAD = 16,
};
#define DATA_MAX (UINT64_C(1) << 42)

bool has_collector(const struct view *view, const struct type *type, const uint8_t *object)
{
	if (!(type->flags & FLAG_COLLECTED) || !view->layout.collector)
		return false;
	return type->kind != KIND_TYPE || (word_of(object, (uint64_t)view->python->layout.type_flags) & FLAG_HEAP_TYPE);
}

uint32_t headers_size(const struct view *view, const struct type *type, const uint8_t *object)
{
	bool managed = view->python->minor >= 11 && (type->flags & (FLAG_MANAGED_DICT | FLAG_MANAGED_WEAKREF));

	/* 3.11 has both words for a managed dict alone; it has no managed weak references. */
	return (has_collector(view, type, object) ? (uint32_t)view->layout.collector : 0) + (managed ? 16 : 0);
}

uint64_t frame_slots(struct view *view, uint64_t code)
{
	const struct pl_heap_layout *layout = &view->layout;
	const uint8_t *bytes = image_at(view->image, code & ~UINT64_C(3), CODE_READ);
	uint64_t slots;
	int32_t stack_at = view->python->minor == 11 ? 68 : layout->code_slots_count + 4;

	if (!bytes)
		return 0;
	/* 3.11 has co_stacksize; later versions co_framesize, with the frame's own words. */
	slots = half_of(bytes, (uint64_t)stack_at);
	if (view->python->minor == 11)
		slots += half_of(bytes, (uint64_t)layout->code_slots_count);
	else if (slots >= (uint64_t)layout->frame_slots / 8)
		slots -= (uint64_t)layout->frame_slots / 8;
	return slots < SLOTS_MAX ? slots : 0;
}

static uint64_t text_size(const struct view *view, const struct type *type, const uint8_t *object)
{
	const struct pl_python_layout *layout = &view->python->layout;
	uint64_t length = word_of(object, (uint64_t)layout->string_length);
	uint32_t state = half_of(object, (uint64_t)layout->string_state);
	bool wide = layout->string_state_wide, compact = state >> (wide ? 11 : 5) & 1, ascii = state >> (wide ? 12 : 6) & 1;
	uint64_t width = state >> (wide ? 8 : 2) & 7;

	if (!compact)
		return type->basic_size;
	if (length > UINT64_C(1) << 40 || (width != 1 && width != 2 && width != 4))
		return 0;
	return (uint64_t)(ascii ? layout->string_ascii_data : layout->string_compact_data) + (length + 1) * width;
}

static uint64_t int_digits(const struct view *view, const uint8_t *object)
{
	int64_t size = items_of(view, object);

	if (view->python->minor >= 12)
		return (uint64_t)size >> 3;
	return (uint64_t)(size < 0 ? -size : size);
}

static uint64_t items_count(struct view *view, const struct type *type, const uint8_t *object, uint64_t left)
{
	const struct pl_heap_layout *layout = &view->layout;
	uint64_t count = (uint64_t)items_of(view, object), inner;

	switch (type->kind) {
	case KIND_INT:
		return int_digits(view, object);
	case KIND_TUPLE: case KIND_BYTES:
		return count; /* an impossible one shows that it is no object */
	case KIND_GENERATOR:
		return layout->old_keys || left < type->basic_size ? 0 :
			frame_slots(view, word_of(object, (uint64_t)layout->generator_frame + (uint64_t)view->python->layout.frame_code));
	case KIND_FRAME:
		if (layout->old_keys)
			break;
		inner = word_of(object, (uint64_t)layout->frame_inner) + (uint64_t)view->python->layout.frame_code;
		return frame_slots(view, image_word(view->image, inner));
	default:
		break;
	}
	return count < left / type->item_size ? count : 0;
}

uint64_t body_size(struct view *view, const struct type *type, const uint8_t *object, uint64_t left)
{
	uint64_t size = type->basic_size, count;

	if (left < least_size(view, type))
		return 0;
	if (type->kind == KIND_TEXT)
		size = text_size(view, type, object);
	else if (type->kind == KIND_TYPE && !(word_of(object, (uint64_t)view->python->layout.type_flags) & FLAG_HEAP_TYPE))
		size = (uint64_t)view->layout.type_size;
	else if (type->kind == KIND_TIME && !(type->flags & FLAG_HEAP_TYPE) && size >= TIME_READ && !object[view->layout.head + 8])
		size -= 8; /* hastzinfo is 0: it ends before its tzinfo, and the next object may begin there */
	else if (type->item_size) {
		count = items_count(view, type, object, left);
		if (count > left / type->item_size)
			return 0;
		size += count * type->item_size;
		/* A dict may follow, at the next word. */
		if (type->flags & FLAG_HEAP_TYPE)
			size = (size + 7) & ~UINT64_C(7);
	}
	if ((type->flags & FLAG_INLINE_VALUES) && view->layout.inline_values && left > type->basic_size + 8) {
		uint64_t capacity = object[type->basic_size];

		size = type->basic_size + (uint64_t)view->layout.values_head + capacity * 8 + ((capacity + 7) & ~UINT64_C(7));
	}
	return size <= left ? size : 0;
}

bool keys_read(const struct view *view, uint64_t address, struct keys *ret)
{
	const uint8_t *bytes = image_at(view->image, address, OLD_KEYS_HEAD);
	uint64_t size, index, log_size, log_index;

	if (!bytes)
		return false;
	*ret = (struct keys){ .stride = OLD_ENTRY, .key = 8, .value = 16 };
	if (view->layout.old_keys) {
		size = word_of(bytes, OLD_KEYS_SIZE);
		ret->usable = word_of(bytes, OLD_KEYS_USABLE);
		ret->count = word_of(bytes, OLD_KEYS_COUNT);
		if (!size || (size & (size - 1)) || size > UINT64_C(1) << LOG_MAX)
			return false;
		index = size * (size <= 0xff ? 1 : size <= 0xffff ? 2 : size <= UINT32_MAX ? 4 : 8);
		ret->entries = address + OLD_KEYS_HEAD + index;
		ret->size = OLD_KEYS_HEAD + index;
	} else {
		log_size = bytes[KEYS_LOG_SIZE];
		log_index = bytes[KEYS_LOG_INDEX_BYTES];
		ret->usable = word_of(bytes, KEYS_USABLE);
		ret->count = word_of(bytes, KEYS_COUNT);
		if (log_size > LOG_MAX || log_index > LOG_MAX + 3 || log_index < log_size || bytes[KEYS_KIND] > 2)
			return false;
		if (bytes[KEYS_KIND]) {
			ret->stride = SMALL_ENTRY;
			ret->key = 0;
			ret->value = 8;
		}
		size = UINT64_C(1) << log_size;
		ret->entries = address + KEYS_HEAD + (UINT64_C(1) << log_index);
		ret->size = KEYS_HEAD + (UINT64_C(1) << log_index);
	}
	if (ret->count > size || ret->usable > size || ret->count + ret->usable > size)
		return false;
	ret->size += (ret->count + ret->usable) * ret->stride;
	return image_at(view->image, ret->entries, ret->count * ret->stride) != NULL || !ret->count;
}

bool keys_of_dict(const struct view *view, const uint8_t *object, struct keys *ret)
{
	const uint64_t used = word_of(object, (uint64_t)view->layout.head);

	if (!keys_read(view, word_of(object, (uint64_t)view->layout.head + 16), ret))
		return false;
	/* dictresize() fills the new table first and says last how many there are; what has not come yet reads as none. */
	if (!ret->count && used && used <= ret->usable && !word_of(object, (uint64_t)view->layout.head + 24) &&
		image_at(view->image, ret->entries, used * ret->stride)) {
		ret->count = used;
		ret->usable -= used;
	}
	return true;
}

struct pool {
	uint32_t count, padding;
	uint64_t free_block, next, previous;
	uint32_t arena_index, size_index, next_offset, max_next_offset;
};

/* pymalloc: the header of a pool says so many things that must agree that nothing else looks like one. */
static uint64_t pool_block_size(const struct view *view, uint64_t address)
{
	const uint32_t length = view->python->minor >= 10 ? 16384 : 4096;
	const uint64_t start = address & ~(uint64_t)(length - 1), offset = address - start;
	const uint8_t *bytes = image_has(view->image, start, length) ? image_at(view->image, start, sizeof(struct pool)) : NULL;
	struct pool pool;
	uint32_t size;

	if (!bytes || offset < sizeof(pool) || view->python->free_threaded)
		return 0;
	memcpy(&pool, bytes, sizeof(pool));
	size = length - pool.max_next_offset;
	if (pool.max_next_offset >= length || size < 8 || size > 512 || size % 8 || !pool.count ||
		pool.count > (length - sizeof(pool)) / size || (pool.next_offset - sizeof(pool)) % size ||
		pool.next_offset > length + size || (pool.free_block && pool.free_block - start >= length) ||
		((pool.size_index + 1) * 8 != size && (pool.size_index + 1) * 16 != size))
		return 0;
	return (offset - sizeof(pool)) % size == 0 ? size : 0;
}

bool pool_map(const struct view *view, uint64_t address, struct pool_map *ret)
{
	const uint32_t length = view->python->minor >= 10 ? POOL_MAX : POOL_MAX / 4;
	const uint64_t start = address & ~(uint64_t)(length - 1);
	const uint8_t *bytes = image_at(view->image, start, length);
	struct pool pool;
	uint64_t block;
	uint32_t size, count;

	*ret = (struct pool_map){ .start = start + sizeof(pool), .end = start + length };
	if (!bytes || view->python->free_threaded)
		return false;
	memcpy(&pool, bytes, sizeof(pool));
	size = length - pool.max_next_offset;
	if (pool.max_next_offset >= length || size < 8 || size > 512 || size % 8 || pool.count > (length - sizeof(pool)) / size ||
		pool.next_offset < sizeof(pool) || (pool.next_offset - sizeof(pool)) % size || pool.next_offset > length + size ||
		((pool.size_index + 1) * 8 != size && (pool.size_index + 1) * 16 != size))
		return false;
	ret->size = size;
	count = (length - (uint32_t)sizeof(pool)) / size;
	/* Those that were never used, and those in the chain. */
	for (uint32_t i = (pool.next_offset - (uint32_t)sizeof(pool)) / size; i < count; i++)
		ret->free[i / 64] |= UINT64_C(1) << i % 64;
	block = pool.free_block;
	for (uint32_t i = 0; i < count && block - ret->start < count * (uint64_t)size && (block - ret->start) % size == 0; i++) {
		uint64_t number = (block - ret->start) / size;

		ret->free[number / 64] |= UINT64_C(1) << number % 64;
		block = word_of(bytes, block - start);
	}
	return true;
}

/* glibc: the word before a block says how large its chunk is; that of a chunk in use is confirmed by the next one. */
static uint64_t chunk_size(const struct view *view, uint64_t address)
{
	uint64_t word, size;

	if (!view->glibc)
		return 0;
	word = image_word(view->image, address - 8);
	size = word & ~(uint64_t)CHUNK_FLAGS;
	if (size < CHUNK_MIN || size % 16)
		return 0;
	if (word & CHUNK_MAPPED)
		return (address - CHUNK_HEAD) % 4096 == 0 && image_has(view->image, address, size - CHUNK_HEAD) ? size : 0;
	/* The next one says so, and is one itself: it fits in front of a third, or ends the heap. */
	if (!image_has(view->image, address, size))
		return 0;
	word = image_word(view->image, address - 8 + size);
	if (!(word & 1) || (word & ~(uint64_t)CHUNK_FLAGS) < CHUNK_HEAD || word % 16 > CHUNK_FLAGS)
		return 0;
	return image_has(view->image, address - 8 + size, (word & ~(uint64_t)CHUNK_FLAGS) - 8) ? size : 0;
}

uint64_t block_size(const struct view *view, uint64_t address, uint64_t *ret_usable)
{
	uint64_t size;

	if (address % 8 || address < CHUNK_HEAD)
		return 0;
	size = pool_block_size(view, address);
	if (!size && address % 16 == 0) {
		size = chunk_size(view, address);
		/* A chunk has its size in it, and where it is a mapping of its own one word more. */
		if (ret_usable)
			*ret_usable = !size ? 0 : size - (image_word(view->image, address - 8) & CHUNK_MAPPED ? CHUNK_HEAD : CHUNK_HEAD / 2);
	} else if (ret_usable) {
		*ret_usable = size;
	}
	return size;
}

bool block_has_object(const struct view *view, uint64_t address, uint64_t usable)
{
	for (uint64_t offset = 0; offset <= 32 && offset < usable; offset += 16)
		if (image_object(view->image, address + offset) != NO_OBJECT)
			return true;
	return false;
}

uint64_t data_size(const struct view *view, const struct type *type, const uint8_t *object)
{
	const uint64_t head = (uint64_t)view->layout.head;
	uint64_t size = 0;

	if (type->basic_size < head + ARRAY_READ)
		return 0;
	if (type->kind == KIND_ARRAY) {
		/* allocated; ob_descr->itemsize, in the module's read-only data */
		uint64_t count = word_of(object, head + 16);
		int32_t item = 0;

		if (count < DATA_MAX && image_read(view->image, word_of(object, head + 24) + ITEM_SIZE_AT, &item, sizeof(item)) &&
			item > 0 && item <= ITEM_MAX)
			size = count * (uint64_t)item;
	} else if (type->basic_size >= head + NDARRAY_READ) {
		/* nd, dimensions, strides, base, flags of PyArrayObject: the same in NumPy 1 and 2. */
		uint64_t dimensions = half_of(object, head + 8);
		const uint8_t *lengths, *strides;

		if (dimensions > DIMENSIONS_MAX || word_of(object, head + 32) || !(half_of(object, head + 48) & OWNS_DATA))
			return 0;
		lengths = image_at(view->image, word_of(object, head + 16), dimensions * 8);
		strides = image_at(view->image, word_of(object, head + 24), dimensions * 8);
		for (uint64_t i = 0; lengths && strides && i < dimensions; i++) {
			uint64_t length = word_of(lengths, i * 8), stride = word_of(strides, i * 8);

			if (length < DATA_MAX && stride < DATA_MAX / (length + 1) && length * stride > size)
				size = length * stride;
		}
	}
	/* No more than there is. */
	return size < DATA_MAX && image_has(view->image, word_of(object, head + (type->kind == KIND_ARRAY ? 8 : 0)), size) ? size : 0;
}

bool fills_block(const struct view *view, const struct image_piece *piece, uint64_t address, const struct type *type)
{
	const uint8_t *bytes = piece->bytes + (address - piece->start);
	uint32_t before = headers_size(view, type, bytes);
	uint64_t size = pool_block_size(view, address - before);
	uint64_t wanted = before + body_size((struct view *)view, type, bytes, piece->end - address);

	/* pymalloc leaves a block that is made smaller by a quarter where it is. */
	if (size)
		return wanted <= size && (size - wanted < 16 + size / 4 || type->kind == KIND_FRAME || type->kind == KIND_GENERATOR);
	size = chunk_size(view, address - before);
	return size && wanted <= size;
}
