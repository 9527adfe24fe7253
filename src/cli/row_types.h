/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_ROW_TYPES_H
#define PYLEAK_CLI_ROW_TYPES_H

#include "pyleak/options.h"
#include "pyleak/row_types.h"
#include "pyleak/verdict.h"
#include "targets.h"

/* What the live blocks of rows are, as the processes have them now: of the first rows of the report of these snapshots; the
 * caller frees. NULL: nothing is known of any. */
struct pl_row_types *pl_row_types_of_snapshots(struct pl_targets *targets, const struct pl_options *options,
					       const struct pl_history *history, const struct pl_snapshot *now,
					       const struct pl_snapshot *before, size_t *ret_count);
/* Of a single one. */
void pl_row_types_of_row(struct pl_targets *targets, const struct pl_sites *sites, const struct pl_row *row,
			 enum pl_group group_by, struct pl_row_types *ret);

#endif
