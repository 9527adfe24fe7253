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
};
void pl_collector_read(const struct pl_python *python, struct pl_collector *ret);

#endif
