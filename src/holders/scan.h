/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HOLDERS_SCAN_H
#define PYLEAK_HOLDERS_SCAN_H

#include "edges.h"

/* One object that is gone through, for the files that know what is in it. */

struct scan {
	struct view *view;
	const struct edge_visitor *visitor;
	const struct type *type;
	uint64_t address;
	const uint8_t *object;
	uint64_t head;
};

static inline void see(const struct scan *scan, uint64_t word, struct edge edge)
{
	uint32_t target = image_object(scan->view->image, word);

	if (target != NO_OBJECT)
		scan->visitor->see(scan->visitor->context, target, &edge);
}

static inline void own(const struct scan *scan, uint64_t address, uint64_t size)
{
	if (scan->visitor->own)
		scan->visitor->own(scan->visitor->context, address, size);
}

/* Frames: see frame_edges.c. */
void see_old_frame(const struct scan *scan, uint64_t body);
void see_frame(const struct scan *scan, uint64_t frame, bool executing);

/* What objects lead to that is none: see memory_edges.c. */
void see_memory(const struct scan *scan, uint64_t address, int depth);
void see_module_state(const struct scan *scan);
void see_data(const struct scan *scan);

#endif
