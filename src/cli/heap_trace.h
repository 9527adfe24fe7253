/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_HEAP_TRACE_H
#define PYLEAK_CLI_HEAP_TRACE_H

#include "checks.h"
#include "pyleak/census.h"

/* The objects where no allocator's blocks can be walked: those that something leads to, in a copy of the heap. */
struct heap_traced {
	bool done;
	uint64_t unreached, unreached_size; /* not counted: nothing leads to them */
	int64_t stop_ns;                    /* how long the process was stopped */
};
/* -EBUSY: it would have to be stopped for more than two seconds; as of pl_heap_copy_prepare(), pl_tracee_seize() and
 * pl_heap_copy_types(). What was in *census is released if it succeeds. */
int heap_trace(const struct pl_subject *subject, struct pl_census *census, struct heap_traced *ret, struct pl_error *err);

#endif
