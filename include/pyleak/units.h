/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_UNITS_H
#define PYLEAK_UNITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PL_NSEC_PER_SEC 1000000000LL
#define PL_NSEC_PER_MSEC 1000000LL
#define PL_NSEC_PER_USEC 1000LL

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
/* The same in the unit of `like`, a size that it stands beside; in its own where it would be less than a hundredth of that. */
void pl_format_size_like(int64_t bytes, bool sign, int64_t like, char text[PL_SIZE_TEXT]);
/* What _format_size(size / count, False) returns: the average is no whole number. count is not 0. */
void pl_format_average(int64_t size, int64_t count, char text[PL_SIZE_TEXT]);

/* So many bytes an hour without what they are by, which pl_rate_unit() says: "h", or "min" where `like`, the rate that this one
 * stands beside, is a GiB an hour and more. In the unit of `like`, as pl_format_size_like(). */
void pl_format_rate(double per_hour, bool sign, double like, char text[PL_SIZE_TEXT]);
const char *pl_rate_unit(double like);

/* 1234567 as "1,234,567"; returns where in `text` it begins. */
enum { PL_NUMBER_TEXT = 32 };
const char *pl_format_number(uint64_t value, char text[PL_NUMBER_TEXT]);

/* "1.9 ms", "10.0 s", "2 min 5 s": for people. */
void pl_format_duration(int64_t ns, char text[PL_SIZE_TEXT]);

/* CLOCK_MONOTONIC in nanoseconds. */
int64_t pl_now_ns(void);
/* Waits for so long, whatever signals come. */
void pl_sleep_ns(int64_t ns);
/* What the calling thread has computed: on a busy machine much less than what passes. */
int64_t pl_thread_cpu_ns(void);

#endif
