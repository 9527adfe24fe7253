/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_TEST_TRACE_FRAMES_H
#define PYLEAK_TEST_TRACE_FRAMES_H

#include "pyleak/stats.h"

/* The frames of a site as an array, which holds until the fourth call from here. */
static inline const struct pl_frame *trace_frames(
	const struct pl_sites *sites, uint32_t site, size_t *ret_count, bool *ret_more)
{
	enum { KEPT = 4, FRAMES = 2048 };
	static struct pl_frame kept[KEPT][FRAMES];
	static unsigned int next;
	struct pl_frame *frames = kept[next++ % KEPT];
	const uint32_t *numbers = pl_sites_trace(sites, site, ret_count, ret_more);

	for (size_t i = 0; i < *ret_count && i < FRAMES; i++)
		frames[i] = *pl_sites_frame(sites, numbers[i]);
	return frames;
}

#endif
