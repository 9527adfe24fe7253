/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_COLLECTOR_H
#define PYLEAK_COLLECTOR_H

#include <stdbool.h>
#include <stdint.h>

#include "pyleak/python.h"

/* The collector of cycles, of the newest interpreter (3.7 and 3.8: of all). Read from outside, without a stop. */
struct pl_collector {
	bool known;   /* else nothing is */
	bool enabled; /* gc.isenabled() */
	bool counted; /* 3.8 to 3.13 with a GIL */
	uint64_t full; /* collections of the oldest generation so far */
	bool limited;  /* 3.8 and later */
	int32_t thresholds[3]; /* gc.get_threshold() */
	bool listed;   /* 3.8 and later, with a GIL */
	bool frozen;   /* gc.freeze() has put objects aside, and they are still there */
};

/*
 * Of struct _gc_runtime_state: the generations are at `at`, or at the next multiple of eight (Debian's 3.13.5 has a build in
 * which they are not aligned, and all that follows them is). The permanent one is behind the three of 24 bytes and, up to 3.13,
 * the youngest's address.
 */
static inline uint64_t pl_collector_aligned(uint64_t at)
{
	return (at + 7) & ~UINT64_C(7);
}
static inline uint64_t pl_collector_permanent(uint64_t generations, int minor)
{
	return pl_collector_aligned(generations + 3 * UINT64_C(24)) + (minor <= 13 ? 8 : 0);
}

void pl_collector_read(const struct pl_python *python, struct pl_collector *ret);

#endif
