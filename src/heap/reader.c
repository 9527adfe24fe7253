/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>

#include "heap_private.h"
#include "pyleak/units.h"

enum { ARENA_TRIES = 32, SAME_TRIES = 8 };
#define TRY_PAUSE_NSEC 2000000

static bool same_maps(const struct pl_maps *a, const struct pl_maps *b)
{
	bool same = a->count == b->count;

	for (size_t i = 0; same && i < a->count; i++)
		same = a->items[i].start == b->items[i].start && a->items[i].end == b->items[i].end;
	return same;
}

/* A process that is importing maps arenas all the time: one that is younger than the maps is in none of them, and then
 * the whole array looks like none. So there are no arenas only if the mappings were the same before and after. */
static int find_arenas(struct pl_heap_reader *reader)
{
	struct pl_space *space = reader->python->space;
	struct pl_maps maps = {0}, after = {0};
	int code = pl_space_maps(space, &maps), same = 0;

	for (int tries = 0; code == 0 && tries < ARENA_TRIES; tries++) {
		arenas_find(reader, &maps);
		if (reader->arena_word_count || reader->python->free_threaded)
			break;
		code = pl_space_maps(space, &after);
		/* An entry that is being changed may be torn, too. */
		same = code == 0 && same_maps(&maps, &after) ? same + 1 : 0;
		if (same == SAME_TRIES)
			break;
		pl_sleep_ns(TRY_PAUSE_NSEC);
		pl_maps_free(&maps);
		maps = after;
		after = (struct pl_maps){0};
	}
	pl_maps_free(&maps);
	pl_maps_free(&after);
	return code;
}

int pl_heap_open(const struct pl_python *python, struct pl_heap_reader **ret)
{
	struct pl_heap_reader *reader = calloc(1, sizeof(*reader));
	int code;

	if (!reader)
		return -ENOMEM;
	reader->python = python;
	/* Whether that can be had, before anything else. */
	code = pl_space_pages(python->space, (struct pl_range){0, 0}, NULL);
	if (code == 0)
		code = find_arenas(reader);
	if (code < 0) {
		free(reader);
		return code;
	}
	*ret = reader;
	return 0;
}

void pl_heap_close(struct pl_heap_reader *reader)
{
	free(reader);
}
