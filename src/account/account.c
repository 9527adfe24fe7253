/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "account_private.h"
#include "pyleak/cleanup.h"
#include "pyleak/heap.h"
#include "pyleak/process.h"

_Static_assert((int)PL_ACCOUNT_CLASSES == (int)PL_HEAP_CLASSES, "size classes");

struct pl_account_reader {
	const struct pl_python *python;
	struct pl_heap_reader *heap;
	struct stacks_seen *stacks;
};

int pl_account_open(const struct pl_python *python, struct pl_account_reader **ret)
{
	struct pl_account_reader *reader = calloc(1, sizeof(*reader));
	int code;

	if (!reader)
		return -ENOMEM;
	reader->python = python;
	reader->stacks = calloc(1, sizeof(*reader->stacks));
	code = reader->stacks ? pl_heap_open(python, &reader->heap) : -ENOMEM;
	if (code < 0) {
		free(reader->stacks);
		free(reader);
		return code;
	}
	*ret = reader;
	return 0;
}

void pl_account_close(struct pl_account_reader *reader)
{
	if (!reader)
		return;
	pl_heap_close(reader->heap);
	free(reader->stacks->items);
	free(reader->stacks);
	free(reader);
}

static void set(struct pl_account *account, enum pl_account_part part, int64_t bytes)
{
	account->parts[part] = bytes;
	account->known[part] = true;
}

static void count_heap(const struct pl_heap_reader *heap, const struct pl_maps *maps, struct pl_account *account)
{
	struct pl_arena_figures arenas;
	struct pl_chunk_figures chunks;

	if (pl_heap_count_arenas(heap, maps, &arenas)) {
		set(account, PL_ACCOUNT_ARENAS_USED, arenas.used);
		set(account, PL_ACCOUNT_ARENAS_FREE, arenas.free);
		account->arenas_overhead = arenas.overhead;
		account->alignment = arenas.alignment;
		memcpy(account->class_free, arenas.class_free, sizeof(account->class_free));
	}
	if (pl_heap_count_chunks(heap, maps, &chunks)) {
		set(account, PL_ACCOUNT_HEAP_USED, chunks.used);
		set(account, PL_ACCOUNT_HEAP_FREE, chunks.free);
	}
}

void pl_account_take(const struct pl_account_reader *reader, uint64_t own, struct pl_account *ret)
{
	struct pl_process_memory memory;
	struct pl_maps maps = {0};

	*ret = (struct pl_account){.alignment = PL_ACCOUNT_ALIGNMENT, .rounding = -1};
	if (!reader)
		return;
	if (pl_space_maps(reader->python->space, &maps) == 0 && pl_process_memory(reader->python->pid, &memory) == 0) {
		ret->taken = true;
		ret->rss = memory.rss;
		set(ret, PL_ACCOUNT_FILES, (int64_t)memory.files);
		set(ret, PL_ACCOUNT_SHARED, (int64_t)memory.shared);
		set(ret, PL_ACCOUNT_OWN, (int64_t)own);
		count_heap(reader->heap, &maps, ret);
		stacks_count(reader->python, &maps, reader->stacks, ret);
		ret->parts[PL_ACCOUNT_OTHER] = (int64_t)memory.rss;
		ret->known[PL_ACCOUNT_OTHER] = true;
		for (int part = 0; part < PL_ACCOUNT_OTHER; part++)
			ret->parts[PL_ACCOUNT_OTHER] -= ret->parts[part];
	}
	pl_maps_free(&maps);
}

struct pl_arena_map pl_account_arena_map(const struct pl_account_reader *reader)
{
	struct pl_maps maps = {0};
	struct pl_arena_map map = {0};

	if (reader && pl_space_maps(reader->python->space, &maps) == 0)
		map = pl_heap_arena_map(reader->heap, &maps);
	pl_maps_free(&maps);
	return map;
}

struct pl_space *account_space(const struct pl_account_reader *reader)
{
	return reader->python->space;
}

static int compare_starts(const void *a, const void *b)
{
	const struct pl_range *first = a, *second = b;

	return (first->start > second->start) - (first->start < second->start);
}

/* One after the other, where the one before has not reached yet. */
static size_t make_disjoint(struct pl_range *places, size_t count)
{
	size_t kept = 0;

	qsort(places, count, sizeof(*places), compare_starts);
	for (size_t i = 0; i < count; i++) {
		if (kept && places[i].start < places[kept - 1].end)
			places[i].start = places[kept - 1].end;
		if (places[i].start < places[i].end)
			places[kept++] = places[i];
	}
	return kept;
}

int pl_account_heaps(const struct pl_account_reader *reader, struct pl_range **ret, size_t *ret_count)
{
	struct pl_range *places = NULL;
	struct pl_maps maps = {0};
	size_t arenas = 0, count = 0;
	int code = reader ? pl_space_maps(reader->python->space, &maps) : -ENOENT;

	if (code == 0)
		code = pl_heap_places(reader->heap, &maps, &places, &arenas, &count);
	pl_maps_free(&maps);
	if (code < 0)
		return code;
	if (count > arenas)
		memmove(places, places + arenas, (count - arenas) * sizeof(*places));
	*ret_count = make_disjoint(places, count - arenas);
	*ret = places;
	return 0;
}

int pl_account_places(const struct pl_account_reader *reader, struct pl_range **ret, size_t *ret_count)
{
	pl_autofree struct pl_range *places = NULL, *stacks = NULL;
	struct pl_maps maps = {0};
	size_t count = 0, arenas;
	ssize_t more = 0;
	int code = reader ? pl_space_maps(reader->python->space, &maps) : -ENOENT;

	if (code == 0)
		code = pl_heap_places(reader->heap, &maps, &places, &arenas, &count);
	if (code == 0)
		more = stacks_find(reader->python, &maps, reader->stacks, &stacks);
	pl_maps_free(&maps);
	if (code < 0 || more < 0)
		return code < 0 ? code : (int)more;
	*ret = calloc(count + (size_t)more + 1, sizeof(**ret));
	if (!*ret)
		return -ENOMEM;
	if (count)
		memcpy(*ret, places, count * sizeof(*places));
	if (more)
		memcpy(*ret + count, stacks, (size_t)more * sizeof(*stacks));
	*ret_count = make_disjoint(*ret, count + (size_t)more);
	return 0;
}
