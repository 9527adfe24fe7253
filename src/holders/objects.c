/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>

#include "edges.h"
#include "pyleak/resident.h"

enum {
	COLLECTED_FLAGS = 3,     /* in the collector's links */
	COLLECTING = 2, COLLECTED_SHIFT = 2, /* _PyGC_PREV_MASK_COLLECTING; 3.8+ */
	GROWTH = 1 << 16,
	OLD_TRACKED = -2,        /* gc_refs of an object that is not tracked, up to 3.7 */
	LOCAL_AT = 12, SHARED_AT = 16, /* PyObject without a GIL: ob_ref_local, ob_ref_shared */
	LOCK_AT = 10, LOCK_MAX = 3,    /* ob_mutex */
	BITS_AT = 11, TRACKED = 1,     /* ob_gc_bits */
	PROGRAM_MIN = 1 << 20,
	HEADER_STEP = 16,
	TRIED = 20000,           /* objects, to see whether blocks are known */
};
#define COUNT_MAX (INT64_C(1) << 30)

int64_t references_of(const struct view *view, const uint8_t *object)
{
	uint64_t word = word_of(object, 0);

	if (view->python->free_threaded) {
		uint32_t local = half_of(object, LOCAL_AT);
		int64_t shared = (int64_t)word_of(object, SHARED_AT) >> 2, sum = (int64_t)local + shared;

		if (local == UINT32_MAX)
			return REFERENCES_IMMORTAL;
		/* Counted elsewhere too (deferred): only the collector frees it. */
		if (shared > INT64_MAX >> 8)
			return shared - (INT64_MAX >> 3) + local > -COUNT_MAX ? COUNT_MAX : 0;
		return sum > 0 && sum < COUNT_MAX ? sum : 0;
	}
	if (view->python->minor >= 14) {
		/* ob_refcnt in the low half, ob_overflow and ob_flags above. */
		if ((int32_t)word < 0)
			return REFERENCES_IMMORTAL;
		return (word >> 32 & 0xffff) == 0 ? (int64_t)(uint32_t)word : 0;
	}
	if (view->python->minor >= 12 && word >> 32 == 0 && (int32_t)word < 0)
		return REFERENCES_IMMORTAL;
	return word < (uint64_t)COUNT_MAX ? (int64_t)word : 0;
}

/*
 * 3.8+, where the process was stopped within a collection (deduce_unreachable() in Modules/gcmodule.c, Python/gc.c from 3.13
 * on): the link back is a count of what is left of the object's references while it is not known to be reached; what has been
 * gone through has its link back again, before its neighbour has.
 */
static bool is_collected_now(struct view *view, const uint8_t *header, uint64_t address, uint64_t back_of_next)
{
	uint64_t previous = word_of(header, 8), left = previous >> COLLECTED_SHIFT;

	if (view->python->minor <= 7)
		return false;
	if ((previous & COLLECTING) && (back_of_next & COLLECTING) &&
		left <= (uint64_t)references_of(view, header + view->layout.collector))
		return true;
	previous &= ~(uint64_t)COLLECTED_FLAGS;
	return previous && (image_word(view->image, previous) & ~(uint64_t)COLLECTED_FLAGS) == address;
}

/* The collector's links before an object: a neighbour that does not link back shows that it is none. */
static bool is_linked(struct view *view, const uint8_t *header, uint64_t address)
{
	uint64_t next = word_of(header, 0) & ~(uint64_t)COLLECTED_FLAGS, back;

	if (view->python->minor <= 7) {
		int64_t state = (int64_t)word_of(header, 16);

		if (view->layout.collector == 32 && (state >> 1 == OLD_TRACKED || state == OLD_TRACKED))
			return true;
	}
	if (!next)
		return true;
	back = image_word(view->image, next + 8);
	return (back & ~(uint64_t)COLLECTED_FLAGS) == address || is_collected_now(view, header, address, back);
}

/* Without a GIL: a word that is a thread's address or 0, two bytes of flags, a lock, and bits. While the collector is at work
 * (Python/gc_free_threading.c), the word of what it tracks is a count, which is below 0 until the object's own turn has come. */
static bool is_counted_now(const uint8_t *object)
{
	const int64_t word = (int64_t)word_of(object, 0);

	return (object[BITS_AT] & TRACKED) && word > -COUNT_MAX && word < COUNT_MAX;
}

