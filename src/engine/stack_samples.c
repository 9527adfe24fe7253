/* SPDX-License-Identifier: MIT */
#include "stack_samples.h"

#include <stdlib.h>

#define FIRST_CAPACITY 64
#define SITES_MAX (1 << 16) /* 12 MiB */

void stack_samples_free(struct stack_samples *samples)
{
	free(samples->items);
	pl_table_free(&samples->index);
	*samples = (struct stack_samples){0};
}

struct sampled *stack_samples_find(struct stack_samples *samples, uint64_t key)
{
	struct pl_table_entry *entry = pl_table_find(&samples->index, key + 1);

	if (entry)
		return &samples->items[entry->value[0] - 1];
	if (samples->count == SITES_MAX)
		return NULL;
	if (samples->count == samples->capacity) {
		size_t capacity = samples->capacity ? 2 * samples->capacity : FIRST_CAPACITY;
		struct sampled *items = reallocarray(samples->items, capacity, sizeof(*items));

		if (!items)
			return NULL;
		samples->items = items;
		samples->capacity = capacity;
	}
	entry = pl_table_insert(&samples->index, key + 1);
	if (!entry)
		return NULL;
	samples->items[samples->count] = (struct sampled){.key = key};
	entry->value[0] = ++samples->count;
	return &samples->items[samples->count - 1];
}

void stack_samples_add(struct sampled *site, uint64_t block, uint32_t stack)
{
	size_t at = STACK_SAMPLES_KEPT;

	/* What was there was freed, or this address would not have been given out again. */
	for (size_t i = 0; i < site->count; i++)
		if (site->samples[i].block == block)
			at = i;
	if (at == STACK_SAMPLES_KEPT && site->count < STACK_SAMPLES_KEPT)
		at = site->count++;
	for (size_t i = 0; at == STACK_SAMPLES_KEPT && i < STACK_SAMPLES_KEPT; i++)
		if (!site->samples[i].live)
			at = i;
	if (at == STACK_SAMPLES_KEPT)
		at = site->next++ % STACK_SAMPLES_KEPT;
	site->samples[at] = (struct stack_sample){.block = block, .stack = stack, .live = true};
}

size_t stack_samples_living(const struct sampled *site)
{
	size_t living = 0;

	for (size_t i = 0; i < site->count; i++)
		living += site->samples[i].live;
	return living;
}

uint32_t stack_samples_choose(const struct sampled *site)
{
	const bool any = stack_samples_living(site) == 0;
	uint32_t best = UINT32_MAX;
	size_t most = 0;

	for (size_t i = 0; i < site->count; i++) {
		size_t same = 0;

		if (!any && !site->samples[i].live)
			continue;
		for (size_t j = 0; j < site->count; j++)
			same += (any || site->samples[j].live) && site->samples[j].stack == site->samples[i].stack;
		if (same > most) {
			most = same;
			best = site->samples[i].stack;
		}
	}
	return best;
}
