/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_OVER_ALL_H
#define PYLEAK_CLI_OVER_ALL_H

#include "pyleak/report.h"

/* Fills in what grew most over all windows of the history, of the report's rows. 0 or -ENOMEM. */
int pl_over_all_make(struct pl_report *report, const struct pl_history *history);

#endif
