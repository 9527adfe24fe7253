/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "holders_private.h"
#include "pyleak/cleanup.h"
#include "pyleak/page.h"
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
static void mark_known(const struct analysis *analysis, const struct image_piece *piece, uint64_t start, uint64_t end,
	uint8_t *known)
{
	struct pool_map map = { .end = start };
	bool pool = false;

	for (uint64_t at = start - piece->start; at + 8 <= end - piece->start; at += 8) {
		uint64_t word;
		uint32_t object;

		if (piece->state[at / PL_PAGE] != PAGE_COPIED) {
			at = image_next(piece, at / PL_PAGE + 1) * PL_PAGE - 8;
			continue;
		}
		word = word_of(piece->bytes, at);
		if (word < 1 << 20 || word % 8 || word >> PL_ADDRESS_BITS)
			continue;
		object = image_object(analysis->view->image, word);
		if (object == NO_OBJECT || !is_native(analysis, object))
			continue;
		/* What was freed still has what it led to. Asked last: what is packed would be unpacked for it. */
		if (piece->start + at >= map.end)
			pool = pool_map(analysis->view, piece->start + at, &map);
		if (!pool || !pool_has_free(&map, piece->start + at))
			known[object / 8] |= (uint8_t)(1 << object % 8);
	}
}

/* All memory but the headers and bodies of objects. What is packed are numbers and texts. */
static void look_through(const struct analysis *analysis, uint8_t *known)
{
	struct view *view = analysis->view;
	uint32_t next = 1;

	for (size_t i = 0; i < view->image->count; i++) {
		const struct image_piece *piece = &view->image->pieces[i];
		uint64_t at = piece->start;

		while (next < view->count && address_of(view, next) < piece->end) {
			const struct type *type = type_of(view, next);
			const uint8_t *object = piece->bytes + (address_of(view, next) - piece->start);
			uint64_t begin = address_of(view, next) - headers_size(view, type, object);

			if (begin > at)
				mark_known(analysis, piece, at, begin, known);
			at = address_of(view, next) + body_size(view, type, object, piece->end - address_of(view, next));
			at = (at + 7) & ~UINT64_C(7);
			next++;
		}
		if (at < piece->end)
			mark_known(analysis, piece, at, piece->end, known);
	}
}

int find_known(struct analysis *analysis)
{
	const struct roots *roots = &analysis->roots;

	analysis->known = calloc(analysis->view->count / 8 + 1, 1);
	if (!analysis->known)
		return -ENOMEM;
	if (roots->reached > roots->reached_from_known)
		look_through(analysis, analysis->known);
	return 0;
}

/* A type of the interpreter's own says nothing of whose mistake it is. */
static bool is_interpreter(const char *library)
{
	return strncmp(library, "libpython", 9) == 0 || strncmp(library, "python", 6) == 0;
}

/* What one of them is, where that can be said in a few words. */
static char *sample_of(struct view *view, uint32_t object)
{
	const struct type *type = type_of(view, object);
	char *text = NULL;
	size_t length = 0;
	FILE *stream;

	if (type->kind != KIND_TEXT && type->kind != KIND_INT && type->kind != KIND_TUPLE)
		return strdup("");
	stream = open_memstream(&text, &length);
	if (!stream)
		return NULL;
	print_value(stream, view, address_of(view, object), 0);
	if (fclose(stream) == 0)
		return text;
	free(text);
	return NULL;
}

int list_native(struct analysis *analysis, struct tally *tally, size_t limit, struct pl_holders *ret)
{
	struct view *view = analysis->view;
	const struct roots *roots = &analysis->roots;
	pl_autofree uint64_t *known_of = calloc(view->type_count + 1, sizeof(*known_of));
	size_t count = 0;
	int code = 0;

	if (!known_of)
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
	for (uint32_t i = 1; count && i < view->count; i++)
		known_of[view->type_of[i]] += analysis->known[i / 8] >> i % 8 & 1;

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
		uint32_t first = tally->first[best];

		code = tally_rows(tally, 0, 1, &rows, &got);
		grown = code == 0 ? reallocarray(ret->native.types, row + 1, sizeof(*grown)) : NULL;
		if (grown) {
			ret->native.types = grown;
			grown[row] = rows[0];
			grown[row].unowned = unowned;
			grown[row].library = library[0] && !is_interpreter(library) ? strdup(library) : NULL;
			free(grown[row].sample);
			grown[row].sample = sample_of(view, first);
			if (!grown[row].sample)
				code = -ENOMEM;
			ret->native.type_count = row + 1;
		} else {
			code = -ENOMEM;
		}
		free(rows);
	}
	return code;
}
