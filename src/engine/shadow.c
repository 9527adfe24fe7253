/* SPDX-License-Identifier: MIT */
#include "shadow.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "pyleak/cleanup.h"
#include "pyleak/memory.h"
#include "pyleak/resident.h"

enum {
	RUN_PAGES = 64,
	GRANULE = 16,
	ENTRIES = PL_PAGE / sizeof(uint32_t),
	CHUNK_PAGES = PL_INLINE_CHUNK_BYTES / PL_PAGE,
	DIRECTORY_PAGES = PL_INLINE_DIRECTORY_ENTRIES * sizeof(uint64_t) / PL_PAGE,
};

struct buffers {
	bool count_only;
	uint64_t pages;
	uint32_t entries[RUN_PAGES * ENTRIES];
	uint8_t in_memory[CHUNK_PAGES];
};

uint64_t shadow_size(const uint32_t *entries, size_t count)
{
	uint64_t size = entries[0] & PL_INLINE_SIZE_SPILLED;

	if (size != PL_INLINE_SIZE_SPILLED)
		return size;
	if (count <= PL_INLINE_SPILL_WORDS)
		return 0;
	size = 0;
	for (unsigned int i = 0; i < PL_INLINE_SPILL_WORDS; i++)
		size |= (uint64_t)(entries[1 + i] & PL_INLINE_SIZE_SPILLED) << (i * PL_INLINE_SIZE_BITS);
	return size;
}

static bool is_wanted(struct shadow_walk *walk, uint64_t address)
{
	if (walk->wants && !walk->wants(walk->context, address, address + ENTRIES * GRANULE))
		return false;
	return walk->step < 2 || walk->number++ % walk->step == 0;
}

static int read_run(struct shadow_walk *walk, struct buffers *buffers, uint64_t shadow, uint64_t address, size_t pages)
{
	int code = pl_memory_read(walk->pid, shadow, buffers->entries, pages * PL_PAGE);

	if (code == 0)
		walk->see(walk->context, buffers->entries, pages * ENTRIES, shadow, address);
	return code == -EFAULT ? 0 : code;
}

static int look_at_chunk(struct shadow_walk *walk, struct buffers *buffers, uint64_t shadow, uint64_t address)
{
	uint8_t *in_memory = buffers->in_memory;
	int code = pl_resident_pages(
		walk->pagemap, (struct pl_range){shadow, shadow + PL_INLINE_CHUNK_BYTES}, in_memory);

	for (size_t i = 0; code == 0 && i < CHUNK_PAGES; i++) {
		in_memory[i] &= PL_RESIDENT;
		in_memory[i] = in_memory[i] && is_wanted(walk, address + i * ENTRIES * GRANULE);
		buffers->pages += in_memory[i];
	}
	for (size_t i = 0, next; code == 0 && !buffers->count_only && i < CHUNK_PAGES && walk->pages_left; i = next) {
		for (next = i + 1; next < CHUNK_PAGES && next - i < RUN_PAGES && in_memory[next] == in_memory[i]; next++)
			continue;
		if (!in_memory[i])
			continue;
		walk->pages_left -= next - i < walk->pages_left ? next - i : walk->pages_left;
		code = read_run(walk, buffers, shadow + i * PL_PAGE, address + i * ENTRIES * GRANULE, next - i);
	}
	return code;
}

static int look_at_directory(struct shadow_walk *walk, struct buffers *buffers)
{
	const struct pl_inline_config *config = walk->config;
	pl_autofree uint8_t *in_memory = malloc(DIRECTORY_PAGES);
	uint64_t chunks[PL_PAGE / sizeof(uint64_t)];
	int code = !in_memory ? -ENOMEM :
				pl_resident_pages(walk->pagemap,
					(struct pl_range){config->directory, config->directory + (uint64_t)DIRECTORY_PAGES * PL_PAGE},
					in_memory);

	for (uint64_t page = 0; code == 0 && page < DIRECTORY_PAGES; page++) {
		if (!(in_memory[page] & PL_RESIDENT))
			continue;
		code = pl_memory_read(walk->pid, config->directory + page * PL_PAGE, chunks, sizeof(chunks));
		for (uint64_t i = 0; code == 0 && i < PL_PAGE / sizeof(uint64_t); i++) {
			uint64_t chunk = pl_inline_chunk(chunks[i]);

			/* It is the process's to overwrite. */
			if (chunk >= config->pool && (chunk - config->pool) % PL_INLINE_CHUNK_BYTES == 0 &&
				(chunk - config->pool) / PL_INLINE_CHUNK_BYTES < config->chunk_count)
				code = look_at_chunk(walk, buffers, chunk,
					(page * (PL_PAGE / sizeof(uint64_t)) + i) << PL_INLINE_CHUNK_SHIFT);
		}
	}
	return code;
}

int shadow_walk(struct shadow_walk *walk)
{
	pl_autofree struct buffers *buffers = calloc(1, sizeof(*buffers));

	return buffers ? look_at_directory(walk, buffers) : -ENOMEM;
}

uint64_t shadow_pages(const struct shadow_walk *walk)
{
	pl_autofree struct buffers *buffers = calloc(1, sizeof(*buffers));
	struct shadow_walk copy = *walk;

	copy.step = 0;
	if (!buffers)
		return 0;
	buffers->count_only = true;
	return look_at_directory(&copy, buffers) == 0 ? buffers->pages : 0;
}
