/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_VERDICT_BURSTS_H
#define PYLEAK_VERDICT_BURSTS_H

#include <stddef.h>

#include "pyleak/verdict.h"

/* A row whose blocks go in bursts, as a collector of cycles takes them: its lows, what each burst leaves, are compared with
 * each other, as what lies between them is garbage until the next. */
enum bursts {
	BURSTS_NONE,  /* it does not go in bursts, or they leave no more than they did */
	BURSTS_LEAVE, /* the last leaves more than the first, for certain; they are too few to say that it goes on */
	BURSTS_PILE,  /* each leaves more */
};

/* ret_lows: the points at which the bursts were over, at least three, of BURSTS_PILE; else none. */
enum bursts bursts_judge(const struct pl_point *points, size_t count, struct pl_series *ret_lows);

#endif
