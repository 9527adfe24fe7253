/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HOOK_COPIES_H
#define PYLEAK_HOOK_COPIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pyleak/hook.h"

/*
 * Words of static data that hold an entry of ours without being a hook of ours: whoever hooked on
 * top of us (tracemalloc.start(), memray) saved the function it found so as to call it, and may
 * keep it after it has gone. Each is a copy of what the hooked word held, and is put back as such.
 */
struct pl_copies {
	struct {
		uint64_t address;
		uint32_t hook; /* whose entry it holds */
	} *items;
	size_t count, capacity;
};

/* Looks through the writable data of every loaded object (.data, .bss): what was written of it, and not what still is as
 * in the file, which would only be brought into memory. A gigabyte at most. No stop needed. 0 or -errno. */
int pl_copies_find(const struct pl_probe *probe, const struct pl_maps *maps, struct pl_copies *ret);
void pl_copies_free(struct pl_copies *copies);

/* Whether an entry of ours may be anywhere else in the process's own memory (heap, stacks): true also
 * if that is too much to look through while it is stopped. */
bool pl_copies_elsewhere(const struct pl_probe *probe, const struct pl_maps *maps);

#endif
