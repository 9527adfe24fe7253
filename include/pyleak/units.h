/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_UNITS_H
#define PYLEAK_UNITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PL_NSEC_PER_SEC 1000000000LL
#define PL_NSEC_PER_MSEC 1000000LL

/* "500ms", "10s", "2m", "1h", "1d", "1.5s"; a bare number is seconds. *ret_ns > 0.
 * -EINVAL: not a duration; -ERANGE: zero, negative or over 10 years. */
int pl_parse_duration(const char *text, int64_t *ret_ns);

/* "64KiB", "64K", "1M", "1MiB", "2G", "4096", "1.5MiB", "0"; powers of 1024 always.
 * -EINVAL or -ERANGE (over 2^62). */
int pl_parse_size(const char *text, uint64_t *ret_bytes);

/* A whole decimal number within [min, max]. -EINVAL or -ERANGE. */
int pl_parse_number(const char *text, int64_t min, int64_t max, int64_t *ret_number);

enum { PL_SIZE_TEXT = 32 };

/* Byte for byte what tracemalloc's _format_size(bytes, sign) returns. */
void pl_format_size(int64_t bytes, bool sign, char text[PL_SIZE_TEXT]);
/* What _format_size(size / count, False) returns: the average is no whole number. count is not 0. */
void pl_format_average(int64_t size, int64_t count, char text[PL_SIZE_TEXT]);

/* "1.9 ms", "10.0 s", "2 min 5 s": for people. */
void pl_format_duration(int64_t ns, char text[PL_SIZE_TEXT]);

/* CLOCK_MONOTONIC in nanoseconds. */
int64_t pl_now_ns(void);

#endif
