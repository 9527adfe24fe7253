/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_REPORT_ACCOUNT_H
#define PYLEAK_REPORT_ACCOUNT_H

#include <jansson.h>

#include "pyleak/report.h"

/* What the growth of the RSS consists of: a line, and a sentence where it is fragmentation. Nothing if it is not known. */
/* In words, above the rows: when most of the growth is in none of them. */
void account_print_headline(FILE *out, const struct pl_report *report);
void account_print(FILE *out, const struct pl_report *report);
/* What older blocks were freed, where any were. */
void account_print_older(FILE *out, const struct pl_report *report);
/* The member "account": null if it is not known. NULL: out of memory. */
json_t *account_make(const struct pl_report *report);
/* The member "pools": an array. NULL: out of memory. */
json_t *account_make_pools(const struct pl_report *report);

#endif
