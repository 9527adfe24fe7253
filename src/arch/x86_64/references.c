/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "pyleak/arch.h"

/* A reference is the distance from the end of an instruction. Jumps (ff 25) and calls (ff 15) end with it. */
void pl_arch_find_references(const uint8_t *text, size_t size, uint64_t address, uint64_t low, uint64_t high,
	pl_arch_visit_reference visit, void *context)
{
	for (size_t at = 2; at + 4 <= size; at++) {
		int32_t distance;
		uint64_t target;

		memcpy(&distance, text + at, sizeof(distance));
		target = address + at + 4 + (uint64_t)(int64_t)distance;
		if (target >= low && target <= high)
			visit(context, target, text[at - 2] == 0xff && (text[at - 1] == 0x25 || text[at - 1] == 0x15));
	}
}
