/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_REPORT_WINDOWS_H
#define PYLEAK_REPORT_WINDOWS_H

#include <jansson.h>
#include <stdio.h>

#include "pyleak/report.h"

/* Which of several windows a report is of, and when that was, on one line; of the only one, nothing. */
void windows_print_head(FILE *out, const struct pl_report *report);
/* What grew most over all of them, where the report has that. */
void windows_print_grown(FILE *out, const struct pl_report *report);
/* The same as JSON. */
json_t *windows_make_window(const struct pl_report *report);
json_t *windows_make_grown(const struct pl_report *report);

#endif
