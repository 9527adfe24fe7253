/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_HOLDING_H
#define PYLEAK_CLI_HOLDING_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "pyleak/holders.h"
#include "pyleak/options.h"
#include "pyleak/python.h"

/* The holders of a running process, which is stopped while its heap is copied: once for each look. */
struct pl_holding {
	pid_t pid;
	const struct pl_python *python;
	int64_t max_stop_ns; /* -EBUSY where it would have to be stopped for longer */
	/* NULL, or told of the copy when the holders have been found in it. */
	int (*found)(void *context, struct pl_heap_copy *heap, int64_t stop_ns, struct pl_error *err);
	void *context;
};

/* What the options ask for: for pictures, the tree too, and for heapsnapshot the graph, which is written to `out` when it is
 * there. */
struct pl_holders_options pl_holding_wanted(const struct pl_options *options, FILE *out, struct pl_held_tree *tree);
/* At one moment. *longest_ns: made larger if it was stopped for longer. Free *ret in any case. */
int pl_holding_find(const struct pl_holding *of, const struct pl_holders_options *wanted, struct pl_holders *ret,
	int64_t *longest_ns, struct pl_error *err);
/* What grew within an interval, so many holders at most (0: all); ^C ends it early. */
int pl_holding_growth(const struct pl_holding *of, int64_t interval_ns, size_t limit, struct pl_holders *ret,
	int64_t *longest_ns, struct pl_error *err);

#endif
