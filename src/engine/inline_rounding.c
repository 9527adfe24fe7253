/* SPDX-License-Identifier: MIT */
#include "inline_rounding.h"

#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"
#include "pyleak/inline_abi.h"
#include "pyleak/memory.h"
#include "pyleak/page.h"
#include "pyleak/resident.h"

/*
 * From some pages of the shadow map, which has the size that was asked for of each block. Which pages is a matter of
 * their number alone, so that two looks at the same blocks say the same.
 */

enum {
	PAGES_WANTED = 512,
	CHUNKS_MAX = 64, /* whose pages are looked for */
	CHUNK_PAGES = PL_INLINE_CHUNK_BYTES / PL_PAGE,
	ENTRIES = PL_PAGE / sizeof(uint32_t),
};

static uint32_t scatter(uint64_t number)
{
	return (uint32_t)(number * UINT64_C(0x9e3779b97f4a7c15) >> 32);
}

uint64_t inline_rounding_size(const uint32_t *entries, size_t at)
{
	uint64_t size = entries[at] & PL_INLINE_SIZE_SPILLED;

	if (size != PL_INLINE_SIZE_SPILLED)
		return size;
	if (at + PL_INLINE_SPILL_WORDS >= ENTRIES)
		return 0;
	size = 0;
	for (unsigned int i = 0; i < PL_INLINE_SPILL_WORDS; i++)
		size |= (uint64_t)(entries[at + 1 + i] & PL_INLINE_SIZE_SPILLED) << (i * PL_INLINE_SIZE_BITS);
	return size;
}

void inline_rounding_count(const uint32_t *entries, const bool *native, size_t count, struct inline_rounding *sums)
{
	for (size_t i = 0; i < ENTRIES; i++) {
		const uint32_t site = entries[i] >> PL_INLINE_SITE_SHIFT;
		uint64_t size = site ? inline_rounding_size(entries, i) : 0;

		if (!size)
			continue;
		sums->blocks++;
		for (size_t unit = 0; unit < 2; unit++)
			sums->bytes[unit] += site < count && native[site] ? pl_account_malloc_rounding(size) :
										    pl_account_rounding(size, unit ? 16 : 8);
	}
}

void inline_rounding_look(pid_t pid, const struct pl_inline_reader *reader, uint64_t chunks, struct inline_rounding *ret)
{
	const struct pl_inline_config *config = &reader->config;
	pl_autofree bool *native = calloc(reader->known + 1, sizeof(*native));
	uint64_t step = chunks > CHUNKS_MAX ? (chunks + CHUNKS_MAX - 1) / CHUNKS_MAX : 1, resident = 0;
	pl_autofree uint8_t *pages = calloc(CHUNKS_MAX, CHUNK_PAGES);
	pl_autoclose int fd = pl_resident_open(pid);
	uint32_t entries[ENTRIES];

	*ret = (struct inline_rounding){0};
	if (!pages || fd < 0 || !native)
		return;
	for (uint64_t i = 0; i < reader->known; i++)
		native[i] = reader->local[i] != UINT32_MAX &&
			    pl_sites_domain(reader->sites, reader->local[i]) == PL_SITE_NATIVE;
	for (uint64_t chunk = 0; chunk < chunks; chunk += step) {
		uint64_t start = config->pool + chunk * PL_INLINE_CHUNK_BYTES;
		uint8_t *of_chunk = pages + chunk / step * CHUNK_PAGES;

		if (pl_resident_pages(fd, (struct pl_range){start, start + PL_INLINE_CHUNK_BYTES}, of_chunk) < 0)
			return;
		for (size_t i = 0; i < CHUNK_PAGES; i++)
			resident += of_chunk[i];
	}
	for (uint64_t number = 0; number < (chunks + step - 1) / step * CHUNK_PAGES; number++) {
		uint64_t chunk = number / CHUNK_PAGES * step, page = number % CHUNK_PAGES;

		if (pages[number] && (resident <= PAGES_WANTED ||
					     scatter(chunk * CHUNK_PAGES + page) < UINT32_MAX / resident * PAGES_WANTED) &&
			pl_memory_read(pid, config->pool + (chunk * CHUNK_PAGES + page) * PL_PAGE, entries,
				sizeof(entries)) == 0)
			inline_rounding_count(entries, native, reader->known, ret);
	}
}

double inline_rounding_mean(const struct inline_rounding *sums, uint32_t alignment)
{
	return sums->blocks ? (double)sums->bytes[alignment != 8] / (double)sums->blocks : -1;
}
