/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_NATIVE_PRIVATE_H
#define PYLEAK_ENGINE_NATIVE_PRIVATE_H

#include "native.h"
#include "pyleak/engine.h"

/* Between native.c (what is loaded) and native_choose.c (what of it is hooked). */

struct native_object {
	uint64_t start;
	uint32_t identity;
	bool open; /* some of its words could not be hooked yet */
	const char *allocator; /* that is linked in; NULL: none */
};

static inline struct native_object *native_find_object(const struct native *native, const struct pl_map *map)
{
	for (size_t i = 0; i < native->object_count; i++)
		if (native->objects[i].start == map->start && native->objects[i].identity == pl_map_identity(map))
			return &native->objects[i];
	return NULL;
}

/* The names of the functions that are asked for: how many, and which. The last ones are no symbols, but those of
 * enum arrow_function. */
size_t native_names(const char *names[PL_GOT_NAMES_MAX]);

/* Whether a function of this name maps memory. */
bool native_maps(uint32_t name);

/* Whether what a word holds leads to the probe, or to the landing page. */
static inline bool native_leads_to_us(const struct native *native, uint64_t value)
{
	return (value >= native->code && value < native->code_end) ||
	       pl_landing_row_at(&native->landing, value) < PL_LANDING_CAPACITY;
}

/* Adds the pointers in the data of the objects that were found to the words that were. 0 or -errno. */
int native_add_pointers(struct native *native, const struct pl_inline_image *image, const struct pl_maps *maps,
			struct pl_got *got);

/* Which of the words found are hooked, in order. An object with words left for later stays open. `libraries`: what is
 * done with each object's is counted there, by its place in got; paths are not set. */
int native_choose(struct native *native, const struct pl_maps *maps, const struct pl_got *got,
		  const struct pl_inline_image *image, struct pl_engine_library *libraries, struct pl_probe_word **ret,
		  uint32_t *ret_count);

#endif
