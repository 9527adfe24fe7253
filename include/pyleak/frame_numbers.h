/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_FRAME_NUMBERS_H
#define PYLEAK_FRAME_NUMBERS_H

#include <stddef.h>
#include <stdint.h>

#include "pyleak/index.h"
#include "pyleak/stats.h"

/* The distinct frames of many stacks, numbered from 0 on. The sites number theirs with it; a document that shows a few
 * of them begins with 0 again. */
struct pl_frame_numbers {
	struct pl_frame *items; /* strings are those of the sites */
	size_t count, capacity;
	struct pl_index index;
};

/* The number of an equal frame, a new one if there is none. UINT32_MAX: out of memory. */
uint32_t pl_frame_number(struct pl_frame_numbers *numbers, const struct pl_frame *frame);
/* The same, and UINT32_MAX if there is none. */
uint32_t pl_frame_number_find(const struct pl_frame_numbers *numbers, const struct pl_frame *frame);
void pl_frame_numbers_free(struct pl_frame_numbers *numbers);

#endif
