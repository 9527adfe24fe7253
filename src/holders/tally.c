/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "holders_private.h"

int tally_open(struct tally *tally, struct analysis *analysis)
{
	size_t count = analysis->view->type_count + 1;

	*tally = (struct tally){ analysis, calloc(count, sizeof(uint64_t)), calloc(count, sizeof(uint64_t)),
		calloc(count, sizeof(uint32_t)), analysis->view->type_count };
	return tally->count && tally->size && tally->first ? 0 : -ENOMEM;
}

void tally_close(struct tally *tally)
{
	free(tally->count);
	free(tally->size);
	free(tally->first);
}

void tally_clear(struct tally *tally)
{
	memset(tally->count, 0, tally->types * sizeof(*tally->count));
	memset(tally->size, 0, tally->types * sizeof(*tally->size));
}

int tally_rows(struct tally *tally, uint32_t holder, size_t limit, struct pl_held_type **ret, size_t *ret_count)
{
	struct view *view = tally->analysis->view;

	*ret = calloc(limit + 1, sizeof(**ret));
	*ret_count = 0;
	if (!*ret)
		return -ENOMEM;
	while (*ret_count < limit) {
		struct pl_held_type *row = &(*ret)[*ret_count];
		uint32_t best = 0;

		for (uint32_t type = 1; type < tally->types; type++)
			if (tally->size[type] > tally->size[best])
				best = type;
		if (!tally->count[best])
			break;
		*row = (struct pl_held_type){ .type = name_of_type(view, &view->types[best]), .count = tally->count[best],
			.size = tally->size[best],
			.sample = holder ? name_of_step(view, holder, tally->first[best]) : strdup("") };
		++*ret_count;
		if (!row->type || !row->sample)
			return -ENOMEM;
		tally->size[best] = tally->count[best] = 0;
	}
	return 0;
}
