/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>

#include "pyleak/resident.h"
#include "view.h"

enum {
	COLLECTED_NEXT_MASK = 3, /* flags in the collector's links */
	GROWTH = 1 << 16,
	OLD_TRACKED = -2,        /* gc_refs of an object that is not tracked, up to 3.7 */
	LOCAL_AT = 12, SHARED_AT = 16, /* PyObject without a GIL: ob_ref_local, ob_ref_shared */
	LOCK_AT = 10, LOCK_MAX = 3,    /* ob_mutex */
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

/* The collector's links before an object: a neighbour that does not link back shows that it is none. */
static bool is_linked(struct view *view, const uint8_t *header, uint64_t address)
{
	uint64_t next = word_of(header, 0) & ~(uint64_t)COLLECTED_NEXT_MASK, back;

	if (view->python->minor <= 7) {
		int64_t state = (int64_t)word_of(header, 16);

		if (view->layout.collector == 32 && (state >> 1 == OLD_TRACKED || state == OLD_TRACKED))
			return true;
	}
	if (!next)
		return true;
	back = image_word(view->image, next + 8);
	return (back & ~(uint64_t)COLLECTED_NEXT_MASK) == address;
}

/* Without a GIL: a word that is a thread's address or 0, two bytes of flags, a lock, and bits. */
static bool has_plain_header(const uint8_t *object)
{
	return word_of(object, 0) % 8 == 0 && word_of(object, 0) >> 47 == 0 && object[LOCK_AT] <= LOCK_MAX;
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
	if (!type || piece->end - piece->start - offset < type->basic_size)
		return NULL;
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
	uint64_t *addresses = reallocarray(view->addresses, capacity, sizeof(*addresses));
	uint32_t *types, *sizes;

	if (addresses)
		view->addresses = addresses;
	types = reallocarray(view->type_of, capacity, sizeof(*types));
	if (types)
		view->type_of = types;
	sizes = reallocarray(view->sizes, capacity, sizeof(*sizes));
	if (sizes)
		view->sizes = sizes;
	return addresses && types && sizes ? (int)capacity : -ENOMEM;
}

static uint32_t rounded(uint64_t size)
{
	size = (size + 15) & ~UINT64_C(15);
	return size < UINT32_MAX ? (uint32_t)size : UINT32_MAX;
}

/* All objects of a piece, from its start on; behind one the next place is looked at. */
static int look_through(struct view *view, struct image_piece *piece, uint32_t *capacity, uint32_t most)
{
	const uint32_t limit = most < UINT32_MAX - view->count ? view->count + most : UINT32_MAX;
	const uint64_t length = piece->end - piece->start, head = (uint64_t)view->layout.head;
	const uint64_t step = piece->file || view->python->minor <= 7 ? 8 : 16;

	for (uint64_t at = 0; at + head <= length && view->count < limit; at += step) {
		struct type *type;
		uint64_t size;

		if (piece->state[at / PL_PAGE] != PAGE_COPIED) {
			at = (at / PL_PAGE + 1) * PL_PAGE - step;
			continue;
		}
		type = object_at(view, piece, at);
		size = type ? body_size(view, type, piece->bytes + at, length - at) : 0;
		if (!size)
			continue;
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
		view->addresses[view->count] = piece->start + at;
		view->type_of[view->count] = (uint32_t)(type - view->types);
		view->sizes[view->count] = rounded(size + headers_size(view, type, piece->bytes + at));
		view->count++;
		at = ((at + size + step - 1) & ~(step - 1)) - step;
	}
	return 0;
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

	view->count = 0;
	if (code == 0)
		code = grow(view);
	if (code < 0)
		return code;
	capacity = (uint32_t)code;
	view->addresses[0] = 0;
	view->type_of[0] = 0;
	view->sizes[0] = 0;
	view->count = 1;
	code = view->python->free_threaded ? 0 : try_blocks(view, &capacity);
	view->count = 1;
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
