/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>

#include "view.h"

/* Where objects lie: see address_of(). */

int place_object(struct view *view, const struct image_piece *piece, uint64_t address)
{
	struct object_pages *pages = view->pages;
	uint64_t start = address / PL_PAGE * PL_PAGE;

	if (pages->count && start == pages->items[pages->count - 1].start)
		return 0;
	if (!pages->items || pages->count == pages->capacity) {
		uint32_t capacity = pages->capacity ? pages->capacity + pages->capacity / 2 : 4096;
		struct object_page *grown = reallocarray(pages->items, capacity, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		pages->items = grown;
		pages->capacity = capacity;
	}
	pages->items[pages->count++] = (struct object_page){ start,
		piece ? piece->marks + (start - piece->start) / PL_PAGE * MARKS : NULL, view->count };
	return 0;
}

static uint32_t page_of(const struct object_pages *pages, uint32_t object)
{
	uint32_t low = 0, high = pages->count;

	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;

		if (pages->items[middle].first <= object)
			low = middle;
		else
			high = middle;
	}
	return low;
}

void turn_page(struct object_pages *pages, uint32_t object)
{
	const struct object_page *page;
	uint32_t count = 0;

	/* Nearly always they are asked for one after the other. */
	if (object == pages->to && pages->to && pages->last + 1 < pages->count)
		pages->last++;
	else
		pages->last = page_of(pages, object);
	page = &pages->items[pages->last];
	pages->start = page->start;
	pages->from = page->first;
	if (!page->marks)
		pages->slots[count++] = 0;
	for (uint32_t word = 0; page->marks && word < MARKS; word++)
		for (uint64_t marks = page->marks[word]; marks; marks &= marks - 1)
			pages->slots[count++] = (uint16_t)(word * 64 + (uint32_t)__builtin_ctzll(marks));
	pages->to = pages->from + count;
}
