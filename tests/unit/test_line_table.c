/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "pyleak/python.h"

/* Real code objects of every version, with what PyCode_Addr2Line() says (data/make_line_tables.py). */
static const struct row {
	int minor;
	const char *version, *name;
	int first_line;
	const char *table;
	int bytecode_size;
	const char *lines;
} rows[] = {
#include "data/line_tables.inc"
};

/* The table in memory of exactly its size, for the sanitizers. */
static uint8_t *from_hex(const char *hex, size_t *ret_size)
{
	size_t size = strlen(hex) / 2;
	uint8_t *bytes = malloc(size ? size : 1);

	cr_assert(bytes);
	for (size_t i = 0; i < size; i++)
		cr_assert_eq(sscanf(hex + 2 * i, "%2hhx", &bytes[i]), 1);
	*ret_size = size;
	return bytes;
}

Test(line_table, agrees_with_every_python)
{
	size_t checked = 0;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *row = &rows[i];
		const char *lines = row->lines;
		size_t size;
		uint8_t *table = from_hex(row->table, &size);
		int next = -1, next_line = 0, line = 0, used;

		for (int offset = 0; offset < row->bytecode_size; offset += 2, checked++) {
			if (next < offset && sscanf(lines, "%d:%d%n", &next, &next_line, &used) == 2)
				lines += used;
			if (next == offset)
				line = next_line;
			cr_expect_eq(pl_line_lookup(row->minor, table, size, row->first_line, offset), line,
				"%s %s: offset %d is line %d, not %d", row->version, row->name, offset, line,
				pl_line_lookup(row->minor, table, size, row->first_line, offset));
		}
		cr_expect_eq(pl_line_lookup(row->minor, table, size, row->first_line, -1), row->first_line);
		free(table);
	}
	cr_expect_gt(checked, 5000);
}

Test(line_table, bounds_hostile_tables)
{
	uint64_t state = 1;

	for (int round = 0; round < 20000; round++) {
		size_t size = (size_t)round % 40;
		uint8_t *table = malloc(size ? size : 1);

		cr_assert(table);
		for (size_t i = 0; i < size; i++) {
			state = state * UINT64_C(6364136223846793005) + 1442695040888963407u;
			table[i] = (uint8_t)(state >> 56);
			/* Entries that go on and on are the interesting ones. */
			if (round % 3 == 0)
				table[i] |= round % 2 ? 0x40 : 0xf0;
		}
		for (int minor = 9; minor <= 11; minor++)
			for (int offset = -2; offset < 200; offset += 7)
				cr_assert_geq(pl_line_lookup(minor, table, size, round % 5 ? 7 : INT32_MAX, offset), 0);
		free(table);
	}
}

Test(line_table, edges)
{
	static const uint8_t none[] = { 0xf8 }, far[] = { 0xf0, 0x7e, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x3f };
	static const uint8_t lnotab[] = { 4, 1, 255, 0, 1, 0x80 }, linetable[] = { 2, 0, 2, 0x80, 2, 0xff };

	cr_expect_eq(pl_line_locations(NULL, 0, 5, 0), 0);
	cr_expect_eq(pl_line_locations(none, 1, 5, 0), 0);
	cr_expect_eq(pl_line_locations(none, 1, 5, 2), 0);
	cr_expect_geq(pl_line_locations(far, sizeof(far), 5, 0), 0);
	cr_expect_eq(pl_line_lnotab(NULL, 0, 5, 100), 5);
	cr_expect_eq(pl_line_lnotab(lnotab, sizeof(lnotab), 5, 3), 5);
	cr_expect_eq(pl_line_lnotab(lnotab, sizeof(lnotab), 5, 4), 6);
	cr_expect_eq(pl_line_lnotab(lnotab, sizeof(lnotab), 200, 260), 73);
	cr_expect_eq(pl_line_lnotab(lnotab, 5, 5, 260), 6); /* half a pair */
	cr_expect_eq(pl_line_lnotab(lnotab, sizeof(lnotab), 5, 260), 0); /* before line 1 */
	cr_expect_eq(pl_line_linetable(linetable, sizeof(linetable), 5, 0), 5);
	cr_expect_eq(pl_line_linetable(linetable, sizeof(linetable), 5, 2), 0);
	cr_expect_eq(pl_line_linetable(linetable, sizeof(linetable), 5, 4), 4);
	cr_expect_eq(pl_line_linetable(linetable, sizeof(linetable), 5, 6), 0);
}
