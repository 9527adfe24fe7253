/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_REPORT_FRAME_NUMBERS_H
#define PYLEAK_REPORT_FRAME_NUMBERS_H

#include <stddef.h>
#include <stdint.h>

#include "pyleak/stats.h"

/* The distinct frames of the stacks that a document is made of, numbered from 0 on: most formats
 * write each once, and stacks as numbers. */
struct frame_numbers {
	struct pl_frame *items; /* strings are those of the sites */
	size_t count, capacity;
	uint32_t *index; /* item + 1, or 0; twice as many as capacity */
};

/* The number of an equal frame, a new one if there is none. UINT32_MAX: out of memory. */
uint32_t frame_number(struct frame_numbers *numbers, const struct pl_frame *frame);
void frame_numbers_free(struct frame_numbers *numbers);

#endif
