/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include <malloc.h>
#include <stdlib.h>
#include <unistd.h>

#include "../../src/engine/unseen.h"

/* glibc's marks, of blocks of our own. A sanitizer has another allocator. */
#ifdef __SANITIZE_ADDRESS__
#define DISABLED .disabled = true
#else
#define DISABLED .disabled = false
#endif

enum { BLOCKS = 4000, ROUNDS = 200 };

static uint64_t state = 88172645463325252u;

static uint64_t draw(uint64_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % below;
}

static void *take(uint64_t size)
{
	void *block = NULL;

	switch (draw(4)) {
	case 0:
		return posix_memalign(&block, 64, size) == 0 ? block : NULL;
	case 1:
		return calloc(1, size);
	default:
		return malloc(size);
	}
}

/* No block in use is ever taken for a free one, whatever lies beside it: it would be missing in a report. */
Test(unseen, what_is_in_use_is_never_free, DISABLED)
{
	static struct unseen_block blocks[BLOCKS];
	static bool is_free[BLOCKS];

	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < BLOCKS / 10; i++) {
			struct unseen_block *block = &blocks[draw(BLOCKS)];

			free((void *)(uintptr_t)block->address);
			block->size = draw(20) ? draw(3000) : draw(600000);
			block->address = (uint64_t)(uintptr_t)take(block->size);
			cr_assert_neq(block->address, 0);
		}
		for (int i = 0; i < BLOCKS; i++) {
			if (blocks[i].address)
				continue;
			blocks[i].size = draw(2000);
			blocks[i].address = (uint64_t)(uintptr_t)take(blocks[i].size);
		}
		unseen_look_at_marks(getpid(), blocks, BLOCKS, is_free);
		for (int i = 0; i < BLOCKS; i++)
			cr_assert_not(is_free[i], "round %d: %lu bytes at %lx", round, (unsigned long)blocks[i].size,
				(unsigned long)blocks[i].address);
		if (round % 50 == 0)
			(void)malloc_trim(0);
	}
}

static size_t count_free(uint64_t size, size_t count, size_t stay_every)
{
	static struct unseen_block blocks[BLOCKS];
	static bool is_free[BLOCKS];
	size_t found = 0;

	for (size_t i = 0; i < count; i++)
		blocks[i] = (struct unseen_block){.address = (uint64_t)(uintptr_t)malloc(size), .size = size};
	for (size_t i = 0; i < count; i++)
		if (!stay_every || i % stay_every)
			free((void *)(uintptr_t)blocks[i].address);
	unseen_look_at_marks(getpid(), blocks, count, is_free);
	for (size_t i = 0; i < count; i++) {
		bool stays = stay_every && i % stay_every == 0;

		cr_assert(!(is_free[i] && stays));
		found += is_free[i];
		if (stays)
			free((void *)(uintptr_t)blocks[i].address);
	}
	return found;
}

/* All but what a thread's cache of small chunks may hold. */
Test(unseen, what_is_free_is_found, DISABLED)
{
	static const uint64_t sizes[] = {200, 500, 1000, 1032, 5000, 20000, 100000, 140000, 1000000, 40000000};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		size_t count = sizes[i] < 10000 ? 3000 : 40, cached = sizes[i] <= 1032 ? 7 : 0;

		for (size_t every = 0; every <= 3; every += 3) {
			size_t freed = every ? count - (count + every - 1) / every : count, found = count_free(sizes[i], count, every);

			cr_assert_geq(found, freed - cached - freed / 100, "%lu bytes: %zu of %zu", (unsigned long)sizes[i], found, freed);
		}
	}
}
