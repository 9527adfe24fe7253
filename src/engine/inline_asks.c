/* SPDX-License-Identifier: MIT */
#include "inline_asks.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pyleak/cleanup.h"
#include "pyleak/resident.h"

enum {
	LEAST = 4096,     /* bytes that live */
	SLOTS_MAX = 256,  /* whose caches are looked through, where threads have their own */
	AMONG = 64,       /* it is at random of so many: until it is found none of them has the help of a cache */
	SITES_MAX = 4096, /* that are asked about, beside those of the C library's */
};

void inline_asks_free(struct inline_asks *asks)
{
	free(asks->live);
	pl_table_free(&asks->wanted);
	*asks = (struct inline_asks){0};
}

static uint64_t live_size(const struct pl_inline_totals *row)
{
	return row->allocated_size + row->shared_allocated_size + row->first_allocated_size - row->freed_size -
	       row->shared_freed_size - row->first_freed_size;
}

static bool make_room(struct inline_asks *asks, size_t capacity)
{
	uint64_t *live;

	if (capacity <= asks->capacity)
		return true;
	live = reallocarray(asks->live, capacity, sizeof(*live));
	if (!live)
		return false;
	memset(live + asks->capacity, 0, (capacity - asks->capacity) * sizeof(*live));
	asks->live = live;
	asks->capacity = capacity;
	return true;
}

struct candidate {
	uint64_t site, size;
};

/* The largest stay; in no order. */
static void keep_largest(struct candidate *candidates, size_t *count, struct candidate one)
{
	size_t least = 0;

	if (*count < INLINE_ASKS_AT_ONCE) {
		candidates[(*count)++] = one;
		return;
	}
	for (size_t i = 1; i < INLINE_ASKS_AT_ONCE; i++)
		if (candidates[i].size < candidates[least].size)
			least = i;
	if (candidates[least].size < one.size)
		candidates[least] = one;
}

void inline_asks_choose(struct inline_asks *asks, const struct pl_inline_reader *reader, struct stack_samples *samples)
{
	struct candidate candidates[INLINE_ASKS_AT_ONCE];
	size_t count = 0;

	if (samples->count >= SITES_MAX || !make_room(asks, reader->known))
		return;
	for (uint64_t site = PL_INLINE_SITE_FIRST; site < reader->known; site++) {
		const uint64_t live = live_size(&reader->totals[site]), before = asks->live[site];

		asks->live[site] = live;
		if (live > before && live >= LEAST && inline_asks_is_pythons(reader, site) &&
			!pl_table_find(&samples->index, site + 1))
			keep_largest(candidates, &count, (struct candidate){site, live});
	}
	for (size_t i = 0; i < count; i++)
		(void)stack_samples_find(samples, candidates[i].site);
}

uint16_t inline_asks_add(struct inline_asks *asks, uint64_t site, uint64_t random)
{
	return pl_table_insert(&asks->wanted, site + 1) ? (uint16_t)(1 + random % AMONG) : 0;
}

/* The highest byte of the code object's address, which no address has: a store that has no halves, and whatever the recorder
 * has written there meanwhile, it only misses. */
static void forget(const struct inline_asks *asks, int memory_fd, uint64_t slot)
{
	const uint64_t address = slot + offsetof(struct pl_inline_slot, top), mask = (UINT64_C(1) << PL_INLINE_TOP_KEY_SHIFT) - 1;
	const size_t size = sizeof(((struct pl_inline_slot *)NULL)->top), count = size / sizeof(struct pl_inline_top);
	static const uint8_t nobody = 0xff;
	pl_autofree struct pl_inline_top *top = malloc(size);

	if (!top || pread(memory_fd, top, size, (off_t)address) != (ssize_t)size)
		return;
	for (size_t i = 0; i < count; i++) {
		if (top[i].code && !(top[i].code >> 56) && pl_table_find(&asks->wanted, (top[i].key & mask) + 1))
			(void)!pwrite(memory_fd, &nobody, 1,
				(off_t)(address + i * sizeof(*top) + offsetof(struct pl_inline_top, code) + sizeof(top[i].code) - 1));
	}
}

/* Threads are spread over the slots: most of these nobody has touched, and nor do we. */
static void forget_threads(const struct inline_asks *asks, const struct pl_inline_config *config, pid_t pid, int memory_fd)
{
	pl_autoclose int pagemap = pl_resident_open(pid);
	size_t found = 0;

	for (uint64_t i = 1; pagemap >= 0 && i <= config->slot_count && found < SLOTS_MAX; i++) {
		const uint64_t slot = config->slots + i * config->slot_stride;
		uint64_t owner;
		uint8_t page;

		if (pl_resident_pages(pagemap, (struct pl_range){slot, slot + PL_PAGE}, &page) < 0)
			return;
		if (page != PL_RESIDENT ||
			pread(memory_fd, &owner, sizeof(owner), (off_t)(slot + offsetof(struct pl_inline_slot, owner))) !=
				(ssize_t)sizeof(owner) ||
			!owner)
			continue;
		forget(asks, memory_fd, slot);
		found++;
	}
}

void inline_asks_send(struct inline_asks *asks, const struct pl_inline_reader *reader, pid_t pid, int memory_fd)
{
	if (!asks->wanted.count)
		return;
	forget(asks, memory_fd, reader->config.slots);
	if (reader->config.free_threaded)
		forget_threads(asks, &reader->config, pid, memory_fd);
	pl_table_free(&asks->wanted);
}
