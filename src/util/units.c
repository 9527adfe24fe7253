/* SPDX-License-Identifier: MIT */
#include "pyleak/units.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static const uint64_t max_size = UINT64_C(1) << 62;
static const int64_t max_duration = INT64_C(3652) * 24 * 3600 * PL_NSEC_PER_SEC; /* ten years */

/* A decimal number without an exponent, independent of the locale: whole + part / 10^digits. */
struct decimal {
	bool negative;
	bool has_part;
	uint64_t whole;
	uint64_t part;
	uint64_t part_scale;
};

/* Returns where the number ends, or NULL if there is none. A whole part too large for any unit stays UINT64_MAX. */
static const char *read_decimal(const char *text, struct decimal *number)
{
	*number = (struct decimal){.part_scale = 1};
	if (*text == '-' || *text == '+')
		number->negative = *text++ == '-';
	if (!isdigit((unsigned char)*text))
		return NULL;
	for (; isdigit((unsigned char)*text); text++) {
		uint64_t digit = (uint64_t)(*text - '0');

		if (__builtin_mul_overflow(number->whole, 10, &number->whole) ||
			__builtin_add_overflow(number->whole, digit, &number->whole))
			number->whole = UINT64_MAX; /* and every digit that follows leaves it so */
	}
	if (*text != '.')
		return text;
	if (!isdigit((unsigned char)*++text))
		return NULL;
	number->has_part = true;
	for (; isdigit((unsigned char)*text); text++) {
		if (number->part_scale >= UINT64_C(1000000000000000))
			continue; /* far below a nanosecond and a byte */
		number->part = number->part * 10 + (uint64_t)(*text - '0');
		number->part_scale *= 10;
	}
	return text;
}

/* The number times unit, truncated. */
static unsigned __int128 scale(const struct decimal *number, uint64_t unit)
{
	return (unsigned __int128)number->whole * unit + (unsigned __int128)number->part * unit / number->part_scale;
}

int pl_parse_duration(const char *text, int64_t *ret_ns)
{
	static const struct {
		const char *name;
		uint64_t ns;
	} units[] = {
		{"", PL_NSEC_PER_SEC},
		{"ms", PL_NSEC_PER_MSEC},
		{"s", PL_NSEC_PER_SEC},
		{"m", 60 * PL_NSEC_PER_SEC},
		{"h", 3600 * PL_NSEC_PER_SEC},
		{"d", 24 * 3600 * PL_NSEC_PER_SEC},
	};
	struct decimal number;
	const char *end = read_decimal(text, &number);

	if (!end)
		return -EINVAL;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		unsigned __int128 ns;

		if (strcmp(end, units[i].name) != 0)
			continue;
		ns = scale(&number, units[i].ns);
		if (number.negative || ns == 0 || ns > (unsigned __int128)max_duration)
			return -ERANGE;
		*ret_ns = (int64_t)ns;
		return 0;
	}
	return -EINVAL;
}

int pl_parse_size(const char *text, uint64_t *ret_bytes)
{
	static const char prefixes[] = "KMGTP";
	struct decimal number;
	const char *unit = read_decimal(text, &number);
	const char *prefix;
	uint64_t factor = 1;
	unsigned __int128 bytes;

	if (!unit)
		return -EINVAL;
	if (*unit == ' ')
		unit++; /* as pl_format_size() prints it */
	prefix = *unit ? strchr(prefixes, toupper((unsigned char)*unit)) : NULL;
	if (prefix) {
		factor = UINT64_C(1) << (10 * (prefix - prefixes + 1));
		unit++;
		if (*unit && strcasecmp(unit, "iB") != 0 && strcasecmp(unit, "B") != 0)
			return -EINVAL;
	} else if ((*unit || unit[-1] == ' ') && strcasecmp(unit, "B") != 0) {
		return -EINVAL;
	} else if (number.has_part) {
		return -EINVAL; /* there is no half byte */
	}
	bytes = scale(&number, factor);
	if (bytes > max_size || (number.negative && bytes != 0))
		return -ERANGE;
	*ret_bytes = (uint64_t)bytes;
	return 0;
}

int pl_parse_number(const char *text, int64_t min, int64_t max, int64_t *ret_number)
{
	struct decimal number;
	const char *end = read_decimal(text, &number);
	int64_t value;

	if (!end || *end || number.has_part)
		return -EINVAL;
	if (number.whole > INT64_MAX)
		return -ERANGE;
	value = number.negative ? -(int64_t)number.whole : (int64_t)number.whole;
	if (value < min || value > max)
		return -ERANGE;
	*ret_number = value;
	return 0;
}

static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};

