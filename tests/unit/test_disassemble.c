/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "pyleak/arch.h"

/* Functions of real interpreters (data/make_functions.py). */
static const struct piece {
	const char *build, *name;
	uint64_t address;
	const char *hex;
} pieces[] = {
#include "data/functions.inc"
};

static const struct image {
	const char *build;
	uint64_t data_start, data_end;
	uint64_t word_address, word; /* one word of the GOT */
} images[] = {
	{ "Debian 3.11.2", 0x950000, 0xb00000, 0, 0 },
	{ "3.6.15", 0x290000, 0x300000, 0, 0 },
	{ "3.12.1", 0x543000, 0x6b5000, 0x543d00, 0x643340 },
	{ "Debian libpython 3.13.5", 0x620000, 0x800000, 0, 0 },
	{ "libpython 3.13t", 0x4e0000, 0x600000, 0, 0 },
	{ "descriptors", 0x4000, 0x5000, 0, 0 },
};

static int read_image(void *context, uint64_t address, void *buffer, size_t length)
{
	const struct image *image = context;

	if (image->word_address && address == image->word_address && length == sizeof(image->word)) {
		memcpy(buffer, &image->word, length);
		return 0;
	}
	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		size_t size = strlen(pieces[i].hex) / 2;

		if (strcmp(pieces[i].build, image->build) != 0 || address < pieces[i].address ||
				address + length > pieces[i].address + size)
			continue;
		for (size_t at = 0; at < length; at++)
			cr_assert_eq(sscanf(pieces[i].hex + 2 * (address - pieces[i].address + at), "%2hhx",
				(unsigned char *)buffer + at), 1);
		return 0;
	}
	return -EFAULT;
}

static bool is_data(void *context, uint64_t address)
{
	const struct image *image = context;

	return address >= image->data_start && address < image->data_end;
}

static const struct image *find_image(const char *build)
{
	for (size_t i = 0; i < sizeof(images) / sizeof(images[0]); i++)
		if (strcmp(images[i].build, build) == 0)
			return &images[i];
	cr_assert(false, "no image of %s", build);
	return NULL;
}

static uint64_t find_function(const char *build, const char *name)
{
	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++)
		if (strcmp(pieces[i].build, build) == 0 && strcmp(pieces[i].name, name) == 0)
			return pieces[i].address;
	cr_assert(false, "no %s of %s", name, build);
	return 0;
}

Test(disassemble, walks_get_allocator)
{
	static const struct {
		const char *build;
		int domain;
		int result;
		uint64_t table;
	} cases[] = {
		{ "Debian 3.11.2", 0, 0, 0x95a060 },
		{ "Debian 3.11.2", 1, 0, 0x959f80 }, /* in .text.unlikely */
		{ "Debian 3.11.2", 2, 0, 0x959f40 },
		{ "Debian 3.11.2", 3, -ENOENT, 0 },
		{ "3.6.15", 0, 0, 0x295760 },
		{ "3.6.15", 1, 0, 0x295720 },
		{ "3.6.15", 2, 0, 0x2956e0 },
		{ "3.6.15", -1, -ENOENT, 0 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t table = 0;
		int r = pl_arch_walk_get_allocator(find_function(cases[i].build, "PyMem_GetAllocator"), cases[i].domain,
			read_image, is_data, (void *)find_image(cases[i].build), &table);

		cr_expect_eq(r, cases[i].result, "case %zu: %d", i, r);
		cr_expect_eq(table, cases[i].table, "case %zu: %#lx", i, table);
	}
}

Test(disassemble, names_what_an_allocator_uses)
{
	static const struct {
		const char *build, *function;
		uint64_t table;
		int slot;
	} cases[] = {
		{ "Debian 3.11.2", "PyObject_Calloc", 0x959f40, 1 },
		{ "Debian 3.11.2", "PyMem_Calloc", 0x959f80, 1 }, /* behind a far branch, pymalloc inlined */
		{ "Debian 3.11.2", "PyMem_RawMalloc", 0x95a060, 0 },
		{ "3.6.15", "PyObject_Calloc", 0x2956e0, 1 },
		{ "3.6.15", "PyMem_RawFree", 0x295760, 3 },
		{ "3.12.1", "PyObject_Calloc", 0x643340 + 176, 1 }, /* through the GOT */
		{ "3.12.1", "PyMem_RawRealloc", 0x643340 + 96, 2 },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t found[64], slot = cases[i].table + 8 + 8 * (uint64_t)cases[i].slot;
		bool has_table = false, has_slot = false;
		size_t count = 0;

		cr_expect_eq(pl_arch_data_references(find_function(cases[i].build, cases[i].function), read_image, is_data,
			(void *)find_image(cases[i].build), found, 64, &count), 0);
		for (size_t j = 0; j < count; j++) {
			has_table |= found[j] == cases[i].table;
			has_slot |= found[j] == slot;
		}
		cr_expect(has_table && has_slot, "case %zu: %zu references", i, count);
	}
}

Test(disassemble, references_stop_at_the_limit)
{
	uint64_t found[1];
	size_t count = 0;

	cr_expect_eq(pl_arch_data_references(find_function("Debian 3.11.2", "PyMem_Calloc"), read_image, is_data,
		(void *)find_image("Debian 3.11.2"), found, 1, &count), 0);
	cr_expect_eq(count, 1);
	cr_expect_eq(pl_arch_data_references(find_function("Debian 3.11.2", "PyMem_Calloc"), read_image, is_data,
		(void *)find_image("Debian 3.11.2"), found, 0, &count), 0);
	cr_expect_eq(count, 0);
}

Test(disassemble, finds_the_word_that_is_returned)
{
	static const struct {
		const char *build;
		uint64_t word;
	} cases[] = { { "3.6.15", 0x2feee0 }, { "Debian 3.11.2", 0xa5b768 }, { "3.12.1", 0x643340 + 40 } };
	uint64_t word = 0;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cr_expect_eq(pl_arch_loaded_word(find_function(cases[i].build, "PyInterpreterState_Head"), read_image,
			(void *)find_image(cases[i].build), &word), 0);
		cr_expect_eq(word, cases[i].word, "case %zu: %#lx", i, word);
	}
	/* Returns what it was called with, or nothing that was loaded. */
	cr_expect_eq(pl_arch_loaded_word(find_function("3.6.15", "PyMem_GetAllocator"), read_image,
		(void *)find_image("3.6.15"), &word), -ENOENT);
}

