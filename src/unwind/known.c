/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "unwind_private.h"

/*
 * What was at an address, for the next stack that comes by: most frames of a stack are those of the one before, and what is
 * at an address takes a walk through the DWARF of a compilation unit. Forgotten when mappings are read anew.
 */

enum { PLACES_MAX = 4096, FRAMES_AT_ONCE_MAX = 64 };

struct known_frame {
	struct pl_native_frame frame; /* all but the name of the function last as long as libdwfl has the module */
	char *function;               /* copied */
};

struct taking {
	struct unwinder_known *known;
	size_t left;
	bool failed;
};

void unwinder_forget(struct unwinder_known *known)
{
	for (size_t i = 0; i < known->count; i++)
		free(known->frames[i].function);
	free(known->frames);
	pl_table_free(&known->places);
	*known = (struct unwinder_known){0};
}

static int take(void *context, const struct pl_native_frame *frame)
{
	struct taking *taking = context;
	struct unwinder_known *known = taking->known;
	struct known_frame *kept;

	if (!taking->left--)
		return 1;
	if (known->count == known->capacity) {
		size_t capacity = known->capacity ? 2 * known->capacity : 256;
		struct known_frame *frames = reallocarray(known->frames, capacity, sizeof(*frames));

		taking->failed = !frames;
		if (!frames)
			return 1;
		known->frames = frames;
		known->capacity = capacity;
	}
	kept = &known->frames[known->count];
	*kept = (struct known_frame){.frame = *frame};
	if (frame->function) {
		kept->function = strdup(frame->function);
		taking->failed = !kept->function;
		if (taking->failed)
			return 1;
		kept->frame.function = kept->function;
	}
	known->count++;
	return 0;
}

/* Where the frames of an address are, by number; false: out of memory. */
static bool find(struct pl_unwinder *unwinder, Dwfl_Module *module, uint64_t pc, size_t *ret_first, size_t *ret_count)
{
	struct unwinder_known *known = &unwinder->known;
	const struct pl_table_entry *kept = pl_table_find(&known->places, pc + 1);
	struct taking taking = {.known = known, .left = FRAMES_AT_ONCE_MAX};
	struct pl_table_entry *entry;

	if (!kept && known->places.count == PLACES_MAX)
		unwinder_forget(known);
	*ret_first = kept ? kept->value[0] : known->count;
	*ret_count = kept ? kept->value[1] : 0;
	if (kept)
		return true;
	(void)unwinder_look_up(unwinder, module, pc, take, &taking);
	*ret_count = known->count - *ret_first;
	entry = taking.failed ? NULL : pl_table_insert(&known->places, pc + 1);
	if (!entry)
		return false;
	entry->value[0] = *ret_first;
	entry->value[1] = *ret_count;
	return true;
}

int unwinder_visit(struct pl_unwinder *unwinder, Dwfl_Module *module, uint64_t pc, pl_unwind_visit visit, void *context)
{
	size_t first, count;
	int code = 0;

	if (!find(unwinder, module, pc, &first, &count))
		return unwinder_look_up(unwinder, module, pc, visit, context);
	for (size_t i = 0; code == 0 && i < count; i++)
		code = visit(context, &unwinder->known.frames[first + i].frame);
	return code;
}
