/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "pyleak/arch.h"

/*
 * A reference is the distance from the end of an instruction. Jumps (ff 25) and calls (ff 15) end with it.
 *
 * Any four bytes can be one, and libraries have half a gigabyte of text (torch): blocks of it are first asked all at once
 * whether anything in them can be a reference, by the lower half of what it would lead to.
 */

enum { BLOCK = 256, LANES = 4 };
typedef int32_t lanes __attribute__((vector_size(LANES * sizeof(int32_t))));
typedef uint32_t sums __attribute__((vector_size(LANES * sizeof(uint32_t)))); /* which wrap around */

/* Whether any of the distances that begin in this block leads to what is at most `span` beyond `low`, modulo 2^32.
 * `bias`: from there to the end of a distance that begins with the block. Three bytes behind the block are read. */
static bool may_refer(const uint8_t *text, uint32_t bias, uint32_t span)
{
	/* SSE2 compares signed numbers only: all are moved down by half of the range. */
	const int32_t limit = (int32_t)(span ^ 0x80000000U);
	const lanes limits = {limit, limit, limit, limit};
	lanes hits = {0};
	sums index = {0, 4, 8, 12};

	index += bias ^ 0x80000000U;
	for (size_t at = 0; at < BLOCK; at += LANES * sizeof(int32_t)) {
		for (int shift = 0; shift < 4; shift++) {
			sums distances;

			memcpy(&distances, text + at + shift, sizeof(distances));
			hits |= (lanes)(distances + index + (uint32_t)shift) <= limits;
		}
		index += (uint32_t)(LANES * sizeof(int32_t));
	}
	return hits[0] | hits[1] | hits[2] | hits[3];
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

	if (low > high)
		return;
	for (; at + BLOCK <= end; at += BLOCK)
		if (high - low > UINT32_MAX || may_refer(text + at, (uint32_t)(address + at + 4 - low), (uint32_t)(high - low)))
			look_at_each(text, at, at + BLOCK, address, low, high, visit, context);
	look_at_each(text, at, end, address, low, high, visit, context);
}
