/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_VERDICT_H
#define PYLEAK_VERDICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pyleak/stats.h"

/*
 * What the growth of a row is: a leak, a cache that fills, or noise. Pure computation over the
 * snapshots of one recording:
 *
 *   pl_snapshot ──pl_history_add──> pl_history ──with pl_rows──> pl_series ──> pl_verdict
 *
 * A command that takes a snapshot after each window adds each to a history, and asks for the
 * verdicts on the rows that it shows:
 *
 *   pl_history_add(history, now);
 *   pl_rows_make(now, before, &options, &rows);
 *   pl_verdicts_make(history, &rows, shown, verdicts);
 */

/* How many snapshots a history holds: when there are more, every second one goes, so that days of
 * windows take no more room than minutes (48 bytes for each site and snapshot). Totals are running
 * totals: what goes is resolution, never growth. */
enum { PL_HISTORY_POINTS = 40 };

/* A row at the moment of one snapshot. */
struct pl_point {
	int64_t taken_ns;   /* CLOCK_MONOTONIC */
	int64_t size;       /* live */
	int64_t count;
	uint64_t allocated; /* blocks, since the recording began */
	double turned;      /* blocks of `count` that others stand against, older than the recording, which were freed: of
			     * the same code and the like size, see src/verdict/turnover.c */
	double larger;      /* blocks of `count` that came in the place of smaller ones, older than the recording: at the very
			     * instruction one of these was freed as soon as they were there, as tables are made larger */
	int64_t ended;      /* bytes that went with processes that ended, of `size`; 0 or less: none */
	uint64_t work;      /* blocks that the process allocated in all, but for what others than the row did in imports;
			     * 0: not known */
};

/* A row over time: oldest first, the newest snapshot always the last. */
struct pl_series {
	struct pl_point points[PL_HISTORY_POINTS];
	size_t count;
};

struct pl_history;
struct pl_history *pl_history_new(void); /* NULL: out of memory */
void pl_history_free(struct pl_history *history); /* NULL is allowed */
/* Notes the snapshot, which may be freed then. All are of the same sites. 0 or -ENOMEM (the history
 * is as before). */
int pl_history_add(struct pl_history *history, const struct pl_snapshot *snapshot);
/* Windows seen so far: snapshots but one. */
size_t pl_history_windows(const struct pl_history *history);
/* When each of them was taken that it still has, oldest first, and the resident size then, without what
 * pyleak itself takes where that is known; how many. */
size_t pl_history_moments(const struct pl_history *history, int64_t taken_ns[PL_HISTORY_POINTS],
			  uint64_t rss[PL_HISTORY_POINTS]);
/* The series of the first `count` rows, as they are grouped and filtered in `rows` (which may be of
 * any snapshot in the history). 0 or -ENOMEM. */
int pl_history_series(const struct pl_history *history, const struct pl_rows *rows, size_t count,
		      struct pl_series *ret);

enum pl_growth {
	PL_GROWTH_NONE,      /* the row is not larger than it was */
	PL_GROWTH_EARLY,     /* larger, and too few windows to say more */
	PL_GROWTH_STEADY,    /* goes on and on: a leak, as far as it was watched */
	PL_GROWTH_LEVELLING, /* slows down, or has ended: a cache that fills */
	PL_GROWTH_NOISE,     /* up and down, with no trend that can be told from chance */
	PL_GROWTH_TURNOVER,  /* older blocks go as these come: a cache that is full */
};

struct pl_verdict {
	enum pl_growth growth;
	size_t windows;     /* that it rests on, at most PL_HISTORY_POINTS − 1 */
	int64_t watched_ns; /* and how long they were in all */
	/* Of PL_GROWTH_STEADY only, else 0: */
	double rate;                /* bytes an hour (Theil–Sen) */
	double rate_low, rate_high; /* its confidence interval of 90 % */
	double kept;                /* of the blocks allocated meanwhile, the share that stayed; 0: none was */
	double size_per_block;      /* bytes that stayed for each block allocated; 0: none was */
	/* Of any: */
	double turned;  /* of its growth, the share that older blocks which were freed stand against */
	bool ends;      /* processes of it end, and give back what they had: it grows within their lives */
	bool container; /* few blocks, which only ever become larger: a list, a dict or a set itself */
};

/* The verdict on one series; pyleak-output(7), "VERDICTS" says how it comes about. */
void pl_verdict_judge(const struct pl_series *series, struct pl_verdict *ret);
/* Those on the first `count` rows. 0 or -ENOMEM. */
int pl_verdicts_make(const struct pl_history *history, const struct pl_rows *rows, size_t count,
		     struct pl_verdict *ret);

/* "steady", "levelling", "noise", "turnover", "early", "none". */
const char *pl_growth_name(enum pl_growth growth);

/* How long until `room` bytes are full at the rate of a steady growth, in nanoseconds; INT64_MAX: never, beyond what fits,
 * or in more than a hundred times the time that was watched: nobody can foresee that. */
int64_t pl_verdict_time_to_fill(const struct pl_verdict *verdict, uint64_t room);

#endif
