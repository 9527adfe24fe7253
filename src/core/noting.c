/* SPDX-License-Identifier: MIT */
#include "noting.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/core.h"

enum { READ_MAX = 1 << 20 }; /* what is read in larger pieces is a heap, and comes from elsewhere */

static void note(struct noting *noting, uint64_t address, size_t length)
{
	if (!length || length > READ_MAX)
		return;
	/* The key 0 is no address that anything lies at. */
	for (uint64_t page = pl_page_start(address); page < address + length; page += PL_PAGE) {
		struct pl_table_entry *entry = page ? pl_table_insert(&noting->pages, page) : NULL;

		if (entry)
			entry->value[0] = 1;
		else
			noting->failed |= page != 0;
	}
}

static ssize_t noting_read_some(struct pl_space *space, uint64_t address, void *buffer, size_t length)
{
	struct noting *noting = (struct noting *)space;
	ssize_t got = pl_space_read_some(noting->below, address, buffer, length);

	if (got > 0)
		note(noting, address, (size_t)got);
	return got;
}

static int noting_read_pieces(struct pl_space *space, const struct pl_memory_piece *pieces, size_t count)
{
	struct noting *noting = (struct noting *)space;
	int code = pl_space_read_pieces(noting->below, pieces, count);

	for (size_t i = 0; code == 0 && i < count; i++)
		note(noting, pieces[i].address, pieces[i].length);
	return code;
}

static int noting_pages(struct pl_space *space, struct pl_range range, uint8_t *pages)
{
	struct pl_space *below = ((struct noting *)space)->below;

	return below->kind->pages(below, range, pages);
}

static int noting_next(struct pl_space *space, struct pl_range range, struct pl_range *ret)
{
	return pl_space_next(((struct noting *)space)->below, range, ret);
}

static int noting_maps(struct pl_space *space, struct pl_maps *ret)
{
	return pl_space_maps(((struct noting *)space)->below, ret);
}

static int noting_open_mapped(struct pl_space *space, const struct pl_maps *maps, const struct pl_map *map)
{
	(void)space;
	(void)maps;
	(void)map;
	return -ENOENT;
}

static void noting_close(struct pl_space *space)
{
	pl_table_free(&((struct noting *)space)->pages);
	free(space);
}

static const struct pl_space_kind noting_kind = {
	.read_some = noting_read_some,
	.read_pieces = noting_read_pieces,
	.pages = noting_pages,
	.next = noting_next,
	.maps = noting_maps,
	.open_mapped = noting_open_mapped,
	.close = noting_close,
};

int pl_space_noting(struct pl_space *below, struct pl_space **ret)
{
	struct noting *noting = calloc(1, sizeof(*noting));

	if (!noting)
		return -ENOMEM;
	noting->space.kind = &noting_kind;
	noting->space.pid = below->pid;
	memcpy(noting->space.name, below->name, sizeof(noting->space.name));
	noting->below = below;
	*ret = &noting->space;
	return 0;
}