static bool has_plain_header(const uint8_t *object)
{
	return object[LOCK_AT] <= LOCK_MAX && ((word_of(object, 0) % 8 == 0 && word_of(object, 0) >> PL_ADDRESS_BITS == 0) || is_counted_now(object));
}

/* Key and value in a dict's table look like a count and a type, where a program that is not position-independent has its texts
 * at addresses as low as a count can be. */
static bool is_pair(struct view *view, uint64_t count)
{
	return count >= PROGRAM_MIN && count % 8 == 0 &&
		type_at(view, image_word(view->image, count + (uint64_t)view->python->layout.object_type));
}

/* What lies in a piece of heap at an offset: an object, then its type. */
static struct type *object_at(struct view *view, const struct image_piece *piece, uint64_t offset)
{
	const uint8_t *object = piece->bytes + offset;
	struct type *type;
	uint32_t before;

	if (!references_of(view, object) || (view->python->free_threaded && !has_plain_header(object)))
		return NULL;
	type = type_at(view, word_of(object, (uint64_t)view->python->layout.object_type));
	if (!type || piece->end - piece->start - offset < least_size(view, type))
		return NULL;
	if (view->python->free_threaded && word_of(object, 0) % 8 && !(type->flags & FLAG_COLLECTED))
		return NULL;
	if (!view->python->free_threaded && is_pair(view, word_of(object, 0)))
		return NULL;
	type = type_at(view, word_of(object, (uint64_t)view->python->layout.object_type));
	/* From 3.12 on all that is part of a program never ends. A small number before a type is a pair in a table there. */
	if (view->python->minor >= 12 && is_static(piece, piece->start + offset) &&
		references_of(view, object) != REFERENCES_IMMORTAL && type->kind != KIND_TYPE)
		return NULL;
	if (type->kind == KIND_TYPE && !type_at(view, piece->start + offset))
		return NULL;
	type = type_at(view, word_of(object, (uint64_t)view->python->layout.object_type));
	/* What is part of the program and never ends may have no header. */
	if (!has_collector(view, type, object) ||
		(is_static(piece, piece->start + offset) && references_of(view, object) == REFERENCES_IMMORTAL))
		return type;
	before = (uint32_t)view->layout.collector;
	if (offset < before)
		return NULL;
	return is_linked(view, object - before, piece->start + offset - before) ? type : NULL;
}

static int grow(struct view *view)
{
	uint32_t capacity = view->count + (view->count / 2 > GROWTH ? view->count / 2 : GROWTH);
	uint32_t *types, *sizes;
	uint8_t *rest;

	types = reallocarray(view->type_of, capacity, sizeof(*types));
	if (types)
		view->type_of = types;
	sizes = reallocarray(view->sizes, capacity, sizeof(*sizes));
	if (sizes)
		view->sizes = sizes;
	rest = reallocarray(view->rest, capacity, sizeof(*rest));
	if (rest)
		view->rest = rest;
	return types && sizes && rest ? (int)capacity : -ENOMEM;
}

/* Of the object that is found now. */
static int set_rest(struct view *view, const uint8_t *object)
{
	int64_t count = references_of(view, object);
	struct pl_table_entry *entry;

	view->rest[view->count] = count == REFERENCES_IMMORTAL ? REST_IMMORTAL : count >= REFERENCES_WILD ? REST_UNKNOWN :
		count >= REST_MANY ? REST_MANY : (uint8_t)count;
	if (view->rest[view->count] != REST_MANY)
		return 0;
	entry = pl_table_insert(&view->many, view->count);
	if (!entry)
		return -ENOMEM;
	entry->value[0] = (uint64_t)count;
	return 0;
}

static uint32_t rounded(uint64_t size)
{
	size = (size + 15) & ~UINT64_C(15);
	return size < UINT32_MAX ? (uint32_t)size : UINT32_MAX;
}

/* Where nothing tells blocks from what was freed: a text that was moved away when it grew lies there still, as large as it was,
 * and objects have come to lie in it. In one that is alive there are none. */
static bool is_left_behind(struct view *view, const struct image_piece *piece, uint64_t at, uint64_t size)
{
	const uint64_t head = (uint64_t)view->layout.head, end = at + size;

	for (at += (head + HEADER_STEP - 1) & ~(uint64_t)(HEADER_STEP - 1); at + head <= end; at += HEADER_STEP) {
		if (piece->state[at / PL_PAGE] != PAGE_COPIED)
			at = image_next(piece, at / PL_PAGE + 1) * PL_PAGE - HEADER_STEP;
		else if (object_at(view, piece, at))
			return true;
	}
	return false;
}

