/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_REPORT_MEMBERS_H
#define PYLEAK_REPORT_MEMBERS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "pyleak/cleanup.h"
#include "pyleak/report.h"
#include "pyleak/text.h"

/* Building JSON. The put_ functions add a member to an object that may be NULL. They take what they
 * are given, and return whether it went wrong, which then is for want of memory: an object is built
 * by `failed |= put_…()`, one line a member. */

static inline bool put(json_t *object, const char *key, json_t *value)
{
	return json_object_set_new(object, key, value) < 0;
}

/* A JSON string of bytes that may be no UTF-8; NULL: out of memory. */
static inline json_t *make_string(const char *text)
{
	pl_autofree char *repaired = pl_text_repair(text);

	return repaired ? json_string(repaired) : NULL;
}

static inline bool put_string(json_t *object, const char *key, const char *text)
{
	return put(object, key, text ? make_string(text) : json_null());
}

static inline bool put_integer(json_t *object, const char *key, int64_t number)
{
	return put(object, key, json_integer(number));
}

static inline bool put_unsigned(json_t *object, const char *key, uint64_t number)
{
	return put_integer(object, key, number > INT64_MAX ? INT64_MAX : (int64_t)number);
}

/* A time in thousandths of a unit: a real that is printed with all its digits reads 10.003000000000000114. */
bool put_thousandths(json_t *object, const char *key, int64_t ns, int64_t ns_per_thousandth);

/* Where something is: filename, lineno, function. */
bool put_frame(json_t *object, const char *filename, int line, const char *function);

/* An object of these. NULL: out of memory. */
json_t *report_make_frame(const struct pl_frame *frame);

/* The document of --format json, with so many rows. NULL: out of memory. */
json_t *report_make(const struct pl_report *report, size_t limit);

/* One row of it, as it stands in `stats`. */
json_t *report_make_row(const struct pl_report *report, size_t row, bool traceback);

/* The document on one line with a newline, in ASCII only: a C1 control character is a whole escape
 * sequence to some terminals. Takes it; NULL is for want of memory. 0 or -errno. */
int json_print_line(FILE *out, json_t *document);

#endif
