/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_HELD_H
#define PYLEAK_CLI_HELD_H

#include "pyleak/holders.h"
#include "pyleak/options.h"
#include "pyleak/stats.h"
#include "targets.h"

/*
 * Who keeps the live blocks of rows, of processes that are being recorded by the inline engine:
 *
 *   pl_held_prepare()  copies their heaps while they run, which tells how long a stop takes
 *   (a snapshot, and rows of it)
 *   pl_held_stop()     stops each once, copies, notes the blocks of the first `count` rows, and lets it go
 *   (the hooks may be taken out)
 *   pl_held_find()     the graph, and for each row who keeps its blocks
 *
 * Each may fail with a line to print; what was recorded is not touched by it. Of a row with very many blocks a sample is
 * looked at: pl_held_row.looked_at.
 */
struct pl_held;
int pl_held_prepare(struct pl_targets *targets, struct pl_held **ret, struct pl_error *err);
/* rows: made of a snapshot of the sites that the targets feed. -EBUSY: it would take longer than most_ns. */
int pl_held_stop(struct pl_held *held, const struct pl_rows *rows, size_t count, int64_t most_ns, struct pl_error *err);
/* *ret: the caller's, see pl_held_rows_free(); as many as rows were asked for. */
int pl_held_find(struct pl_held *held, struct pl_held_row **ret, size_t *ret_count, struct pl_error *err);
/* The longest time that one of them was stopped; 0: none was. */
int64_t pl_held_stop_ns(const struct pl_held *held);
void pl_held_free(struct pl_held *held); /* NULL is allowed */
void pl_held_rows_free(struct pl_held_row *rows, size_t count);

#endif