/* All objects of a piece, from its start on; behind one the next place is looked at. */
static int look_through(struct view *view, struct image_piece *piece, uint32_t *capacity, uint32_t most)
{
	const uint32_t limit = most < UINT32_MAX - view->count ? view->count + most : UINT32_MAX;
	const uint64_t length = piece->end - piece->start, head = (uint64_t)view->layout.head;
	const uint64_t step = piece->file || view->python->minor <= 7 ? 8 : 16;
	struct image_filling filling = { .piece = NULL };

	for (uint64_t at = 0; at + head <= length && view->count < limit; at += step) {
		struct type *type;
		uint64_t size;

		if (piece->state[at / PL_PAGE] != PAGE_COPIED) {
			at = image_next(piece, at / PL_PAGE + 1) * PL_PAGE - step;
			continue;
		}
		type = object_at(view, piece, at);
		size = type ? body_size(view, type, piece->bytes + at, length - at) : 0;
		if (!size)
			continue;
		if (view->python->free_threaded && size > 2 * head && edges_none(type)) {
			uint32_t place = (uint32_t)(type - view->types);

			if (is_left_behind(view, piece, at, size))
				continue;
			type = &view->types[place];
		}
		if (!is_static(piece, piece->start + at) && !fills_block(view, piece, piece->start + at, type)) {
			view->no_blocks++;
			if (view->blocks_known)
				continue;
		}
		if (view->count == *capacity) {
			int code = grow(view);

			if (code < 0)
				return code;
			*capacity = (uint32_t)code;
		}
		image_mark(piece, piece->start + at);
		if (place_object(view, piece, piece->start + at) < 0 || set_rest(view, piece->bytes + at) < 0)
			return -ENOMEM;
		view->type_of[view->count] = (uint32_t)(type - view->types);
		view->sizes[view->count] = rounded(size + headers_size(view, type, piece->bytes + at));
		view->count++;
		/* Numbers and texts refer to nothing, and are asked for again only where one is named. */
		if (most == UINT32_MAX)
			image_fill(view->image, &filling, piece, piece->start + at, piece->start + ((at + size + 15) & ~UINT64_C(15)),
				edges_none(type));
		at = ((at + size + step - 1) & ~(step - 1)) - step;
	}
	return image_fill_end(view->image, &filling);
}

/* Where nearly all objects fill blocks of an allocator that is known, what does not is no object. */
static int try_blocks(struct view *view, uint32_t *capacity)
{
	uint32_t all = 0;
	int code = 0;

	view->no_blocks = 0;
	for (size_t i = 0; code == 0 && i < view->image->count && all < TRIED; i++) {
		struct image_piece *piece = &view->image->pieces[i];

		view->count = 1;
		view->pages->count = 1;
		if (!piece->stack && !piece->file && piece->static_end <= piece->start)
			code = look_through(view, piece, capacity, TRIED - all);
		all += view->count - 1;
	}
	view->blocks_known = all && view->no_blocks < all / 20;
	for (size_t i = 0; i < view->image->count; i++)
		image_unmark(&view->image->pieces[i]);
	return code;
}

int objects_find(struct view *view)
{
	uint32_t capacity = 0;
	int code = image_marks(view->image);

	/* An earlier graph of the same image may have packed it. */
	image_unpack_all(view->image);
	view->count = 0;
	view->pages = calloc(1, sizeof(*view->pages));
	if (code == 0 && !view->pages)
		code = -ENOMEM;
	if (code == 0)
		code = grow(view);
	if (code < 0)
		return code;
	capacity = (uint32_t)code;
	view->rest[0] = 0;
	code = place_object(view, NULL, 0);
	if (code < 0)
		return code;
	view->type_of[0] = 0;
	view->sizes[0] = 0;
	view->count = 1;
	code = view->python->free_threaded ? 0 : try_blocks(view, &capacity);
	view->count = 1;
	view->pages->count = 1;
	for (size_t i = 0; code == 0 && i < view->image->count; i++)
		if (!view->image->pieces[i].stack)
			code = look_through(view, &view->image->pieces[i], &capacity, UINT32_MAX);
	if (code == 0 && view->failed)
		code = -ENOMEM;
	if (code == 0)
		(void)image_number(view->image, 1);
	view->numbered = code == 0;
	for (uint32_t i = 0; code == 0 && i < view->type_count; i++)
		view->types[i].object = image_object(view->image, view->types[i].address);
	return code;
}
