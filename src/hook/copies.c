/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "copies.h"
#include "pyleak/cleanup.h"
#include "pyleak/memory.h"
#include "pyleak/page.h"
#include "pyleak/resident.h"

#define COPIES_MAX 1024
/* A quarter of a second, at the speed of process_vm_readv() and of the comparison. */
#define ELSEWHERE_MAX (1ULL << 30)
#define STATIC_MAX (1ULL << 30)

static int add(struct pl_copies *copies, uint64_t address, uint32_t hook)
{
	if (copies->count == COPIES_MAX)
		return 0;
	if (copies->count == copies->capacity) {
		size_t capacity = copies->capacity ? 2 * copies->capacity : 16;
		void *items = reallocarray(copies->items, capacity, sizeof(copies->items[0]));

		if (!items)
			return -ENOMEM;
		copies->items = items;
		copies->capacity = capacity;
	}
	copies->items[copies->count].address = address;
	copies->items[copies->count].hook = hook;
	copies->count++;
	return 0;
}

/* The hooks by what is looked for: sorted, because a process may hold any number of words that point to us. */
struct wanted {
	const struct pl_probe *probe;
	uint64_t *addresses; /* of the hooked words: no copies */
	struct entry {
		uint64_t entry;
		uint32_t hook; /* the first that has it */
	} *entries;
	size_t count;
};

static int compare_words(const void *a, const void *b)
{
	uint64_t first = *(const uint64_t *)a, second = *(const uint64_t *)b;

	return (first > second) - (first < second);
}

static int compare_entries(const void *a, const void *b)
{
	const struct entry *first = a, *second = b;

	return first->entry != second->entry ? (first->entry > second->entry) - (first->entry < second->entry) :
					       (first->hook > second->hook) - (first->hook < second->hook);
}

static void wanted_free(struct wanted *wanted)
{
	free(wanted->addresses);
	free(wanted->entries);
}

static int wanted_init(struct wanted *wanted, const struct pl_probe *probe)
{
	*wanted = (struct wanted){.probe = probe, .count = pl_probe_hook_count(probe)};
	wanted->addresses = calloc(wanted->count + 1, sizeof(*wanted->addresses));
	wanted->entries = calloc(wanted->count + 1, sizeof(*wanted->entries));
	if (!wanted->addresses || !wanted->entries) {
		wanted_free(wanted);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < wanted->count; i++) {
		wanted->addresses[i] = pl_probe_hook(probe, i)->address;
		wanted->entries[i] = (struct entry){pl_probe_hook(probe, i)->entry, i};
	}
	qsort(wanted->addresses, wanted->count, sizeof(*wanted->addresses), compare_words);
	qsort(wanted->entries, wanted->count, sizeof(*wanted->entries), compare_entries);
	return 0;
}

static int check_word(const struct wanted *wanted, uint64_t address, uint64_t word, struct pl_copies *copies)
{
	size_t low = 0, high = wanted->count;

	if (word - wanted->probe->base >= wanted->probe->header.code_size ||
		bsearch(&address, wanted->addresses, wanted->count, sizeof(address), compare_words))
		return 0;
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (wanted->entries[middle].entry < word)
			low = middle + 1;
		else
			high = middle;
	}
	return low < wanted->count && wanted->entries[low].entry == word ? add(copies, address, wanted->entries[low].hook) : 0;
}

enum { PIECE_PAGES = 64, NEAR = 32, RUNS = 256 };

static int read_pages(const struct wanted *wanted, uint64_t at, size_t count, struct pl_copies *copies)
{
	uint64_t words[PIECE_PAGES * PL_PAGE / 8];

	while (count) {
		size_t part = count < PIECE_PAGES ? count : PIECE_PAGES;
		ssize_t got = pl_memory_read_some(wanted->probe->pid, at, words, part * PL_PAGE);

		for (ssize_t i = 0; i < got / 8; i++) {
			int code = check_word(wanted, at + 8 * (uint64_t)i, words[i], copies);

			if (code < 0)
				return code;
		}
		at += part * PL_PAGE;
		count -= part;
	}
	return 0;
}

/* *budget is how many bytes may still be read. -EFBIG: it does not reach. */
static int scan_map(const struct wanted *wanted, const struct pl_map *map, int pagemap, uint64_t *budget,
	struct pl_copies *copies)
{
	struct pl_range left = {map->start, map->end}, runs[RUNS];

