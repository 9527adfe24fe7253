/* SPDX-License-Identifier: MIT */
#include "places.h"

#include <stdlib.h>
#include <string.h>

#include "members.h"
#include "pyleak/units.h"

enum { PLACES_SHOWN = 4, LEAST_SHOWN = 64 << 10 };

static const struct {
	const char *key, *before, *after;
} kinds[PL_PLACE_KINDS] = {
	[PL_PLACE_FILE] = {"file", "mapped file ", "; the kernel can drop this, and read it again"},
	[PL_PLACE_SHARED] = {"shared", "shared memory ", "; the kernel cannot drop this"},
	[PL_PLACE_DATA] = {"data", "data of ", ""},
	[PL_PLACE_OWN] = {"own", "memory of its own ", ""},
	[PL_PLACE_LARGE] = {"large", "large blocks of malloc from before the recording", ", used only now"},
};

void places_print(FILE *out, const struct pl_report *report, int64_t least)
{
	const struct pl_places_growth *growth = &report->places;

	if (least < LEAST_SHOWN)
		least = LEAST_SHOWN;
	for (size_t i = 0; i < growth->count && i < PLACES_SHOWN; i++) {
		const struct pl_place *place = &growth->items[i];
		const char *name = place->kind == PL_PLACE_LARGE ? "" :
				   place->kind == PL_PLACE_OWN && !place->name[0] ? "that no hooked allocator gave out" : place->name;
		char size[PL_SIZE_TEXT];

		if (llabs(place->size) < least)
			break;
		pl_format_size(place->size, true, size);
		(void)fputs(kinds[place->kind].before, out);
		pl_text_print(out, name);
		(void)fprintf(out, ": %s%s\n", size, place->size > 0 ? kinds[place->kind].after : "");
	}
}

void touched_print(FILE *out, const struct pl_report *report, int64_t least)
{
	int64_t limit = INT64_MAX;

	if (least < LEAST_SHOWN)
		least = LEAST_SHOWN;
	for (int shown = 0; report->touched && shown < PLACES_SHOWN; shown++) {
		const struct pl_row *row = NULL;
		int64_t most = least - 1;
		char size[PL_SIZE_TEXT];

		for (size_t i = 0; i < report->rows->count; i++)
			if (report->touched[i] > most && report->touched[i] < limit) {
				most = report->touched[i];
				row = &report->rows->items[i];
			}
		if (!row)
			break;
		limit = most;
		pl_format_size(most, true, size);
		(void)fputs("used only now: ", out);
		pl_text_print(out, row->filename);
		if (row->line)
			(void)fprintf(out, ":%d", row->line);
		(void)fprintf(out, ": %s of blocks that it had allocated before\n", size);
	}
}

json_t *places_make(const struct pl_report *report)
{
	json_t *list = json_array();
	bool failed = !list;

	for (size_t i = 0; i < report->places.count && !failed; i++) {
		const struct pl_place *place = &report->places.items[i];
		json_t *item = json_object();

		failed |= put_string(item, "kind", kinds[place->kind].key);
		failed |= put_string(item, "name", place->name);
		failed |= put_integer(item, "size", place->size);
		failed |= put(item, "droppable", json_boolean(place->kind == PL_PLACE_FILE));
		failed |= json_array_append_new(list, item) < 0;
	}
	if (!failed)
		return list;
	json_decref(list);
	return NULL;
}