static void format_size(double size, bool sign, char text[PL_SIZE_TEXT])
{
	const size_t last = sizeof(units) / sizeof(units[0]) - 1;

	for (size_t i = 0;; i++, size /= 1024) {
		double magnitude = size < 0 ? -size : size;
		bool tenths = magnitude < 100 && i > 0;

		if (!tenths && magnitude >= 10 * 1024 && i < last)
			continue;
		(void)snprintf(text, PL_SIZE_TEXT, sign ? "%+.*f %s" : "%.*f %s", tenths ? 1 : 0, size, units[i]);
		return;
	}
}

void pl_format_size(int64_t bytes, bool sign, char text[PL_SIZE_TEXT])
{
	/* Python divides the int by 1024 with one correct rounding; so does this, for a conversion to double rounds
	 * once and a division by a power of two is then exact. */
	format_size((double)bytes, sign, text);
}

void pl_format_size_like(int64_t bytes, bool sign, int64_t like, char text[PL_SIZE_TEXT])
{
	const size_t last = sizeof(units) / sizeof(units[0]) - 1;
	double size = (double)bytes, beside = fabs((double)like);
	size_t unit = 0;

	while (unit < last && beside >= 10 * 1024) {
		beside /= 1024;
		size /= 1024;
		unit++;
	}
	if (unit == 0 || fabs(size) < 0.005) {
		pl_format_size(bytes, sign, text);
		return;
	}
	(void)snprintf(text, PL_SIZE_TEXT, sign ? "%+.*f %s" : "%.*f %s", fabs(size) < 0.995 ? 2 : fabs(size) < 100 ? 1 : 0, size,
		units[unit]);
}

void pl_format_average(int64_t size, int64_t count, char text[PL_SIZE_TEXT])
{
	format_size((double)size / (double)count, false, text);
}

const char *pl_format_number(uint64_t value, char text[PL_NUMBER_TEXT])
{
	char *at = text + PL_NUMBER_TEXT - 1;

	*at = '\0';
	for (int digits = 0; value || !digits; value /= 10) {
		if (digits && digits % 3 == 0)
			*--at = ',';
		*--at = (char)('0' + value % 10);
		digits++;
	}
	return at;
}

void pl_format_duration(int64_t ns, char text[PL_SIZE_TEXT])
{
	/* Each bound is where the unit below would round up to a whole one of the next. */
	const int64_t usec_end = 999500, msec_end = 999950000, sec_end = 59950000000;
	int64_t seconds = ns / PL_NSEC_PER_SEC + (ns % PL_NSEC_PER_SEC >= PL_NSEC_PER_SEC / 2 ? 1 : 0);

	if (ns < usec_end)
		(void)snprintf(text, PL_SIZE_TEXT, "%.0f µs", (double)ns / 1e3);
	else if (ns < msec_end)
		(void)snprintf(text, PL_SIZE_TEXT, "%.1f ms", (double)ns / 1e6);
	else if (ns < sec_end)
		(void)snprintf(text, PL_SIZE_TEXT, "%.1f s", (double)ns / 1e9);
	else if (seconds < 3600)
		(void)snprintf(text, PL_SIZE_TEXT, "%" PRId64 " min %" PRId64 " s", seconds / 60, seconds % 60);
	else
		(void)snprintf(
			text, PL_SIZE_TEXT, "%" PRId64 " h %" PRId64 " min", seconds / 3600, seconds % 3600 / 60);
}

static bool is_by_the_minute(double per_hour)
{
	return fabs(per_hour) >= (double)(1 << 30);
}

static int64_t whole(double number)
{
	return fabs(number) < 9e18 ? (int64_t)(number + copysign(0.5, number)) : number < 0 ? INT64_MIN : INT64_MAX;
}

void pl_format_rate(double per_hour, bool sign, double like, char text[PL_SIZE_TEXT])
{
	const double in_an_hour = is_by_the_minute(like) ? 60 : 1;

	pl_format_size_like(whole(per_hour / in_an_hour), sign, whole(like / in_an_hour), text);
}

const char *pl_rate_unit(double like)
{
	return is_by_the_minute(like) ? "min" : "h";
}

static int64_t read_clock(clockid_t clock)
{
	struct timespec now;

	(void)clock_gettime(clock, &now);
	return (int64_t)now.tv_sec * PL_NSEC_PER_SEC + now.tv_nsec;
}

int64_t pl_now_ns(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

void pl_sleep_ns(int64_t ns)
{
	struct timespec left = {ns / PL_NSEC_PER_SEC, ns % PL_NSEC_PER_SEC};

	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		;
}

int64_t pl_thread_cpu_ns(void)
{
	return read_clock(CLOCK_THREAD_CPUTIME_ID);
}
