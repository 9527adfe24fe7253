/* SPDX-License-Identifier: MIT */
#include "pieces.h"

#include <stdlib.h>

#include "pyleak/cleanup.h"
#include "pyleak/page.h"
#include "pyleak/process.h"

enum {
	WINDOW_PAGES = 512,
	PIECE_PAGES = 256, /* 1 MiB: 0.3 to 0.6 ms on the machine that this was measured on */
	PIECES_MAX = 1 << 16,
};
/* Of a process that is smaller than this the tables are small too: they take a third of what is tracked at most. */
#define RSS_MIN (UINT64_C(64) << 20)

void pl_pieces_free(struct pl_pieces *pieces)
{
	free(pieces->items);
	*pieces = (struct pl_pieces){0};
}

static int add(struct pl_pieces *pieces, struct pl_range range)
{
	struct pl_range *grown;

	if (pieces->count == PIECES_MAX)
		return -1;
	grown = reallocarray(pieces->items, pieces->count + 1, sizeof(*grown));
	if (!grown)
		return -1;
	pieces->items = grown;
	pieces->items[pieces->count++] = range;
	return 0;
}

/* The tables without the pages of these two words, which stand at their ends. */
static struct pl_range inner(const struct pl_probe *probe)
{
	const uint64_t words[] = {probe->header.armed_address, probe->header.inside_address};
	struct pl_range range = {probe->tables, probe->tables + probe->tables_mapped_size};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		uint64_t page = words[i] & ~(uint64_t)(PL_PAGE_MAX - 1);

		if (page < range.start || page >= range.end)
			continue;
		if (page - range.start < range.end - page)
			range.start = page + PL_PAGE_MAX;
		else
			range.end = page;
	}
	return range;
}

void pl_pieces_plan(const struct pl_probe *probe, struct pl_pieces *ret)
{
	struct pl_range range = inner(probe), piece = {range.start, range.start};
	pl_autoclose int fd = -1;
	uint8_t pages[WINDOW_PAGES];
	uint64_t resident = 0;

	*ret = (struct pl_pieces){0};
	if (!probe->filled || !probe->tables || pl_process_rss(probe->pid) < RSS_MIN)
		return;
	fd = pl_resident_open(probe->pid);
	while (fd >= 0 && piece.end < range.end) {
		uint64_t left = range.end - piece.end, size = left < sizeof(pages) * PL_PAGE ? left : sizeof(pages) * PL_PAGE;

		if (pl_resident_pages(fd, (struct pl_range){piece.end, piece.end + size}, pages) < 0)
			break;
		for (uint64_t i = 0; i < size / PL_PAGE; i++)
			resident += pages[i] & PL_RESIDENT;
		piece.end += size;
		if (resident < PIECE_PAGES)
			continue;
		if (add(ret, piece) < 0)
			break;
		piece.start = piece.end;
		resident = 0;
	}
	/* What is left goes with the unmapping. */
}
