/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_REPORT_COLLECTOR_H
#define PYLEAK_REPORT_COLLECTOR_H

#include <jansson.h>
#include <stdio.h>

#include "pyleak/report.h"

/* That the collector of cycles does not run, where that says something of what grows. */
void collector_print(FILE *out, const struct pl_report *report);
/* The member "collector", of one that is known. NULL: out of memory. */
json_t *collector_make(const struct pl_report *report);

#endif
