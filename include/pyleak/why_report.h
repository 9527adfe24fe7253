/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_WHY_REPORT_H
#define PYLEAK_WHY_REPORT_H

#include "pyleak/holders.h"
#include "pyleak/report.h"

/* Whether a process leaks, where, and who holds it: in ten lines at most, or as a document. */

enum pl_why_kind {
	PL_WHY_LEAK,       /* a row grows steadily */
	PL_WHY_PERHAPS,    /* it does, by so little that it may be a small cache that fills */
	PL_WHY_FRAGMENTED, /* the process grows by what was freed and cannot be given back */
	PL_WHY_ELSEWHERE,  /* the process grows, and no row does */
	PL_WHY_CACHE,      /* what grows fills up, or has its older blocks go */
	PL_WHY_NOTHING,    /* nothing grows that can be told from chance */
	PL_WHY_IDLE,       /* nothing was allocated: it did no work while it was watched */
	PL_WHY_EARLY,      /* it ended before that can be told */
	PL_WHY_KINDS,
};

enum pl_why_holding {
	PL_WHY_NOT_ASKED,
	PL_WHY_HELD,      /* by a variable: the first of held->held_by */
	PL_WHY_CYCLES,    /* garbage that waits for the collector */
	PL_WHY_BY_NATIVE, /* objects, or memory, of which native code alone has the address */
	PL_WHY_NOT_SEEN,  /* its blocks went while they were looked for */
	PL_WHY_REFUSED,   /* it could not be looked at: `refusal` */
};

struct pl_why {
	enum pl_why_kind kind;
	const struct pl_report *report; /* of all windows, with the rows in the order of their growth */
	size_t windows;
	int64_t interval_ns;
	size_t row;          /* what it is about, by caller: of a leak the one that grows fastest; SIZE_MAX: none */
	size_t container;    /* a row of the program's that is one block which only grows; SIZE_MAX: none but `row` */
	size_t steady;       /* rows that grow steadily, that one among them */
	double steady_rate;  /* bytes an hour: of all of these */
	int64_t steady_diff; /* what they grew by */
	const struct pl_cause *cause; /* that most of what grows steadily is of; NULL: none that is known */
	double rss_rate;     /* of the resident size, without pyleak's part of it */
	uint64_t allocated;  /* bytes, in all windows */
	int64_t full_ns;     /* until memory is full; INT64_MAX: not known, or further away than can be told */
	enum pl_why_holding holding;
	const struct pl_held_row *held; /* who keeps the live blocks of the row; NULL: it is not known */
	const char *refusal;
	int64_t held_stop_ns; /* the longest time that a process was stopped for that */
	bool children;       /* --children was given */
	size_t workers;      /* Python processes that descend from it and were not watched */
};

const char *pl_why_name(enum pl_why_kind kind);
/* Who of the program called the line of the row; NULL: nobody is known. */
const struct pl_frame *pl_why_caller(const struct pl_why *why);
/* Where in a library most of it was allocated; NULL: on the line itself. */
const struct pl_frame *pl_why_allocated_in(const struct pl_why *why);
/* What to do next, in words; the caller frees it. NULL: out of memory. */
char *pl_why_advice(const struct pl_why *why);

/* At most ten lines of `width` columns; numbers and names of files are never cut. 0, -EIO or -ENOMEM. */
int pl_why_text(FILE *out, const struct pl_why *why, const struct pl_report_options *options, size_t width);
/* One document on one line: see pyleak-formats(5). */
int pl_why_json(FILE *out, const struct pl_why *why);

#endif
