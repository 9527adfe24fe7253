/* SPDX-License-Identifier: MIT */
#include "pyleak/space.h"

#include <errno.h>

void pl_space_close(struct pl_space *space)
{
	if (space)
		space->kind->close(space);
}

ssize_t pl_space_read_some(struct pl_space *space, uint64_t address, void *buffer, size_t length)
{
	return space->kind->read_some(space, address, buffer, length);
}

int pl_space_read(struct pl_space *space, uint64_t address, void *buffer, size_t length)
{
	ssize_t got = space->kind->read_some(space, address, buffer, length);

	if (got < 0)
		return (int)got;
	return (size_t)got == length ? 0 : -EFAULT;
}

int pl_space_read_pieces(struct pl_space *space, const struct pl_memory_piece *pieces, size_t count)
{
	int code = 0;

	if (space->kind->read_pieces)
		return space->kind->read_pieces(space, pieces, count);
	for (size_t i = 0; code == 0 && i < count; i++)
		code = pl_space_read(space, pieces[i].address, pieces[i].buffer, pieces[i].length);
	return code;
}

int pl_space_pages(struct pl_space *space, struct pl_range range, uint8_t *pages)
{
	return space->kind->pages(space, range, pages);
}

int pl_space_maps(struct pl_space *space, struct pl_maps *ret)
{
	return space->kind->maps(space, ret);
}

int pl_space_open_mapped(struct pl_space *space, const struct pl_maps *maps, const struct pl_map *map)
{
	return space->kind->open_mapped(space, maps, map);
}
