/* SPDX-License-Identifier: MIT */
#include "places.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FRAMES 128

struct place_code {
	struct pl_code code;
	const char *filename, *function; /* interned in the sites */
	uint32_t number;                 /* never used again, unlike the address */
};

void pl_places_init(struct pl_places *places, const struct pl_python *python, struct pl_sites *sites)
{
	const char *unknown = sites ? pl_sites_string(sites, "<unknown>") : NULL;

	*places = (struct pl_places){.python = python, .sites = sites, .nowhere = {unknown, unknown, 0}};
}

static void place_code_free(struct place_code *place)
{
	pl_code_free(&place->code);
	free(place);
}

void pl_places_free(struct pl_places *places)
{
	for (size_t i = 0; places->codes.entries && i <= places->codes.mask; i++)
		if (places->codes.entries[i].key)
			place_code_free((struct place_code *)places->codes.entries[i].value[0]);
	for (size_t i = 0; places->frames.entries && i <= places->frames.mask; i++)
		if (places->frames.entries[i].key)
			free((void *)places->frames.entries[i].value[0]);
	pl_table_free(&places->codes);
	pl_table_free(&places->frames);
}

static struct place_code *read_code(struct pl_places *places, uint64_t address)
{
	struct place_code *place = calloc(1, sizeof(*place));

	if (!place)
		return NULL;
	if (pl_python_code_read(places->python, address, &place->code) < 0)
		memset(&place->code, 0, sizeof(place->code)); /* not a code object: an unknown place */
	place->filename = pl_sites_string(places->sites, place->code.filename ? place->code.filename : "<unknown>");
	place->function = pl_sites_string(places->sites, place->code.name ? place->code.name : "<unknown>");
	place->number = ++places->next_code;
	if (place->filename && place->function)
		return place;
	place_code_free(place);
	return NULL;
}

static struct place_code *find_code(struct pl_places *places, uint64_t address)
{
	struct pl_table_entry *entry = pl_table_insert(&places->codes, address);

	if (!entry)
		return NULL;
	if (!entry->value[0]) {
		struct place_code *place = read_code(places, address);

		if (!place) {
			(void)pl_table_remove(&places->codes, address, NULL);
			return NULL;
		}
		entry->value[0] = (uint64_t)place;
	}
	return (struct place_code *)entry->value[0];
}

static const struct pl_frame *find_frame(struct pl_places *places, const struct pl_frame_ref *ref)
{
	struct place_code *place = ref->code ? find_code(places, ref->code) : NULL;

	if (!place)
		return &places->nowhere;

	uint64_t key = (uint64_t)place->number << 32 | (uint32_t)ref->offset;
	struct pl_table_entry *entry = pl_table_insert(&places->frames, key);

	if (!entry)
		return &places->nowhere;
	if (!entry->value[0]) {
		struct pl_frame *frame = malloc(sizeof(*frame));

		if (!frame) {
			(void)pl_table_remove(&places->frames, key, NULL);
			return &places->nowhere;
		}
		*frame = (struct pl_frame){
			.filename = place->filename,
			.function = place->function,
			.line = pl_line_lookup(places->python->minor, place->code.line_table,
				place->code.line_table_size, place->code.first_line, ref->offset),
		};
		entry->value[0] = (uint64_t)frame;
	}
	return (const struct pl_frame *)entry->value[0];
}

uint32_t pl_places_site(struct pl_places *places, const struct pl_frame_ref *stack, size_t count, bool more)
{
	struct pl_frame frames[MAX_FRAMES];

	if (count > MAX_FRAMES)
		count = MAX_FRAMES;
	for (size_t i = 0; i < count; i++)
		frames[i] = *find_frame(places, &stack[i]);
	return pl_sites_intern(places->sites, PL_SITE_PYTHON, frames, count, more);
}

void pl_places_forget(struct pl_places *places, uint64_t address)
{
	struct pl_table_entry entry;

	/* The frames stay: their key has a number that no other code object will get. */
	if (pl_table_remove(&places->codes, address, &entry))
		place_code_free((struct place_code *)entry.value[0]);
}
