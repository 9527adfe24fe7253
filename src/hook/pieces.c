/* SPDX-License-Identifier: MIT */
#include "pieces.h"

#include <stdlib.h>

#include "pyleak/cleanup.h"
#include "pyleak/page.h"

enum {
	RUNS_AT_ONCE = 256,
	PIECE_WORK = 512, /* pages that are there, and what their page tables take: 0.08 ms on the machine that this was measured on */
	TABLE_WORK = 4,
	PIECES_MAX = 1 << 18,
};
#define TABLE_BYTES (UINT64_C(512) * PL_PAGE) /* that one page table is for */

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

/* As much of a run, from `start` on, as is no more work than `left`; at least a page. *ret_work: what it is. */
static struct pl_range part_of(struct pl_range run, uint64_t table, uint64_t left, uint64_t *ret_work)
{
	const uint64_t page = pl_page_size();
	struct pl_range part = {run.start, run.start};

	*ret_work = 0;
	do {
		*ret_work += part.end / TABLE_BYTES == table ? 1 : 1 + TABLE_WORK;
		table = part.end / TABLE_BYTES;
		part.end += page;
	} while (part.end < run.end && *ret_work < left);
	return part;
}

void pl_pieces_plan(const struct pl_probe *probe, struct pl_pieces *ret)
{
	struct pl_range range = inner(probe), piece = {range.start, range.start}, runs[RUNS_AT_ONCE];
	pl_autoclose int fd = -1;
	uint64_t work = 0, more, next;
	size_t count;

	*ret = (struct pl_pieces){0};
	if (!probe->filled || !probe->tables)
		return;
	fd = pl_resident_open(probe->pid);
	for (; fd >= 0 && range.start < range.end; range.start = next) {
		if (pl_resident_runs(fd, range, false, runs, RUNS_AT_ONCE, &count, &next) < 0)
			return;
		for (size_t i = 0; i < count;) {
			const struct pl_range part = part_of(runs[i], piece.end / TABLE_BYTES, PIECE_WORK - work, &more);

			work += more;
			piece.end = runs[i].start = part.end;
			i += runs[i].start == runs[i].end;
			if (work < PIECE_WORK)
				continue;
			if (add(ret, piece) < 0)
				return;
			piece.start = piece.end;
			work = 0;
		}
	}
	/* What is left goes with the unmapping. */
}
