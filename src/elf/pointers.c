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
enum { WINDOW_PAGES = 256, FILTER = 1 << 14 };
#define FILTER_INDEX(value) ((value) >> 3 & (FILTER - 1))
#define READ_MAX (UINT64_C(64) << 20)

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
	uint64_t *buffer; /* WINDOW_PAGES */
};

static bool is_known(const struct search *search, uint64_t address)
{
	for (size_t i = 0; i < search->words_before; i++)
		if (search->got->words[i].address == address)
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

static int look_at_range(struct search *search, uint64_t start, uint64_t end)
{
	uint8_t written[WINDOW_PAGES];

	while (start < end) {
		uint64_t left = (end - start) / PL_PAGE, count = left < WINDOW_PAGES ? left : WINDOW_PAGES;
		int code = pl_resident_written(search->pagemap, (struct pl_range){start, start + count * PL_PAGE}, written);

		for (uint64_t i = 0, next; code == 0 && i < count; i = next) {
			for (next = i + 1; next < count && written[next] == written[i]; next++)
				continue;
			if (!written[i])
				continue;
			if (search->budget < (next - i) * PL_PAGE)
				return 0;
			search->budget -= (next - i) * PL_PAGE;
			code = look_at(search, start + i * PL_PAGE, start + next * PL_PAGE);
		}
		if (code < 0)
			return code;
		start += count * PL_PAGE;
	}
	return 0;
}

int pl_got_add_pointers(pid_t pid, const struct pl_maps *maps, uint32_t object, const struct pl_got_value *values,
	size_t count, struct pl_got *got)
{
	pl_autofree uint64_t *buffer = malloc((size_t)WINDOW_PAGES * PL_PAGE);
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

		if ((map->flags & (PL_MAP_READ | PL_MAP_EXEC | PL_MAP_SHARED)) == PL_MAP_READ && start < end)
			code = look_at_range(&search, start, end);
	}
	return code;
}
