/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_STATS_ORDER_H
#define PYLEAK_STATS_ORDER_H

#include "pyleak/stats.h"

/* Puts rows into the order that pl_rows_make() promises. No two rows compare equal. */
void rows_sort(
	struct pl_row *items, size_t count, const struct pl_sites *sites, enum pl_group group_by, enum pl_sort sort);

#endif
