/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>

#include "pyleak/holders.h"

/* What grew from one moment to another. */

static const struct pl_held_type *type_before(const struct pl_holder *before, const char *name)
{
	for (size_t i = 0; before && i < before->content_count; i++)
		if (strcmp(before->contents[i].type, name) == 0)
			return &before->contents[i];
	return NULL;
}

static void compare_holder(const struct pl_holder *before, struct pl_holder *after)
{
	after->size_diff = (int64_t)(after->size - (before ? before->size : 0));
	after->count_diff = (int64_t)(after->count - (before ? before->count : 0));
	for (size_t i = 0; i < after->content_count; i++) {
		struct pl_held_type *type = &after->contents[i];
		const struct pl_held_type *old = type_before(before, type->type);

		type->size_diff = (int64_t)(type->size - (old ? old->size : 0));
		type->count_diff = (int64_t)(type->count - (old ? old->count : 0));
	}
}

static int by_growth(const void *a, const void *b)
{
	const struct pl_holder *left = a, *right = b;

	if (left->size_diff != right->size_diff)
		return left->size_diff < right->size_diff ? 1 : -1;
	return strcmp(left->path, right->path);
}

static int by_path(const void *a, const void *b)
{
	return strcmp((*(const struct pl_holder *const *)a)->path, (*(const struct pl_holder *const *)b)->path);
}

void pl_holders_compare(const struct pl_holders *before, struct pl_holders *after, size_t limit)
{
	const struct pl_holder **sorted = calloc(before->holder_count + 1, sizeof(struct pl_holder *));

	for (size_t i = 0; sorted && i < before->holder_count; i++)
		sorted[i] = &before->holders[i];
	if (sorted && before->holder_count)
		qsort(sorted, before->holder_count, sizeof(struct pl_holder *), by_path);
	for (size_t i = 0; i < after->holder_count; i++) {
		const struct pl_holder *wanted = &after->holders[i];
		const struct pl_holder **found = sorted && before->holder_count ?
			bsearch(&wanted, sorted, before->holder_count, sizeof(struct pl_holder *), by_path) : NULL;

		compare_holder(found ? *found : NULL, &after->holders[i]);
	}
	free(sorted);
	if (after->holder_count)
		qsort(after->holders, after->holder_count, sizeof(*after->holders), by_growth);
	while (limit && after->holder_count > limit)
		pl_holder_free(&after->holders[--after->holder_count]);
	after->size_diff = (int64_t)(after->size - before->size);
	after->count_diff = (int64_t)(after->count - before->count);
	after->garbage_diff = (int64_t)(after->garbage.size - before->garbage.size);
	after->native_diff = (int64_t)(after->native.size - before->native.size);
	after->compared = true;
}
