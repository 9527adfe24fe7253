/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_REPORT_PLACES_H
#define PYLEAK_REPORT_PLACES_H

#include <jansson.h>
#include <stdio.h>

#include "pyleak/report.h"

/* What grew beside the rows, by name: a line each, of at least so many bytes. */
void places_print(FILE *out, const struct pl_report *report, int64_t least);
/* The lines whose older blocks came into memory. */
void touched_print(FILE *out, const struct pl_report *report, int64_t least);
json_t *places_make(const struct pl_report *report);

#endif
