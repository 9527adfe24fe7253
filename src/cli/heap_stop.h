/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_HEAP_STOP_H
#define PYLEAK_CLI_HEAP_STOP_H

#include <stdint.h>
#include <sys/types.h>

#include "pyleak/error.h"
#include "pyleak/holders.h"

/*
 * The one moment at which a process is stopped so that its heap can be copied: announced, refused beyond --max-stop, and
 * measured. If pyleak dies meanwhile, the kernel lets the process go.
 */
struct heap_stop {
	pid_t pid;
	int64_t most_ns;     /* --max-stop */
	int64_t expected_ns; /* as pl_heap_copy_prepare() said, and what `also` will take */
	/* What else is to be read while nothing changes; NULL: nothing. 0 or -errno. */
	int (*also)(void *context);
	void *context;
	int64_t took_ns; /* how long it was stopped; 0: it was not */
};
int heap_stop_copy(struct heap_stop *stop, struct pl_heap_copy *copy, struct pl_error *err);

#endif
