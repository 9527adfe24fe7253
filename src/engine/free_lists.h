/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_FREE_LISTS_H
#define PYLEAK_ENGINE_FREE_LISTS_H

#include "pyleak/hook.h"
#include "pyleak/inline_abi.h"
#include "pyleak/python.h"

/*
 * The tracer's part of the care for free lists (see struct pl_inline_free_lists): which types are
 * hooked, their copies, and where the lists are.
 */
struct free_lists {
	struct pl_python_free_lists known;
	uint64_t tracer; /* what the word of known.reference_tracer holds */
	struct {
		uint64_t dealloc, free; /* 0: this type is left alone */
		uint8_t bytes[PL_INLINE_TYPE_BYTES];
	} type[PL_PARKING_TYPES];
};

enum { FREE_LISTS_WORDS = 2 * PL_PARKING_TYPES };

/* Reads the types; the number of words to be hooked for them, by way of the landing page, whose rows are added. */
uint32_t free_lists_plan(const struct pl_python *python, const struct pl_inline_image *image, struct free_lists *lists,
	struct pl_landing *landing, struct pl_probe_word words[FREE_LISTS_WORDS]);
/* Right before planting, while the process runs: what cannot be proven is left alone. */
void free_lists_settle(const struct pl_python *python, struct free_lists *lists, struct pl_probe_plan *plan);
/* When it is known where the probe will be: the copies, and the probe's configuration. */
void free_lists_fill(const struct pl_python *python, const struct free_lists *lists, uint8_t *image, uint64_t base,
	struct pl_inline_free_lists *config);

#endif
