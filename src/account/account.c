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
};

int pl_account_open(const struct pl_python *python, struct pl_account_reader **ret)
{
	struct pl_account_reader *reader = calloc(1, sizeof(*reader));
	int code;

	if (!reader)
		return -ENOMEM;
	reader->python = python;
	code = pl_heap_open(python, &reader->heap);
	if (code < 0) {
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
		stacks_count(reader->python, &maps, ret);
		ret->parts[PL_ACCOUNT_OTHER] = (int64_t)memory.rss;
		ret->known[PL_ACCOUNT_OTHER] = true;
		for (int part = 0; part < PL_ACCOUNT_OTHER; part++)
			ret->parts[PL_ACCOUNT_OTHER] -= ret->parts[part];
	}
	pl_maps_free(&maps);
}
