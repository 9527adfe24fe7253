/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>

#include "inline_check.h"

/* Limits of limits, far above those of inline_config.c; what pyleak keeps for each code or site follows them. */
enum { SLOTS_MAX = 1 << 16, CODES_MAX = 1 << 20 };
#define FRAME_WORDS_MAX (1ULL << 27)
#define TEXTS_MAX (1ULL << 30)
#define NSEC_MAX (INT64_C(1) << 62)

/* A table at an address, of so many elements of this size. */
struct extent {
	uint64_t address, count, size;
};

static bool lies_within(const struct extent *table, uint64_t start, uint64_t size)
{
	uint64_t bytes, offset;

	return !__builtin_mul_overflow(table->count, table->size, &bytes) &&
	       !__builtin_sub_overflow(table->address, start, &offset) && offset <= size && bytes <= size - offset &&
	       table->address % sizeof(uint64_t) == 0;
}

static bool is_mask(uint64_t mask)
{
	return (mask & (mask + 1)) == 0 && mask < UINT32_MAX && mask >= 1023;
}

int inline_config_check(const struct pl_inline_config *config, uint64_t start, uint64_t size)
{
	const struct extent tables[] = {
		{config->control, 1, sizeof(struct pl_inline_control)},
		{config->slots, 1 + config->slot_count, config->slot_stride},
		{config->directory, PL_INLINE_DIRECTORY_ENTRIES, sizeof(uint64_t)},
		{config->pool, config->chunk_count, PL_INLINE_CHUNK_BYTES},
		{config->odd, config->odd_mask + 1, sizeof(struct pl_inline_odd)},
		{config->totals, config->site_limit, sizeof(struct pl_inline_totals)},
		{config->sites, config->site_limit, sizeof(struct pl_inline_site)},
		{config->index, config->index_mask + 1, sizeof(uint32_t)},
		{config->frames, config->frames_limit, sizeof(uint64_t)},
		{config->codes, config->code_limit, sizeof(struct pl_inline_code)},
		{config->code_index, config->code_index_mask + 1, sizeof(uint32_t)},
		{config->code_map, config->code_map_mask + 1, sizeof(struct pl_inline_code_entry)},
		{config->arena, config->arena_size, 1},
		{config->stacks, PL_INLINE_STACKS, sizeof(struct pl_inline_stack)},
		{config->bounds, 1 + config->slot_count, sizeof(struct pl_inline_bounds)},
		{config->skips, config->site_limit, sizeof(uint16_t)},
		{config->reading, 1 + config->slot_count, 1},
	};
	bool right = config->data_start == start && config->data_size <= size && config->slot_count <= SLOTS_MAX &&
		     config->slot_stride >= sizeof(struct pl_inline_slot) && is_mask(config->odd_mask) &&
		     is_mask(config->index_mask) && is_mask(config->code_index_mask) && is_mask(config->code_map_mask) &&
		     config->site_limit >= PL_INLINE_SITE_FIRST && config->site_limit <= PL_INLINE_SITES_MAX &&
		     config->frame_limit >= 1 && config->frame_limit <= PL_INLINE_FRAMES_MAX &&
		     config->code_limit <= CODES_MAX && config->frames_limit <= FRAME_WORDS_MAX &&
		     config->arena_size <= TEXTS_MAX && config->pool >= config->data_start &&
		     config->planted_monotonic < NSEC_MAX && config->planted_realtime < NSEC_MAX;

	for (size_t i = 0; right && i < sizeof(tables) / sizeof(tables[0]); i++)
		right = lies_within(&tables[i], start, config->data_size);
	return right ? 0 : -EBADMSG;
}
