/* SPDX-License-Identifier: MIT */
#include "pyleak/collector.h"

#include <string.h>

#include "pyleak/heap_layout.h"
#include "pyleak/memory.h"

/*
 * struct _gc_runtime_state (Include/internal/pycore_gc.h, pycore_interp_structs.h from 3.14 on), from `enabled` on: debug,
 * three generations of 24 bytes, the youngest's address (up to 3.13 with a GIL), the permanent one, and statistics of each,
 * three words, of which the first is how often it was collected. The oldest's are those of full collections.
 */
enum {
	GENERATIONS = 3,
	GENERATION_BYTES = 24,
	FROM_ENABLED = 12, /* to the generations */
	FULL = FROM_ENABLED + (GENERATIONS + 1) * GENERATION_BYTES + 8 + (GENERATIONS - 1) * 24,
	FIRST_COUNTED = 8, LAST_COUNTED = 13,
};

void pl_collector_read(const struct pl_python *python, struct pl_collector *ret)
{
	struct pl_heap_layout layout;
	uint64_t at, full;
	uint32_t enabled;

	memset(ret, 0, sizeof(*ret));
	if (pl_heap_layout(python, &layout) < 0 || !layout.collector_enabled)
		return;
	if (layout.collector_in_runtime)
		at = python->runtime;
	else if (pl_memory_read_u64(python->pid, python->interpreters_head, &at) < 0)
		return;
	at += (uint64_t)layout.collector_enabled;
	if (!at || pl_memory_read(python->pid, at, &enabled, sizeof(enabled)) < 0 || enabled > 1)
		return;
	ret->known = true;
	ret->enabled = enabled;
	if (python->free_threaded || python->minor < FIRST_COUNTED || python->minor > LAST_COUNTED ||
		pl_memory_read_u64(python->pid, at + FULL, &full) < 0)
		return;
	ret->counted = true;
	ret->full = full;
}
