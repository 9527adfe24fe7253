/* SPDX-License-Identifier: MIT */
#include "pyleak/python.h"

/*
 * The three formats in which CPython keeps the lines of a code object. The rules are those of
 * PyCode_Addr2Line() of the version in question; the tables come from the tracee, so every read is
 * bounded by `size` and lines are added up where they cannot overflow.
 */

static int clamp_line(int64_t line)
{
	return line > 0 && line <= INT32_MAX ? (int)line : 0;
}

/* Objects/lnotab_notes.txt of 3.6 to 3.9: pairs of a bytecode delta and a signed line delta; a pair's
 * line delta belongs to what comes after its bytecode delta. */
int pl_line_lnotab(const uint8_t *table, size_t size, int first_line, int32_t offset)
{
	int64_t line = first_line, address = 0;

	if (offset < 0)
		return clamp_line(line);
	for (size_t i = 0; i + 1 < size; i += 2) {
		address += table[i];
		if (address > offset)
			break;
		line += (int8_t)table[i + 1];
	}
	return clamp_line(line);
}

/* Objects/lnotab_notes.txt of 3.10: pairs again, but the line delta belongs to the range that its own
 * bytecode delta spans, and -128 marks a range that has no line. */
int pl_line_linetable(const uint8_t *table, size_t size, int first_line, int32_t offset)
{
	enum { NO_LINE = -128 };
	int64_t line = first_line, end = 0;

	if (offset < 0)
		return clamp_line(line);
	for (size_t i = 0; i + 1 < size; i += 2) {
		int8_t delta = (int8_t)table[i + 1];

		end += table[i];
		if (delta != NO_LINE)
			line += delta;
		if (offset < end)
			return delta == NO_LINE ? 0 : clamp_line(line);
	}
	return 0;
}

/* Objects/locations.md of 3.11 and later: the first byte of an entry is 1cccclll, no other byte of
 * it has the top bit. */
enum location_code {
	LOCATION_ONE_LINE_0 = 10, /* 10, 11, 12: that many lines further, minus 10 */
	LOCATION_ONE_LINE_2 = 12,
	LOCATION_NO_COLUMNS = 13,
	LOCATION_LONG = 14,
	LOCATION_NONE = 15,
};

/* Six bits a byte, least significant first, 0x40: more follow; the sign is the lowest bit. */
static int64_t signed_varint(const uint8_t *table, size_t size, size_t at)
{
	enum { SHIFT_MAX = 30 };
	uint64_t value = 0;

	for (unsigned int shift = 0; at < size && shift <= SHIFT_MAX; shift += 6, at++) {
		value |= (uint64_t)(table[at] & 0x3f) << shift;
		if (!(table[at] & 0x40))
			break;
	}
	return value & 1 ? -(int64_t)(value >> 1) : (int64_t)(value >> 1);
}

int pl_line_locations(const uint8_t *table, size_t size, int first_line, int32_t offset)
{
	int64_t line = first_line, end = 0;
	size_t i = 0;

	if (offset < 0)
		return clamp_line(line);
	while (i < size) {
		uint8_t head = table[i];
		int code = head >> 3 & 15;

		if (code == LOCATION_LONG || code == LOCATION_NO_COLUMNS)
			line += signed_varint(table, size, i + 1);
		else if (code >= LOCATION_ONE_LINE_0 && code <= LOCATION_ONE_LINE_2)
			line += code - LOCATION_ONE_LINE_0;
		end += 2 * ((head & 7) + 1);
		if (offset < end)
			return code == LOCATION_NONE ? 0 : clamp_line(line);
		do
			i++;
		while (i < size && !(table[i] & 0x80));
	}
	return 0;
}

int pl_line_lookup(int minor, const uint8_t *table, size_t size, int first_line, int32_t offset)
{
	if (minor <= 9)
		return pl_line_lnotab(table, size, first_line, offset);
	if (minor == 10)
		return pl_line_linetable(table, size, first_line, offset);
	return pl_line_locations(table, size, first_line, offset);
}
