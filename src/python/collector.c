/* SPDX-License-Identifier: MIT */
#include "pyleak/collector.h"

#include <string.h>

#include "pyleak/heap_layout.h"
#include "pyleak/space.h"

/*
 * struct _gc_runtime_state (Include/internal/pycore_gc.h, pycore_interp_structs.h from 3.14 on), from `enabled` on: debug,
 * three generations of 24 bytes, the youngest's address (up to 3.13 with a GIL), the permanent one, and statistics of each,
 * three words, of which the first is how often it was collected. The oldest's are those of full collections.
 */
enum {
	GENERATIONS = 3,
	GENERATION_BYTES = 24,
	FROM_ENABLED = 8, /* to the generations, but for the alignment */
	THRESHOLD = 16, /* in a generation, behind the two links */
	FULL = GENERATION_BYTES + (GENERATIONS - 1) * 24, /* from the permanent one */
	LINK_FLAGS = 3,
	FIRST_LIMITED = 8,
	TRIES = 3,
	FIRST_COUNTED = 8, LAST_COUNTED = 13,
};

/* Up to 3.7 the links have another size. */
static void read_generations(const struct pl_python *python, uint64_t generations, struct pl_collector *ret)
{
	const uint64_t permanent = pl_collector_permanent(generations, python->minor);
	uint8_t bytes[GENERATIONS * GENERATION_BYTES];
	uint64_t first;

	if (python->minor < FIRST_LIMITED || pl_space_read(python->space, generations, bytes, sizeof(bytes)) < 0)
		return;
	ret->limited = true;
	for (size_t i = 0; i < GENERATIONS; i++)
		memcpy(&ret->thresholds[i], bytes + i * GENERATION_BYTES + THRESHOLD, sizeof(ret->thresholds[i]));
	if (python->free_threaded || pl_space_read_u64(python->space, permanent, &first) < 0)
		return;
	ret->listed = true;
	ret->frozen = (first & ~(uint64_t)LINK_FLAGS) != permanent;
}

/* The list of a generation leads back to it. */
static bool is_list(const struct pl_python *python, uint64_t head)
{
	uint64_t next, back;

	return pl_space_read_u64(python->space, head, &next) == 0 &&
	       pl_space_read_u64(python->space, (next & ~(uint64_t)LINK_FLAGS) + 8, &back) == 0 &&
	       (back & ~(uint64_t)LINK_FLAGS) == head;
}

/* A list may be at work just now. 0: not found. */
static uint64_t find_generations(const struct pl_python *python, uint64_t at)
{
	const uint64_t places[] = {pl_collector_aligned(at), at};

	if (python->free_threaded || python->minor < FIRST_LIMITED)
		return places[0];
	for (int i = 0; i < 2 * TRIES; i++)
		if (is_list(python, places[i % 2] + GENERATION_BYTES) && is_list(python, places[i % 2] + 2 * (uint64_t)GENERATION_BYTES))
			return places[i % 2];
	return 0;
}

void pl_collector_read(const struct pl_python *python, struct pl_collector *ret)
{
	struct pl_heap_layout layout;
	uint64_t at, full, generations;
	uint32_t enabled;

	memset(ret, 0, sizeof(*ret));
	if (pl_heap_layout(python, &layout) < 0 || !layout.collector_enabled)
		return;
	if (layout.collector_in_runtime)
		at = python->runtime;
	else if (pl_space_read_u64(python->space, python->interpreters_head, &at) < 0)
		return;
	at += (uint64_t)layout.collector_enabled;
	if (!at || pl_space_read(python->space, at, &enabled, sizeof(enabled)) < 0 || enabled > 1)
		return;
	ret->known = true;
	ret->enabled = enabled;
	generations = find_generations(python, at + FROM_ENABLED);
	if (!generations)
		return;
	read_generations(python, generations, ret);
	if (python->free_threaded || python->minor < FIRST_COUNTED || python->minor > LAST_COUNTED ||
		pl_space_read_u64(python->space, pl_collector_permanent(generations, python->minor) + FULL, &full) < 0)
		return;
	ret->counted = true;
	ret->full = full;
}