	while (left.start < left.end) {
		size_t count = 1;
		int code = pagemap < 0 ? -1 : pl_resident_runs(pagemap, left, true, runs, RUNS, &count, &left.start);

		/* Not to be known: all of it. */
		if (code < 0) {
			runs[0] = left;
			left.start = left.end;
			count = 1;
		}
		for (size_t i = 0; i < count; i++) {
			uint64_t size = runs[i].end - runs[i].start;

			if (*budget < size)
				return -EFBIG;
			*budget -= size;
			code = read_pages(wanted, runs[i].start, size / PL_PAGE, copies);
			if (code < 0)
				return code;
		}
	}
	return 0;
}

/* A file some of which is executable, near by: an object, and not data that a program maps (a model, an array). */
static bool is_object(const struct pl_maps *maps, size_t i)
{
	const struct pl_map *map = &maps->items[i];
	size_t first = i > NEAR ? i - NEAR : 0, end = maps->count - i > NEAR ? i + NEAR : maps->count;

	for (size_t j = first; map->inode && j < end; j++) {
		const struct pl_map *near = &maps->items[j];

		if (near->flags & PL_MAP_EXEC && near->inode == map->inode && near->dev_major == map->dev_major &&
			near->dev_minor == map->dev_minor)
			return true;
	}
	return false;
}

static bool is_static_data(const struct pl_maps *maps, size_t i)
{
	const struct pl_map *map = &maps->items[i];

	/* .bss: anonymous, right behind the file's last mapping */
	return is_object(maps, i) ||
	       (i > 0 && !map->inode && !map->path[0] && maps->items[i - 1].end == map->start && is_object(maps, i - 1));
}

static bool is_own_memory(const struct pl_map *map)
{
	return (map->flags & (PL_MAP_READ | PL_MAP_WRITE | PL_MAP_SHARED)) == (PL_MAP_READ | PL_MAP_WRITE);
}

static bool is_ours(const struct pl_probe *probe, const struct pl_map *map)
{
	return (map->start >= probe->base && map->start < probe->base + probe->mapped_size) ||
	       (map->start >= probe->tables && map->start < probe->tables + probe->tables_mapped_size);
}

/* The static data, or all but the static data. A page of a file holds what the file does, and no word of ours: what was
 * written to a private mapping of it is a page of its own. What was swapped out is fetched; it is little. */
static int scan(const struct pl_probe *probe, const struct pl_maps *maps, bool static_data, uint64_t budget,
	struct pl_copies *ret)
{
	pl_autoclose int pagemap = pl_resident_open(probe->pid);
	struct wanted wanted;
	int code = wanted_init(&wanted, probe);

	for (size_t i = 0; code == 0 && i < maps->count && (static_data || !ret->count); i++) {
		const struct pl_map *map = &maps->items[i];

		if (is_own_memory(map) && is_static_data(maps, i) == static_data && !is_ours(probe, map))
			code = scan_map(&wanted, map, pagemap, &budget, ret);
	}
	wanted_free(&wanted);
	return code;
}

int pl_copies_find(const struct pl_probe *probe, const struct pl_maps *maps, struct pl_copies *ret)
{
	int code;

	*ret = (struct pl_copies){0};
	code = scan(probe, maps, true, STATIC_MAX, ret);
	/* Arrays of that size. Only if somebody has hooked on top of us is there something to find: pl_copies_elsewhere(). */
	if (code == -EFBIG)
		return 0;
	if (code < 0)
		pl_copies_free(ret);
	return code;
}

void pl_copies_free(struct pl_copies *copies)
{
	free(copies->items);
	*copies = (struct pl_copies){0};
}

bool pl_copies_elsewhere(const struct pl_probe *probe, const struct pl_maps *maps)
{
	struct pl_copies copies = {0};
	/* If all of the static data could be looked at, pl_copies_find() has done so. */
	int code = scan(probe, maps, true, STATIC_MAX, &copies);

	if (code == 0) {
		pl_copies_free(&copies);
		code = scan(probe, maps, false, ELSEWHERE_MAX, &copies);
	}

	bool found = code < 0 || copies.count > 0;

	pl_copies_free(&copies);
	return found;
}
