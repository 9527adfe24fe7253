/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HOOK_PIECES_H
#define PYLEAK_HOOK_PIECES_H

#include <stddef.h>

#include "pyleak/hook.h"
#include "pyleak/resident.h"

/*
 * The memory of the tables, in pieces that each take the kernel some tenth of a millisecond to free, so that neither the thread
 * that does it nor anybody who needs the process's mappings meanwhile waits for all of it. Without the pages that removing a probe looks at: the word that arms it, and the
 * counts of threads inside.
 */
struct pl_pieces {
	struct pl_range *items;
	size_t count, next;
};

/* Made while the process runs; what is left after the last goes with the unmapping. Release with pl_pieces_free(). */
void pl_pieces_plan(const struct pl_probe *probe, struct pl_pieces *ret);
void pl_pieces_free(struct pl_pieces *pieces);

#endif
