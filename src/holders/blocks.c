/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>

#include "edges.h"
#include "holders_private.h"
#include "pyleak/cleanup.h"

/*
 * Which object a block of memory is, or whose: by what lies in it, by what the types that own memory say of it, and at last by
 * whose words lead there.
 */

enum {
	HEADERS_MAX = 64,
	PAGE_SHIFT = 12,
	FILTER_BITS = 1 << 22, /* of pages' numbers */
	FILTER_PAGES = 4096,   /* of one block: what lies further in is not led to */
	CHAIN_MAX = 3,         /* blocks on the way from an object to a block, where only the blocks that are asked for are known */
	CHAIN_BYTES = 1 << 16, /* of a block, that are looked through */
	WAYS_MAX = 1 << 21,    /* blocks that are looked through for others */
	WAYS_WORDS = 1 << 26,  /* of all of them */
	SIZE_LAST = 16,        /* bytes that a library has before what it gives out: sqlite3's are 8 */
};

struct place {
	uint64_t start, end;
	size_t block;
};

struct finding {
	struct view *view;
	uint32_t *owner;     /* of each block */
	struct place *open;  /* those without one yet, by address */
	size_t open_count;
	uint64_t *filter;
	uint32_t object;     /* that is looked at */
};

/* The object that begins in a block, behind its headers. */
static uint32_t object_in(struct view *view, const struct pl_block *block)
{
	for (uint64_t offset = 0; offset <= HEADERS_MAX && offset + 16 <= block->size + 8; offset += 8) {
		uint32_t object = image_object(view->image, block->address + offset);
		const uint8_t *bytes = object != NO_OBJECT ? image_at(view->image, block->address + offset, 16) : NULL;

		/* Some types written in C have no header, whatever they say. */
		if (bytes && (offset == 0 || headers_size(view, type_of(view, object), bytes) == offset))
			return object;
	}
	return NO_OBJECT;
}

static int by_start(const void *a, const void *b)
{
	const struct place *left = a, *right = b;

	return left->start < right->start ? -1 : left->start > right->start;
}

static void add_to_filter(struct finding *finding, uint64_t start, uint64_t end)
{
	for (uint64_t page = start >> PAGE_SHIFT, i = 0; page <= (end - 1) >> PAGE_SHIFT && i < FILTER_PAGES; page++, i++)
		finding->filter[page % FILTER_BITS / 64] |= UINT64_C(1) << page % 64;
}

/* The open block that an address lies in. */
static struct place *place_at(const struct finding *finding, uint64_t address)
{
	uint64_t page = address >> PAGE_SHIFT;
	size_t low = 0, high = finding->open_count;

