/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>

#include "holders_private.h"
#include "pyleak/cleanup.h"
#include "pyleak/resident.h"

/*
 * Objects that are counted, and that nothing of Python's leads to: a library holds them. Where their addresses stand
 * somewhere in memory outside of objects, it still knows them; where they do not, nobody does, and nobody will ever let
 * go of them. A word can be stale, so what holds for most of a type's objects is said of all.
 */

static bool is_native(const struct analysis *analysis, uint32_t object)
{
	uint32_t root = analysis->roots.of[object];

	return root && analysis->roots.items[root - 1].kind == ROOT_NATIVE;
}

/* Marks those whose addresses stand in the words of a stretch of memory. */
static void mark_known(const struct analysis *analysis, const uint8_t *bytes, uint64_t length, uint8_t *known)
{
	for (uint64_t at = 0; at + 8 <= length; at += 8) {
		uint64_t word = word_of(bytes, at);
		uint32_t object;

		if (word < 1 << 20 || word % 8 || word >> 47)
			continue;
		object = image_object(analysis->view->image, word);
		if (object != NO_OBJECT && is_native(analysis, object))
			known[object / 8] |= (uint8_t)(1 << object % 8);
	}
}

/* All memory but the headers and bodies of objects. */
static void find_known(const struct analysis *analysis, uint8_t *known)
{
	struct view *view = analysis->view;
	uint32_t next = 1;

	for (size_t i = 0; i < view->image->count; i++) {
		const struct image_piece *piece = &view->image->pieces[i];
		uint64_t at = piece->start;

		while (next < view->count && view->addresses[next] < piece->end) {
			const struct type *type = type_of(view, next);
			const uint8_t *object = piece->bytes + (view->addresses[next] - piece->start);
			uint64_t begin = view->addresses[next] - headers_size(view, type, object);

			if (begin > at)
				mark_known(analysis, piece->bytes + (at - piece->start), begin - at, known);
			at = view->addresses[next] + body_size(view, type, object, piece->end - view->addresses[next]);
			at = (at + 7) & ~UINT64_C(7);
			next++;
		}
		if (at < piece->end)
			mark_known(analysis, piece->bytes + (at - piece->start), piece->end - at, known);
	}
}

int list_native(struct analysis *analysis, struct tally *tally, size_t limit, struct pl_holders *ret)
{
	struct view *view = analysis->view;
	const struct roots *roots = &analysis->roots;
	pl_autofree uint8_t *known = calloc(view->count / 8 + 1, 1);
	pl_autofree uint64_t *known_of = calloc(view->type_count + 1, sizeof(*known_of));
	size_t count = 0;
	int code = 0;

	if (!known || !known_of)
		return -ENOMEM;
	tally_clear(tally);
	for (uint32_t i = roots->reached_from_known; i < roots->reached; i++) {
		ret->native.size += view->sizes[roots->order[i]];
		ret->native.count++;
		if (is_native(analysis, roots->order[i])) {
			tally_add(tally, roots->order[i], analysis->retained[roots->order[i]]);
			count++;
		}
	}
	if (count)
		find_known(analysis, known);
	for (uint32_t i = 1; count && i < view->count; i++)
		known_of[view->type_of[i]] += known[i / 8] >> i % 8 & 1;

	for (size_t row = 0; code == 0 && row < limit; row++) {
		struct pl_held_type *rows = NULL, *grown;
		uint32_t best = 0;
		size_t got = 0;

		for (uint32_t type = 1; type < tally->types; type++)
			if (tally->size[type] > tally->size[best])
				best = type;
		if (!tally->count[best])
			break;

		bool unowned = 2 * known_of[best] < tally->count[best];
		const char *library = library_at(view, view->types[best].address);

		code = tally_rows(tally, 0, 1, &rows, &got);
		grown = code == 0 ? reallocarray(ret->native.types, row + 1, sizeof(*grown)) : NULL;
		if (grown) {
			ret->native.types = grown;
			grown[row] = rows[0];
			grown[row].unowned = unowned;
			grown[row].library = library[0] ? strdup(library) : NULL;
			ret->native.type_count = row + 1;
		} else {
			code = -ENOMEM;
		}
		free(rows);
	}
	return code;
}
