/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_INLINE_READ_H
#define PYLEAK_ENGINE_INLINE_READ_H

#include "pyleak/inline_config.h"
#include "pyleak/stats.h"

/*
 * The recorder's tables, read from outside while the recorder goes on, and turned into sites. What
 * was translated once is kept: a pass reads the new sites, and every site's totals.
 */
struct pl_inline_reader {
	int (*read)(void *context, uint64_t address, void *buffer, size_t length); /* 0 or -errno */
	void *context;
	/* Who called from this address; strings interned in `sites`. 0 or -ENOMEM. */
	int (*find_caller)(void *context, uint64_t address, struct pl_native_caller *ret);
	/* The allocator that is linked into the object with this address, interned; NULL: not known. */
	const char *(*find_allocator)(void *context, uint64_t address);
	void *caller_context;
	int minor;                       /* of the Python: its line tables */
	struct pl_inline_config config;  /* as it was found in the probe */
	struct pl_inline_control control; /* as of the last pass */
	struct pl_sites *sites;          /* borrowed */
	uint32_t *local;                 /* recorder's site number → number in sites, or UINT32_MAX: not yet */
	struct inline_code **codes;      /* by code number, NULL: not read yet */
	struct pl_inline_totals *totals; /* by the recorder's number: what `sites` has of each */
	bool starting; /* what comes is what the process begins with: see struct pl_totals */
	uint64_t known;                  /* recorder's numbers below this are in `local` */
	uint64_t capacity;
	/* Rows do not share what they point to, so that in sum they cannot be more than the table: a bound for what a
	 * tracee gone wild can make us keep. */
	uint64_t texts_read, frames_read;
	struct inline_remainder *remainders; /* after pl_inline_reader_end() */
	size_t remainder_count;
};

/* What a row of totals stands for: itself, or with a rate (config.sample) an unbiased estimate. The
 * variances of several rows add up; between windows too, where the rows differ. */
struct pl_inline_estimate {
	struct pl_totals totals;
	double live_size_variance, live_count_variance;
};
void pl_inline_estimate(const struct pl_inline_totals *row, uint64_t rate, struct pl_inline_estimate *ret);

/* Allocates, by a config that inline_config_check() has found right. 0, -ENOMEM. */
int pl_inline_reader_init(struct pl_inline_reader *reader);
void pl_inline_reader_free(struct pl_inline_reader *reader);

/* One pass: the sites' totals are those of the process now. 0 or -errno of reading; the sites then
 * hold what they held. */
int pl_inline_reader_pass(struct pl_inline_reader *reader);
/* The process is gone, and there is no pass after it: what is kept is what retiring it needs, some bytes for each site at
 * which something of it was live. 0; -ENOMEM: all is kept. */
int pl_inline_reader_end(struct pl_inline_reader *reader);
/* The process is gone, and with it all that was live: it is counted as freed. There is no pass after it. Again is
 * harmless. */
void pl_inline_reader_retire(struct pl_inline_reader *reader);

#endif
