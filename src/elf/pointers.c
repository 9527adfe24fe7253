/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>

#include "elf_private.h"
#include "pyleak/cleanup.h"
#include "pyleak/got.h"
#include "pyleak/memory.h"
#include "pyleak/resident.h"

/* Pointers to given functions in the static data of a loaded object, found by what they hold. */

/* Functions are aligned, and what a word holds is mostly something else. */
enum { PIECE_PAGES = 64, RUNS = 256, FILTER = 1 << 14 };
#define FILTER_INDEX(value) ((value) >> 3 & (FILTER - 1))
#define READ_MAX (UINT64_C(64) << 20)
/* Of the .bss of an object that never loads an allocator's address: in it are only pointers that others give it. */
#define READ_MAX_GIVEN (UINT64_C(8) << 20)

struct search {
	pid_t pid;
	int pagemap;
	uint32_t object;
	const struct pl_got_value *values;
	size_t value_count;
	bool filter[FILTER]; /* by FILTER_INDEX(): a value has it */
	size_t words_before;
	uint64_t budget;
	struct pl_got *got;
	uint64_t *buffer; /* PIECE_PAGES */
};

static bool is_known(const struct search *search, uint64_t address)
{
	for (size_t i = 0; i < search->words_before; i++)
		if (search->got->words[i].address == address)
			return true;
	return false;
}

/* That an object which is not position-independent has its own entry for a function says that it takes its address. */
static bool loads_some(const struct pl_got *got, uint32_t object)
{
	for (size_t i = 0; i < got->word_count; i++)
		if (got->words[i].object == object && (got->words[i].kind != PL_GOT_JUMPED || got->words[i].stub))
			return true;
	return false;
}

static int look_at(struct search *search, uint64_t start, uint64_t end)
{
	ssize_t got = pl_memory_read_some(search->pid, start, search->buffer, end - start);
	int code = 0;

	if (got < 0)
		return got == -EFAULT ? 0 : (int)got;
	for (size_t i = 0; code == 0 && i < (size_t)got / 8; i++) {
		uint64_t value = search->buffer[i];

		if (!search->filter[FILTER_INDEX(value)])
			continue;
		for (size_t j = 0; code == 0 && j < search->value_count; j++) {
			const struct pl_got_word word = {
				.address = start + 8 * i,
				.value = value,
				.object = search->object,
				.name = search->values[j].name,
				.kind = PL_GOT_DATA,
				.bound = true,
			};

			if (search->values[j].address != value)
				continue;
			if (!is_known(search, word.address))
				code = pl_got_add_word(search->got, &word);
			break;
		}
	}
	return code;
}

static int look_at_run(struct search *search, struct pl_range run)
{
	int code = 0;

	while (code == 0 && run.start < run.end) {
		uint64_t size = run.end - run.start < PIECE_PAGES * PL_PAGE ? run.end - run.start : PIECE_PAGES * PL_PAGE;

		if (search->budget < size)
			return 0;
		search->budget -= size;
		code = look_at(search, run.start, run.start + size);
		run.start += size;
	}
	return code;
}

static int look_at_range(struct search *search, struct pl_range range)
{
	struct pl_range runs[RUNS];
	uint64_t end;
	size_t count;
	int code = 0;

	for (; code == 0 && range.start < range.end; range.start = end) {
		code = pl_resident_runs(search->pagemap, range, true, runs, RUNS, &count, &end);
		for (size_t i = 0; code == 0 && i < count; i++)
			code = look_at_run(search, runs[i]);
	}
	return code;
}

int pl_got_add_pointers(pid_t pid, const struct pl_maps *maps, uint32_t object, const struct pl_got_value *values,
	size_t count, struct pl_got *got)
{
	pl_autofree uint64_t *buffer = malloc((size_t)PIECE_PAGES * PL_PAGE);
	pl_autoclose int pagemap = pl_resident_open(pid);
	const uint64_t extent_start = got->objects[object].start, extent_end = got->objects[object].end;
	struct search search = {
		.pid = pid,
		.pagemap = pagemap,
		.object = object,
		.values = values,
		.value_count = count,
		.words_before = got->word_count,
		.budget = READ_MAX,
		.got = got,
		.buffer = buffer,
	};
	const bool given = !loads_some(got, object);
	int code = 0;

	if (!buffer)
		return -ENOMEM;
	if (pagemap < 0)
		return pagemap;
	for (size_t i = 0; i < count; i++)
		search.filter[FILTER_INDEX(values[i].address)] = true;
	for (size_t i = 0; code == 0 && i < maps->count; i++) {
		const struct pl_map *map = &maps->items[i];
		uint64_t start = map->start > extent_start ? map->start : extent_start & ~(uint64_t)(PL_PAGE - 1);
		uint64_t end = map->end < extent_end ? map->end : (extent_end + PL_PAGE - 1) & ~(uint64_t)(PL_PAGE - 1);

		if (start < end && given && !map->inode && search.budget > READ_MAX_GIVEN)
			search.budget = READ_MAX_GIVEN;
		if ((map->flags & (PL_MAP_READ | PL_MAP_EXEC | PL_MAP_SHARED)) == PL_MAP_READ && start < end)
			code = look_at_range(&search, (struct pl_range){start, end});
	}
	return code;
}
