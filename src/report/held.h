/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_REPORT_HELD_H
#define PYLEAK_REPORT_HELD_H

#include <jansson.h>

#include "pyleak/report.h"

/* Who keeps the live blocks of a row (--holders): below it, a line for each; nothing where nobody asked. */
void held_print(FILE *out, const struct pl_report *report, const struct pl_report_options *options, size_t row);
/* "held_by" and "held_of" of a row; NULL: out of memory. */
json_t *held_make(const struct pl_held_row *row);
json_t *held_make_of(const struct pl_held_row *row);

#endif
