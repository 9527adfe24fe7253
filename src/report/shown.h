/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_REPORT_SHOWN_H
#define PYLEAK_REPORT_SHOWN_H

#include <stdio.h>

#include "pyleak/report.h"

/* What several formats have in common: how many rows are shown, how frames are named. */

/* The rows of a stack's oldest frames, where --frames cut the traceback. */
#define OLDER_FRAMES "(older frames)"

/* At most limit (0: all). */
size_t shown_rows(const struct pl_rows *rows, size_t limit);
/* The sum of all rows from `shown` on. */
struct pl_row shown_rest(const struct pl_rows *rows, size_t shown);

/* Live bytes or blocks, or the bytes that came and went, by the sort key: what a stack weighs where a
 * format has one number for it. *ret_before is 0 where there is one snapshot only. */
int64_t shown_weight(const struct pl_report *report, const struct pl_row *row, int64_t *ret_before);
const char *shown_weight_name(const struct pl_report *report);
const char *shown_weight_unit(const struct pl_report *report);

/* The source line at a place, for the caller to free; NULL: not known, or not wanted. */
char *shown_source(const struct pl_report_options *options, const char *filename, int line);

/* Where the function of a row begins, by the `def` in its source; the line that is given where that is not to be found: a
 * lambda, a module, or a source that cannot be had (of a recording, but for the lines of its frames). */
int shown_definition(const struct pl_report_options *options, const char *filename, const char *function, int line);

#endif
