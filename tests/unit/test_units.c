/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "pyleak/error.h"
#include "pyleak/log.h"
#include "pyleak/units.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

Test(units, format_size_is_tracemallocs)
{
	static const struct {
		int64_t bytes;
		const char *plain, *with_sign;
	} rows[] = {
#include "format_size.inc"
	};

	cr_assert_gt(COUNT(rows), 5000);
	for (size_t i = 0; i < COUNT(rows); i++) {
		char text[PL_SIZE_TEXT];

		pl_format_size(rows[i].bytes, false, text);
		cr_assert_str_eq(text, rows[i].plain, "%lld: %s", (long long)rows[i].bytes, text);
		pl_format_size(rows[i].bytes, true, text);
		cr_assert_str_eq(text, rows[i].with_sign, "%lld: %s", (long long)rows[i].bytes, text);
	}
}

Test(units, format_size_has_room)
{
	char text[PL_SIZE_TEXT];

	pl_format_size(INT64_MIN, true, text);
	cr_assert_str_eq(text, "-8388608 TiB");
}

Test(units, parse_duration)
{
	static const struct {
		const char *text;
		int result;
		int64_t ns;
	} rows[] = {
		{"500ms", 0, 500000000},
		{"10s", 0, 10000000000},
		{"2m", 0, 120000000000},
		{"1h", 0, 3600000000000},
		{"1.5d", 0, 129600000000000},
		{"1.5s", 0, 1500000000},
		{"10", 0, 10000000000},
		{"0.25", 0, 250000000},
		{"+3s", 0, 3000000000},
		{"0.000000001", 0, 1},
		{"1.00000000000000000000000000000000000001s", 0, 1000000000},
		{"3652.0h", 0, INT64_C(13147200000000000)},
		{"0", -ERANGE, 0},
		{"0ms", -ERANGE, 0},
		{"0.0000000001", -ERANGE, 0},
		{"-1s", -ERANGE, 0},
		{"87649h", -ERANGE, 0},
		{"99999999999999999999999999999h", -ERANGE, 0},
		{"", -EINVAL, 0},
		{"s", -EINVAL, 0},
		{"ten", -EINVAL, 0},
		{"1.s", -EINVAL, 0},
		{".5s", -EINVAL, 0},
		{"1,5s", -EINVAL, 0},
		{"1e3", -EINVAL, 0},
		{"0x10", -EINVAL, 0},
		{"10 s", -EINVAL, 0},
		{" 10s", -EINVAL, 0},
		{"10S", -EINVAL, 0},
		{"10y", -EINVAL, 0},
		{"inf", -EINVAL, 0},
		{"--1", -EINVAL, 0},
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		int64_t ns = 0;

		cr_assert_eq(pl_parse_duration(rows[i].text, &ns), rows[i].result, "%s", rows[i].text);
		cr_assert_eq(ns, rows[i].ns, "%s: %lld", rows[i].text, (long long)ns);
	}
}

Test(units, parse_size)
{
	static const struct {
		const char *text;
		int result;
		uint64_t bytes;
	} rows[] = {
		{"0", 0, 0},
		{"4096", 0, 4096},
		{"4096B", 0, 4096},
		{"64K", 0, 65536},
		{"64k", 0, 65536},
		{"64KB", 0, 65536},
		{"64KiB", 0, 65536},
		{"64 KiB", 0, 65536},
		{"1M", 0, 1 << 20},
		{"1.5MiB", 0, 3 << 19},
		{"2G", 0, UINT64_C(2) << 30},
		{"3TiB", 0, UINT64_C(3) << 40},
		{"4096P", 0, UINT64_C(1) << 62},
		{"0.1K", 0, 102},
		{"-0", 0, 0},
		{"4097P", -ERANGE, 0},
		{"18446744073709551616", -ERANGE, 0},
		{"18446744073709551615", -ERANGE, 0},
		{"184467440737095516150000000000000000000000000001K", -ERANGE, 0},
		{"99999999999999999999999999999", -ERANGE, 0},
		{"-1", -ERANGE, 0},
		{"1.5", -EINVAL, 0},
		{"1.5B", -EINVAL, 0},
		{"", -EINVAL, 0},
		{"K", -EINVAL, 0},
		{"1X", -EINVAL, 0},
		{"1 ", -EINVAL, 0},
		{"1Ki", -EINVAL, 0},
		{"1KiBs", -EINVAL, 0},
		{"1.K", -EINVAL, 0},
		{"1K ", -EINVAL, 0},
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		uint64_t bytes = 0;

		cr_assert_eq(pl_parse_size(rows[i].text, &bytes), rows[i].result, "%s", rows[i].text);
		cr_assert_eq(bytes, rows[i].bytes, "%s: %llu", rows[i].text, (unsigned long long)bytes);
	}
}

