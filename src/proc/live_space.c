/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "mapped_file.h"
#include "pyleak/space.h"

/* The space of a live process: by process_vm_readv(), /proc/PID/pagemap, maps and map_files. */

/* The kernel holds the memory map while it looks at so much. */
#define LOOK_AT (UINT64_C(1) << 30)

struct live_space {
	struct pl_space space;
	int pagemap; /* -1: not opened yet */
};

static ssize_t live_read_some(struct pl_space *space, uint64_t address, void *buffer, size_t length)
{
	return pl_memory_read_some(space->pid, address, buffer, length);
}

static int live_read_pieces(struct pl_space *space, const struct pl_memory_piece *pieces, size_t count)
{
	return pl_memory_read_pieces(space->pid, pieces, count);
}

static int open_pagemap(struct live_space *live)
{
	int code;

	if (live->pagemap >= 0)
		return 0;
	code = pl_resident_open(live->space.pid);
	if (code < 0)
		return code;
	live->pagemap = code;
	return 0;
}

static int live_pages(struct pl_space *space, struct pl_range range, uint8_t *pages)
{
	struct live_space *live = (struct live_space *)space;
	int code = open_pagemap(live);

	return code < 0 ? code : pl_resident_pages(live->pagemap, range, pages);
}

static int live_next(struct pl_space *space, struct pl_range range, struct pl_range *ret)
{
	struct live_space *live = (struct live_space *)space;
	int code = open_pagemap(live);
	size_t count = 0;

	*ret = (struct pl_range){range.end, range.end};
	while (code == 0 && range.start < range.end) {
		struct pl_range piece = {range.start, range.end - range.start < LOOK_AT ? range.end : range.start + LOOK_AT};

		code = pl_resident_runs(live->pagemap, piece, true, &piece, 1, &count, &range.start);
		if (code == 0 && count) {
			*ret = piece;
			break;
		}
	}
	return code;
}

static int live_maps(struct pl_space *space, struct pl_maps *ret)
{
	return pl_maps_read(space->pid, ret);
}

static int live_open_mapped(struct pl_space *space, const struct pl_maps *maps, const struct pl_map *map)
{
	return mapped_file_open(space->pid, maps, map);
}

static void live_close(struct pl_space *space)
{
	struct live_space *live = (struct live_space *)space;

	if (live->pagemap >= 0)
		(void)close(live->pagemap);
	free(live);
}

static const struct pl_space_kind live_kind = {
	.read_some = live_read_some,
	.read_pieces = live_read_pieces,
	.pages = live_pages,
	.next = live_next,
	.maps = live_maps,
	.open_mapped = live_open_mapped,
	.close = live_close,
};

int pl_space_of_process(pid_t pid, struct pl_space **ret)
{
	struct live_space *live = calloc(1, sizeof(*live));

	if (!live)
		return -ENOMEM;
	live->space.kind = &live_kind;
	live->space.pid = pid;
	(void)snprintf(live->space.name, sizeof(live->space.name), "process %d", (int)pid);
	live->pagemap = -1;
	*ret = &live->space;
	return 0;
}
