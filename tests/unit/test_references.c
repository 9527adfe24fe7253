/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/arch.h"

/* References in text, against the plain way to find them. */

#if defined(__x86_64__)

enum { SIZE = 10000, FOUND_MAX = 64 };

struct found {
	size_t count;
	struct {
		uint64_t target;
		bool jump;
	} items[FOUND_MAX];
};

static void note(void *context, uint64_t target, bool jump)
{
	struct found *found = context;

	cr_assert_lt(found->count, FOUND_MAX);
	found->items[found->count].target = target;
	found->items[found->count++].jump = jump;
}

static void plainly(const uint8_t *text, size_t size, uint64_t address, uint64_t low, uint64_t high, struct found *found)
{
	for (size_t at = 2; at + 4 <= size; at++) {
		int32_t distance;

		memcpy(&distance, text + at, sizeof(distance));

		uint64_t target = address + at + 4 + (uint64_t)(int64_t)distance;

		if (target >= low && target <= high)
			note(found, target, text[at - 2] == 0xff && (text[at - 1] == 0x25 || text[at - 1] == 0x15));
	}
}

static void put(uint8_t *text, size_t at, uint64_t address, uint64_t target, const char *opcode)
{
	int32_t distance = (int32_t)(target - (address + at + 4));

	memcpy(text + at - 2, opcode, 2);
	memcpy(text + at, &distance, sizeof(distance));
}

Test(references, as_found_plainly)
{
	static const uint64_t addresses[] = {0x7f0000001000, 0x400000, 0x7ffff000};
	uint8_t text[SIZE];

	srandom(11);
	for (int round = 0; round < 300; round++) {
		uint64_t address = addresses[round % 3], low = address + (round % 2 ? 0x2000000 : -0x100000ULL), span = round % 5 * 800;
		size_t size = round < 100 ? (size_t)round : SIZE - (size_t)random() % 600;
		struct found wanted = {0}, found = {0};

		for (size_t i = 0; i < SIZE; i++)
			text[i] = (uint8_t)random();
		for (int i = 0; i < 12 && size > 10; i++)
			put(text, 2 + (size_t)random() % (size - 6), address, low + (uint64_t)random() % (span + 1),
				i % 3 ? "\xff\x15" : "\x48\x8b");
		plainly(text, size, address, low, low + span, &wanted);
		pl_arch_find_references(text, size, address, low, low + span, note, &found);
		cr_assert_eq(found.count, wanted.count, "round %d: %zu, not %zu", round, found.count, wanted.count);
		for (size_t i = 0; i < found.count; i++) {
			cr_assert_eq(found.items[i].target, wanted.items[i].target);
			cr_assert_eq(found.items[i].jump, wanted.items[i].jump);
		}
		cr_assert(size < 1000 || found.count > 0);
	}
}

/* At the first place that can be one, and the last; and what is 4 GiB off is none. */
Test(references, at_the_ends)
{
	uint8_t text[1024] = {0};
	struct found found = {0};

	put(text, 2, 0x10000000, 0x10000800, "\xff\x25");
	put(text, sizeof(text) - 4, 0x10000000, 0x10000808, "\x48\x8b");
	pl_arch_find_references(text, sizeof(text), 0x10000000, 0x10000800, 0x10000808, note, &found);
	cr_assert_eq(found.count, 2);
	cr_assert(found.items[0].jump && !found.items[1].jump);
	found.count = 0;
	pl_arch_find_references(text, sizeof(text), 0x10000000, 0x110000800, 0x110000808, note, &found);
	cr_assert_eq(found.count, 0);
	pl_arch_find_references(text, sizeof(text), 0x10000000, 0x10000808, 0x10000800, note, &found);
	cr_assert_eq(found.count, 0);
}

#endif
