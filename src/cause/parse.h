/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CAUSE_PARSE_H
#define PYLEAK_CAUSE_PARSE_H

#include <stdbool.h>

#include "pyleak/causes.h"

/* What pl_causes_parse() makes of a text; all strings point into `text`. */

enum { MAX_MATCH_FRAMES = 8 };

struct cause_match {
	size_t cause; /* which one it is of */
	struct {
		const char *file, *function;
	} frames[MAX_MATCH_FRAMES]; /* [count], outermost first */
	size_t count;
	bool inner; /* "...": there may be frames further in */
};

enum cause_fact { CAUSE_THREADS, CAUSE_PYTHON, CAUSE_MAXSIZE, CAUSE_LIVE, CAUSE_CHAIN };
enum cause_relation { CAUSE_BELOW, CAUSE_ABOVE, CAUSE_AT_LEAST };

struct cause_condition {
	size_t cause;
	enum cause_fact fact;
	const char *glob; /* of CAUSE_LIVE */
	enum cause_relation relation;
	int number;
};

struct pl_causes {
	char *text;
	struct cause_condition *conditions;
	size_t condition_count;
	struct pl_cause *causes;
	size_t count;
	struct cause_match *matches;
	size_t match_count;
};

#endif
