/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_FRAME_NUMBERS_H
#define PYLEAK_FRAME_NUMBERS_H

#include <stddef.h>
#include <stdint.h>

#include "pyleak/stats.h"

/* The distinct frames of many stacks, numbered from 0 on: files and documents write each frame once, and
 * stacks as numbers. */
struct pl_frame_numbers {
	struct pl_frame *items; /* strings are those of the sites */
	size_t count, capacity;
	uint32_t *index; /* item + 1, or 0; twice as many as capacity */
};

/* The number of an equal frame, a new one if there is none. UINT32_MAX: out of memory. */
uint32_t pl_frame_number(struct pl_frame_numbers *numbers, const struct pl_frame *frame);
/* The same, and UINT32_MAX if there is none. */
uint32_t pl_frame_number_find(const struct pl_frame_numbers *numbers, const struct pl_frame *frame);
void pl_frame_numbers_free(struct pl_frame_numbers *numbers);

#endif