Test(units, parse_number)
{
	static const struct {
		const char *text;
		int result;
		int64_t min, max, number;
	} rows[] = {
		{"0", 0, 0, 10, 0},
		{"10", 0, 0, 10, 10},
		{"-5", 0, -5, 10, -5},
		{"9223372036854775807", 0, 0, INT64_MAX, INT64_MAX},
		{"9223372036854775808", -ERANGE, 0, INT64_MAX, 0},
		{"99999999999999999999999999", -ERANGE, 0, INT64_MAX, 0},
		{"11", -ERANGE, 0, 10, 0},
		{"-1", -ERANGE, 0, 10, 0},
		{"", -EINVAL, 0, 10, 0},
		{"1.0", -EINVAL, 0, 10, 0},
		{"1x", -EINVAL, 0, 10, 0},
		{"x", -EINVAL, 0, 10, 0},
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		int64_t number = 0;

		cr_assert_eq(pl_parse_number(rows[i].text, rows[i].min, rows[i].max, &number), rows[i].result, "%s",
			rows[i].text);
		cr_assert_eq(number, rows[i].number, "%s", rows[i].text);
	}
}

Test(units, format_duration)
{
	static const struct {
		int64_t ns;
		const char *text;
	} rows[] = {
		{0, "0 µs"},
		{850000, "850 µs"},
		{999499, "999 µs"},
		{999500, "1.0 ms"},
		{1900000, "1.9 ms"},
		{999949999, "999.9 ms"},
		{999950000, "1.0 s"},
		{10003000000, "10.0 s"},
		{59949999999, "59.9 s"},
		{59950000000, "1 min 0 s"},
		{125000000000, "2 min 5 s"},
		{3599600000000, "1 h 0 min"},
		{5400000000000, "1 h 30 min"},
		{INT64_MAX, "2562047 h 47 min"},
	};

	for (size_t i = 0; i < COUNT(rows); i++) {
		char text[PL_SIZE_TEXT];

		pl_format_duration(rows[i].ns, text);
		cr_assert_str_eq(text, rows[i].text, "%lld: %s", (long long)rows[i].ns, text);
	}
}

Test(error, first_text_wins_and_is_one_line)
{
	struct pl_error err = {0};

	cr_assert_eq(pl_fail(NULL, -EIO, "nobody reads %d", 1), -EIO);
	cr_assert_eq(pl_fail(&err, -EPERM, "no \"%s\"", "a\nb\x1b[31m"), -EPERM);
	cr_assert_eq(pl_fail(&err, -EIO, "later"), -EIO);
	cr_assert_eq(err.code, -EPERM);
	cr_assert_str_eq(err.text, "no \"a?b?[31m\"");
}

/* What reaches stderr while a level is set. */
static const char *logged(enum pl_log_level level)
{
	static char text[512];
	int ends[2], saved = dup(STDERR_FILENO);
	ssize_t length;

	cr_assert_eq(pipe2(ends, O_NONBLOCK), 0);
	cr_assert_eq(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
	pl_log_init(level);
	errno = EXDEV;
	pl_log_error("error %d", 1);
	pl_log_warning("warning \x1b[2J");
	pl_log_note("note");
	pl_log_debug("debug");
	cr_assert_eq(errno, EXDEV);
	cr_assert_eq(dup2(saved, STDERR_FILENO), STDERR_FILENO);
	length = read(ends[0], text, sizeof(text) - 1);
	text[length > 0 ? length : 0] = '\0';
	(void)close(ends[0]);
	(void)close(ends[1]);
	(void)close(saved);
	return text;
}

Test(log, levels)
{
	cr_assert_str_eq(logged(PL_LOG_QUIET), "pyleak: error 1\n");
	cr_assert_str_eq(logged(PL_LOG_NORMAL), "pyleak: error 1\npyleak: warning ?[2J\n");
	cr_assert_str_eq(
		logged(PL_LOG_VERBOSE), "pyleak: error 1\npyleak: warning ?[2J\npyleak: note\npyleak: debug\n");
}

Test(units, one_unit_for_what_stands_together)
{
	static const struct {
		int64_t bytes, like;
		const char *text;
	} table[] = {
		{4928307, 35127296, "+4.7 MiB"}, /* beside 33.5 MiB */
		{-4928307, -35127296, "-4.7 MiB"},
		{4928307, 4928307, "+4813 KiB"},
		{300 << 20, 33 << 20, "+300 MiB"},
		{1 << 20, 64 << 20, "+1.0 MiB"},
		{86016, 104857600, "+0.08 MiB"},
		{512, 35127296, "+512 B"}, /* "+0.00 MiB" would say nothing */
		{0, 35127296, "+0 B"},
		{2000, 5000, "+2000 B"},
		{INT64_MAX, 1, "+8388608 TiB"},
		{1, INT64_MIN, "+1 B"},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		char text[PL_SIZE_TEXT];

		pl_format_size_like(table[i].bytes, true, table[i].like, text);
		cr_expect_str_eq(text, table[i].text, "%s for %s", text, table[i].text);
	}
}
