/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "pyleak/arch.h"

/*
 * A reference is the distance from the end of an instruction. Jumps (ff 25) and calls (ff 15) end with it.
 *
 * Any four bytes can be one, and libraries have half a gigabyte of text (torch): blocks of it are first asked all at once
 * whether anything in them can be a reference, by the lower half of what it would lead to.
 */

enum { BLOCK = 256, LANES = 4, GROUP = LANES * sizeof(int32_t) };
typedef int32_t lanes __attribute__((vector_size(GROUP)));
typedef uint32_t sums __attribute__((vector_size(GROUP))); /* which wrap around */
typedef uint64_t halves __attribute__((vector_size(GROUP)));

/* What a distance is compared by. SSE2 compares signed numbers only: all are moved down by half of the range. */
struct range {
	lanes limits;
	sums index[4]; /* from `low` to the end of each distance in the first group, those that begin one byte later next, … */
};

/* `bias`: from `low` to the end of a distance that begins with the text. */
static inline struct range range_at(uint32_t bias, uint32_t span)
{
	const int32_t limit = (int32_t)(span ^ 0x80000000U);
	const sums first = {0, 4, 8, 12};
	struct range range = {.limits = {limit, limit, limit, limit}};

	for (uint32_t shift = 0; shift < 4; shift++)
		range.index[shift] = first + (bias ^ 0x80000000U) + shift;
	return range;
}

static inline lanes hits_from(const uint8_t *text, sums index, lanes limits)
{
	sums distances;

	memcpy(&distances, text, sizeof(distances));
	return (lanes)(distances + index) <= limits;
}

/* Of those that begin in this group, and goes on to the next. Three bytes behind it are read. */
static inline lanes hits_in_group(const uint8_t *text, struct range *range)
{
	lanes hits = hits_from(text, range->index[0], range->limits) | hits_from(text + 1, range->index[1], range->limits) |
		     hits_from(text + 2, range->index[2], range->limits) | hits_from(text + 3, range->index[3], range->limits);

	for (int shift = 0; shift < 4; shift++)
		range->index[shift] += (uint32_t)GROUP;
	return hits;
}

static inline bool is_any(lanes hits)
{
	return ((halves)hits)[0] | ((halves)hits)[1];
}

/* Whether any of the distances that begin in this block leads to what is at most `span` beyond `low`, modulo 2^32. */
static bool may_refer(const uint8_t *text, uint32_t bias, uint32_t span)
{
	struct range range = range_at(bias, span);
	lanes hits = {0};

	for (size_t at = 0; at < BLOCK; at += GROUP)
		hits |= hits_in_group(text + at, &range);
	return is_any(hits);
}

static void look_at_each(const uint8_t *text, size_t from, size_t to, uint64_t address, uint64_t low, uint64_t high,
	pl_arch_visit_reference visit, void *context)
{
	for (size_t at = from; at < to; at++) {
		int32_t distance;
		uint64_t target;

		memcpy(&distance, text + at, sizeof(distance));
		target = address + at + 4 + (uint64_t)(int64_t)distance;
		if (target >= low && target <= high)
			visit(context, target, text[at - 2] == 0xff && (text[at - 1] == 0x25 || text[at - 1] == 0x15));
	}
}

void pl_arch_find_references(const uint8_t *text, size_t size, uint64_t address, uint64_t low, uint64_t high,
	pl_arch_visit_reference visit, void *context)
{
	size_t at = 2, end = size >= 4 ? size - 3 : 0; /* where the last distance begins, and one more */
	const uint32_t span = (uint32_t)(high - low);

	if (low > high)
		return;
	/* What is too far apart for the lower half to say anything is looked at in full. */
	for (; high - low <= UINT32_MAX && at + BLOCK <= end; at += BLOCK) {
		const uint32_t bias = (uint32_t)(address + at + 4 - low);
		struct range range;

		if (!may_refer(text + at, bias, span))
			continue;
		range = range_at(bias, span);
		for (size_t group = at; group < at + BLOCK; group += GROUP)
			if (is_any(hits_in_group(text + group, &range)))
				look_at_each(text, group, group + GROUP, address, low, high, visit, context);
	}
	look_at_each(text, at, end, address, low, high, visit, context);
}
