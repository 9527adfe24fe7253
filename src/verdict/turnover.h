/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_VERDICT_TURNOVER_H
#define PYLEAK_VERDICT_TURNOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pyleak/stats.h"

/* Of a site: the growth, in blocks, that nothing was set against yet. Of one of older blocks: how many were freed that were
 * set against nothing. */
struct turnover {
	double open;
	double fresh;   /* what of that is of this window: of older blocks, the rest is forgotten */
	double size;    /* of a block, on average; 0: not known */
	double total;   /* growth or, of older blocks, frees in all so far */
	double base;    /* what there was when older blocks were first counted: after the first window */
	double since;   /* growth or, of older blocks, frees since then */
	double matched; /* of the growth of this site, so far: what older blocks stand against */
};

/* Whether two sites are the same place of the same process, whatever their domains are. */
bool turnover_same_frames(const struct pl_sites *sites, uint32_t a, uint32_t b);

/* Sets what was freed against what grew. [count], by site. 0 or -ENOMEM. */
int turnover_match(const struct pl_sites *sites, struct turnover *turnovers, size_t count);

#endif
