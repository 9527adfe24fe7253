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
	/* The same of an allocator that is linked into an object and called from there: the object alone, and as symbol the
	 * allocator's name if it is known. Of functions nothing is looked for, which takes long in large objects. */
	int (*find_pool)(void *context, uint64_t address, struct pl_native_caller *ret);
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
	/* Rows do not share what they point to, so that in sum those of one moment cannot be more than the table, and they
	 * come to so many lines and no more: bounds for what a tracee gone wild can make us keep. */
	uint64_t texts_read, frames_read;
	uint8_t *words;         /* by the recorder's number: of the frames that were read */
	uint64_t reused;        /* as of control, when `codes` was last current */
	struct inline_frame *kept; /* of this pass */
	uint64_t *bulk;         /* words of frames from bulk_first on, or none */
	uint64_t bulk_first, bulk_count;
	struct inline_remainder *remainders; /* after pl_inline_reader_end() */
	size_t remainder_count;
};

/* What a row of totals stands for: itself, or, of a sample, an unbiased estimate, by the rate that the row has or the one
 * that was given (config.sample). The variances of several rows add up; between windows too, where the rows differ. */
struct pl_inline_estimate {
	struct pl_totals totals;
	double live_size_variance, live_count_variance;
};
void pl_inline_estimate(const struct pl_inline_totals *row, uint64_t given, struct pl_inline_estimate *ret);
/* Whether what is allocated is sampled, from the start or by now; as of the last pass. */
static inline bool pl_inline_reader_samples(const struct pl_inline_reader *reader)
{
	return reader->config.sample || pl_inline_sampling(reader->control.mode);
}

/* Allocates, by a config that inline_config_check() has found right. 0, -ENOMEM. */
int pl_inline_reader_init(struct pl_inline_reader *reader);
void pl_inline_reader_free(struct pl_inline_reader *reader);

/* One pass: the sites' totals are those of the process now. 0 or -errno of reading; the sites then
 * hold what they held. */
int pl_inline_reader_pass(struct pl_inline_reader *reader);
/*
 * Rows that are used again (see the ABI): whoever frees one says so. A pass notices by itself what another tracer frees.
 * settle: the totals of a row to which nobody adds any more, with what it came to last. forget: the row is spare, of the
 * generation that its totals say. Both of a row below `known`.
 */
void pl_inline_reader_settle(struct pl_inline_reader *reader, uint64_t number, const struct pl_inline_totals *row);
void pl_inline_reader_forget(struct pl_inline_reader *reader, uint64_t number, uint32_t generation, uint32_t room);
void pl_inline_reader_forget_code(struct pl_inline_reader *reader, uint32_t number);
/* What was allocated and freed, by all kinds of adders. */
struct pl_totals pl_inline_row_sum(const struct pl_inline_totals *row);

/* Sets has[site] where something is live, as of the last pass. */
void pl_inline_reader_live(const struct pl_inline_reader *reader, bool *has, size_t count);
/* The process is gone, and there is no pass after it: what is kept is what retiring it needs, some bytes for each site at
 * which something of it was live. 0; -ENOMEM: all is kept. */
int pl_inline_reader_end(struct pl_inline_reader *reader);
/* The process is gone, and with it all that was live: it is counted as freed. There is no pass after it. Again is
 * harmless. */
void pl_inline_reader_retire(struct pl_inline_reader *reader);

/* -- rows.c -------------------------------------------------------------------------------------------- */

enum { INLINE_ROWS_AT_ONCE = 256 };
/* Those that are not ready have no hash. 0 or -errno. */
int inline_rows_read(const struct pl_inline_reader *reader, uint64_t first, size_t count,
		     struct pl_inline_site rows[INLINE_ROWS_AT_ONCE]);

/* -- frames.c ------------------------------------------------------------------------------------------ */

int inline_frames_init(struct pl_inline_reader *reader);
void inline_frames_free(struct pl_inline_reader *reader);
/* At the beginning of a pass. */
void inline_frames_renew(struct pl_inline_reader *reader);
/* What a word of frames says. 0; -EAGAIN: the row of its code object is not ready. */
int inline_frames_resolve(struct pl_inline_reader *reader, uint64_t word, struct pl_frame *ret);

#endif
