/* SPDX-License-Identifier: MIT */
#include "pyleak/row_types.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* In words: more say nothing that the first ones do not. */
enum { SAID_MAX = 4 };
/* Of all objects. */
#define SAID_SHARE 0.01

/* Of a number that is not below zero. */
static long long nearest(double number)
{
	return number < 1e18 ? (long long)(number + 0.5) : 1000000000000000000;
}

void pl_row_types_add(struct pl_row_types *types, const char *name, double count)
{
	char cut[PL_ROW_TYPE_NAME];
	struct pl_row_type *rarest = NULL;

	if (!name)
		return;
	(void)snprintf(cut, sizeof(cut), "%s", name);
	for (size_t i = 0; i < types->count; i++) {
		struct pl_row_type *item = &types->items[i];

		if (strcmp(item->name, cut) == 0) {
			item->count += count;
			return;
		}
		if (!rarest || item->count < rarest->count)
			rarest = item;
	}
	if (types->count < PL_ROW_TYPES) {
		rarest = &types->items[types->count++];
	} else {
		/* What is common comes again: it takes the place of what was rare. */
		types->others += rarest->count;
	}
	memcpy(rarest->name, cut, sizeof(cut));
	rarest->count = count;
}

static int by_count(const void *a, const void *b)
{
	const struct pl_row_type *left = a, *right = b;

	return left->count != right->count ? (left->count < right->count ? 1 : -1) : strcmp(left->name, right->name);
}

void pl_row_types_finish(struct pl_row_types *types, int64_t live)
{
	double scale = types->blocks > 0 && live > 0 ? (double)live / types->blocks : 0;

	/* What came or went between the two looks is no estimate. */
	types->sampled |= scale > 1.5;
	if (!types->sampled)
		scale = 1;
	for (size_t i = 0; i < types->count; i++)
		types->items[i].count *= scale;
	types->others *= scale;
	if (types->count)
		qsort(types->items, types->count, sizeof(types->items[0]), by_count);
	while (types->count && nearest(types->items[types->count - 1].count) < 1)
		types->others += types->items[--types->count].count;
}

int pl_row_types_share(const struct pl_row_types *types, const char *glob)
{
	double all = types->others, found = 0;

	for (size_t i = 0; i < types->count; i++) {
		all += types->items[i].count;
		found += fnmatch(glob, types->items[i].name, 0) == 0 ? types->items[i].count : 0;
	}
	return all > 0 ? (int)(100 * found / all) : 0;
}

/* To two digits, where it is an estimate. */
static long long rounded(double count, bool estimate)
{
	double unit = 1;

	while (estimate && count / unit >= 100)
		unit *= 10;
	return nearest(count / unit) * nearest(unit);
}

void pl_row_types_text(const struct pl_row_types *types, char text[PL_ROW_TYPES_TEXT])
{
	double all = types->others, rest;
	size_t length = 0;

	text[0] = '\0';
	for (size_t i = 0; i < types->count; i++)
		all += types->items[i].count;
	rest = all;
	for (size_t i = 0; i < types->count && i < SAID_MAX && (!i || types->items[i].count >= all * SAID_SHARE); i++) {
		int written = snprintf(text + length, PL_ROW_TYPES_TEXT - length, "%s%lld %s",
			i ? ", " : types->sampled ? "about " : "", rounded(types->items[i].count, types->sampled),
			types->items[i].name);

		length += written > 0 ? (size_t)written : 0;
		rest -= types->items[i].count;
	}
	if (length && rest >= all * SAID_SHARE && nearest(rest) >= 1)
		(void)snprintf(text + length, PL_ROW_TYPES_TEXT - length, ", %lld other%s", rounded(rest, types->sampled),
			rounded(rest, types->sampled) == 1 ? "" : "s");
}