	if (!(finding->filter[page % FILTER_BITS / 64] >> page % 64 & 1))
		return NULL;
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (finding->open[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low < finding->open_count && finding->open[low].start <= address ? &finding->open[low] : NULL;
}

static void claim(struct finding *finding, uint64_t address)
{
	const struct place *place = place_at(finding, address);

	if (place && finding->owner[place->block] == NO_OBJECT)
		finding->owner[place->block] = finding->object;
}

static void see_nothing(void *context, uint32_t target, const struct edge *edge)
{
	(void)context;
	(void)target;
	(void)edge;
}

static void see_owned(void *context, uint64_t address, uint64_t size)
{
	(void)size;
	claim(context, address);
}

/* Those that have an owner now are open no more. */
static void close_found(struct finding *finding)
{
	size_t left = 0;

	for (size_t i = 0; i < finding->open_count; i++)
		if (finding->owner[finding->open[i].block] == NO_OBJECT)
			finding->open[left++] = finding->open[i];
	finding->open_count = left;
}

/* Words of each object's body. */
static void ask_bodies(struct finding *finding)
{
	struct view *view = finding->view;

	for (uint32_t i = 1; i < view->count; i++) {
		struct image_piece *piece = edges_none(type_of(view, i)) ? NULL : image_find(view->image, address_of(view, i));
		const uint8_t *bytes;
		uint64_t size;

		if (!piece)
			continue;
		image_need(piece, address_of(view, i), type_of(view, i)->basic_size + 8);
		bytes = piece->bytes + (address_of(view, i) - piece->start);
		size = body_size(view, type_of(view, i), bytes, piece->end - address_of(view, i));
		image_need(piece, address_of(view, i), size);
		finding->object = i;
		for (uint64_t at = (uint64_t)view->layout.head; at + 8 <= size; at += 8)
			claim(finding, word_of(bytes, at));
	}
}

/* And of what belongs to an object by now: a thing of native code's leads to the next. */
static void ask_blocks(struct finding *finding, const struct pl_block *blocks, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t size = blocks[i].size < CHAIN_BYTES ? blocks[i].size : CHAIN_BYTES;
		const uint8_t *bytes = finding->owner[i] != NO_OBJECT ? image_at(finding->view->image, blocks[i].address, size) : NULL;

		if (!bytes || object_in(finding->view, &blocks[i]) != NO_OBJECT)
			continue;
		finding->object = finding->owner[i];
		for (uint64_t at = 0; at + 8 <= size; at += 8)
			claim(finding, word_of(bytes, at));
	}
}

/* A block that an object's memory leads to, however far. */
struct way {
	uint64_t address;
	uint32_t owner;
};

struct ways {
	struct finding *finding;
	struct pl_table seen;
	struct way *items; /* in the order in which they are found: the nearest first */
	size_t count, capacity;
	bool failed;
};

static void add_way(struct ways *ways, uint64_t address, uint32_t owner)
{
	struct pl_table_entry *entry;

	if (ways->count >= WAYS_MAX || ways->failed)
		return;
	entry = pl_table_insert(&ways->seen, address);
	if (entry && entry->value[0]++)
		return;
	if (entry && ways->count == ways->capacity) {
		size_t capacity = ways->capacity ? 2 * ways->capacity : 4096;
		struct way *grown = reallocarray(ways->items, capacity, sizeof(*grown));

		ways->failed = !grown;
		ways->items = grown ? grown : ways->items;
		ways->capacity = grown ? capacity : ways->capacity;
	}
	ways->failed |= !entry;
	if (!ways->failed)
		ways->items[ways->count++] = (struct way){ address, owner };
}

/* The block of the allocators' that a word leads to, behind a size of the library's own; 0: none. */
static uint64_t block_of(struct view *view, uint64_t word, uint64_t *ret_usable)
{
	if (word < 1 << 20 || word % 8 || word >> PL_ADDRESS_BITS)
		return 0;
	for (uint64_t before = 0; before <= SIZE_LAST; before += 8)
		if (block_size(view, word - before, ret_usable))
			return word - before;
	return 0;
}

/* The next block on the way: with no object in it, and that no object is known to own. */
static void follow_word(struct ways *ways, uint64_t word, uint32_t owner)
{
	struct view *view = ways->finding->view;
	uint64_t usable = 0, block = pl_table_find(&ways->seen, word) ? 0 : block_of(view, word, &usable);

	if (block && !pl_table_find(&view->claimed, block) && !block_has_object(view, block, usable))
		add_way(ways, block, owner);
}

/*
 * A library's own structures: a connection of sqlite3 leads to its pages by six blocks, and of these only a part is asked for.
 * The nearest object has a block, as far as can be known.
 */
static int follow_ways(struct finding *finding, const struct pl_block *blocks, size_t count)
{
	struct view *view = finding->view;
	struct ways ways = { .finding = finding };
	uint64_t words = 0;

	for (size_t i = 0; view->claimed.entries && i <= view->claimed.mask; i++) {
		const struct pl_table_entry *entry = &view->claimed.entries[i];

		if (entry->key && entry->value[1] && image_object(view->image, entry->value[0]) != NO_OBJECT)
			add_way(&ways, entry->key, image_object(view->image, entry->value[0]));
	}
	for (size_t i = 0; i < count; i++)
		if (finding->owner[i] != NO_OBJECT && object_in(view, &blocks[i]) == NO_OBJECT)
			add_way(&ways, blocks[i].address, finding->owner[i]);
	for (size_t i = 0; i < ways.count && !ways.failed && words < WAYS_WORDS; i++) {
		uint64_t usable = 0, size = block_size(view, ways.items[i].address, &usable);
		const uint8_t *bytes;

		usable = size && usable < CHAIN_BYTES ? usable : size ? CHAIN_BYTES : 0;
		bytes = image_at(view->image, ways.items[i].address, usable);
		finding->object = ways.items[i].owner;
		for (uint64_t at = 0; bytes && at + 8 <= usable; at += 8, words++) {
			uint64_t word = word_of(bytes, at);

			claim(finding, word);
			follow_word(&ways, word, ways.items[i].owner);
		}
	}
	pl_table_free(&ways.seen);
	free(ways.items);
	return ways.failed ? -ENOMEM : 0;
}

/* What the graph already knows of memory that a library's objects lead to. */
static uint32_t claimer(struct view *view, uint64_t address)
{
	const struct pl_table_entry *entry = pl_table_find(&view->claimed, address);

	return entry && entry->value[1] ? image_object(view->image, entry->value[0]) : NO_OBJECT;
}

static int ask_all(struct finding *finding, const struct pl_block *blocks, size_t count)
{
	const struct edge_visitor visitor = { see_nothing, see_owned, finding };
	int code = 0;

	qsort(finding->open, finding->open_count, sizeof(*finding->open), by_start);
	for (size_t i = 0; i < finding->open_count; i++)
		add_to_filter(finding, finding->open[i].start, finding->open[i].end);
	for (uint32_t i = 1; i < finding->view->count; i++) {
		finding->object = i;
		edges_of(finding->view, i, &visitor);
	}
	close_found(finding);
	if (finding->open_count)
		ask_bodies(finding);
	close_found(finding);
	if (finding->open_count)
		code = follow_ways(finding, blocks, count);
	close_found(finding);
	for (int chain = 1; chain < CHAIN_MAX && finding->open_count; chain++) {
		ask_blocks(finding, blocks, count);
		close_found(finding);
	}
	return code;
}

int blocks_find(struct view *view, const struct pl_block *blocks, size_t count, uint32_t *ret)
{
	pl_autofree struct place *open = malloc((count + 1) * sizeof(*open));
	pl_autofree uint64_t *filter = calloc(FILTER_BITS / 64, sizeof(*filter));
	struct finding finding = { .view = view, .owner = ret, .open = open, .filter = filter };

	if (!open || !filter)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		ret[i] = object_in(view, &blocks[i]);
		if (ret[i] == NO_OBJECT)
			ret[i] = claimer(view, blocks[i].address);
		if (ret[i] == NO_OBJECT && blocks[i].size && blocks[i].address + blocks[i].size > blocks[i].address)
			open[finding.open_count++] = (struct place){ blocks[i].address, blocks[i].address + blocks[i].size, i };
	}
	return finding.open_count ? ask_all(&finding, blocks, count) : 0;
}
