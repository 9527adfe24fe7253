/* SPDX-License-Identifier: MIT */
#include "view.h"

/*
 * A process can be stopped while one of its containers is resized: the new table is in place, and filled only then
 * (dictresize(), set_table_resize()), or realloc() has moved the items of a list, which does not know of it yet.
 */

enum { HEAD_READ = 24, KEYS_READ = 40, CHUNK = 16384 };

void torn_note(struct view *view, uint64_t address, uint64_t counted, uint64_t there)
{
	struct torn *torn = &view->torn;

	/* One that is put in or taken out at this moment may be counted before or after. */
	if (counted > there + 1 && torn->count < sizeof(torn->addresses) / sizeof(torn->addresses[0]))
		torn->addresses[torn->count++] = address;
}

static bool is_other(struct view *view, uint64_t address, uint64_t length)
{
	uint8_t now[CHUNK];

	for (uint64_t at = 0; at < length; at += CHUNK) {
		uint64_t size = length - at < CHUNK ? length - at : CHUNK;
		const uint8_t *then = image_at(view->image, address + at, size);

		if (!then)
			return false;
		/* What cannot be read any more has no better copy. */
		if (pl_space_read(view->image->space, address + at, now, size) < 0)
			return false;
		if (memcmp(now, then, size) != 0)
			return true;
	}
	return false;
}

bool torn_is_other_now(struct view *view)
{
	const uint64_t head = (uint64_t)view->layout.head;

	for (uint32_t i = 0; i < view->torn.count; i++) {
		const uint64_t address = view->torn.addresses[i];
		const uint8_t *object = image_at(view->image, address, head + 32);
		const struct type *type = object ? type_at(view, word_of(object, (uint64_t)view->python->layout.object_type)) : NULL;

		if (!type)
			continue;
		if (is_other(view, address + head, HEAD_READ))
			return true;
		/* Those may be the same before it is filled and after. */
		if (type->kind == KIND_DICT && is_other(view, word_of(object, head + 16), KEYS_READ))
			return true;
		if (type->kind == KIND_SET && word_of(object, head + 16) < UINT64_C(1) << 36 &&
			is_other(view, word_of(object, head + 24), (word_of(object, head + 16) + 1) * 16))
			return true;
	}
	return false;
}
