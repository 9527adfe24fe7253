/* SPDX-License-Identifier: MIT */
#include "pyleak/space.h"

#include <errno.h>

enum { PAGES_AT_ONCE = 16384 };

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
	int code = space->kind->pages(space, range, pages);

	for (uint64_t i = 0; code == 0 && i < (range.end - range.start) / PL_PAGE; i++)
		pages[i] &= PL_RESIDENT;
	return code;
}

int pl_space_pages_or_swapped(struct pl_space *space, struct pl_range range, uint8_t *pages)
{
	int code = space->kind->pages(space, range, pages);

	for (uint64_t i = 0; code == 0 && i < (range.end - range.start) / PL_PAGE; i++)
		pages[i] = pages[i] != 0;
	return code;
}

int pl_space_next(struct pl_space *space, struct pl_range range, struct pl_range *ret)
{
	uint8_t pages[PAGES_AT_ONCE];
	int code = 0;

	if (space->kind->next)
		return space->kind->next(space, range, ret);
	*ret = (struct pl_range){range.end, range.end};
	for (uint64_t count; code == 0 && range.start < range.end; range.start += count * PL_PAGE) {
		count = (range.end - range.start) / PL_PAGE;
		count = count < PAGES_AT_ONCE ? count : PAGES_AT_ONCE;
		code = space->kind->pages(space, (struct pl_range){range.start, range.start + count * PL_PAGE}, pages);
		for (uint64_t i = 0, first; code == 0 && i < count; i++) {
			if (!pages[i])
				continue;
			for (first = i; i < count && pages[i];)
				i++;
			*ret = (struct pl_range){range.start + first * PL_PAGE, range.start + i * PL_PAGE};
			return 0;
		}
	}
	return code;
}

int pl_space_maps(struct pl_space *space, struct pl_maps *ret)
{
	return space->kind->maps(space, ret);
}

int pl_space_open_mapped(struct pl_space *space, const struct pl_maps *maps, const struct pl_map *map)
{
	return space->kind->open_mapped(space, maps, map);
}