/* The dialects for general and for local thread-local words. */
Test(disassemble, finds_a_thread_local_word)
{
	static const struct {
		const char *build;
		struct pl_thread_local expected;
	} cases[] = { { "Debian libpython 3.13.5", { 8, 0x699830, 0 } }, { "libpython 3.13t", { 0, 0x4eaed8, 0 } },
		{ "descriptors", { 0, 0, 0x4000 } } };
	struct pl_thread_local found;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cr_expect_eq(pl_arch_thread_local(find_function(cases[i].build, "PyThreadState_GetUnchecked"), read_image,
			(void *)find_image(cases[i].build), &found), 0);
		cr_expect_eq(found.pair, cases[i].expected.pair);
		cr_expect_eq(found.offset, cases[i].expected.offset);
		cr_expect_eq(found.descriptor, cases[i].expected.descriptor);
	}
}

static int read_noise(void *context, uint64_t address, void *buffer, size_t length)
{
	uint64_t seed = *(uint64_t *)context;

	for (size_t i = 0; i < length; i++) {
		uint64_t bits = (address + i) * UINT64_C(0x9e3779b97f4a7c15) ^ seed;

		bits ^= bits >> 29;
		((uint8_t *)buffer)[i] = (uint8_t)(bits * UINT64_C(0xbf58476d1ce4e5b9) >> 56);
	}
	return 0;
}

static bool some_data(void *context, uint64_t address)
{
	return address & 1;
}

static int read_nothing(void *context, uint64_t address, void *buffer, size_t length)
{
	return -EFAULT;
}

Test(disassemble, survives_what_is_not_code)
{
	for (uint64_t seed = 0; seed < 2000; seed++) {
		uint64_t found[16], word;
		size_t count;

		(void)pl_arch_walk_get_allocator(seed * 64, (int)(seed % 3), read_noise, some_data, &seed, &word);
		(void)pl_arch_data_references(seed * 64, read_noise, some_data, &seed, found, 16, &count);
		cr_assert_leq(count, 16);
		(void)pl_arch_loaded_word(seed * 64, read_noise, &seed, &word);
	}
}

Test(disassemble, finds_nothing_in_unreadable_code)
{
	uint64_t found[1];
	size_t count = 1;

	cr_expect_eq(pl_arch_walk_get_allocator(4096, 0, read_nothing, some_data, NULL, found), -ENOENT);
	cr_expect_eq(pl_arch_data_references(4096, read_nothing, some_data, NULL, found, 1, &count), 0);
	cr_expect_eq(count, 0);
	cr_expect_eq(pl_arch_loaded_word(4096, read_nothing, NULL, found), -ENOENT);
}
