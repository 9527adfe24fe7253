/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_ROW_ORDER_H
#define PYLEAK_CLI_ROW_ORDER_H

#include "pyleak/options.h"
#include "pyleak/stats.h"
#include "pyleak/verdict.h"

/* The part of the options that says which rows, and in which order. */
struct pl_rows_options pl_rows_wanted(const struct pl_options *options);

/* Rows as a report has them: those of pl_rows_make(), in its order. But of a family, where they are sorted by what grew, those
 * that grow steadily are before all others: what grew most in a window is what a worker that came or ended has done. `history`,
 * whose last window ends with `now`, may be NULL. 0 or -errno. */
int pl_rows_in_order(const struct pl_options *options, const struct pl_history *history, const struct pl_snapshot *now,
		     const struct pl_snapshot *before, struct pl_rows *ret);

#endif
