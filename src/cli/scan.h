/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_SCAN_H
#define PYLEAK_CLI_SCAN_H

#include <stdbool.h>
#include <stddef.h>

#include "pyleak/error.h"
#include "pyleak/process.h"

/* The Python processes of this machine, or of this container, without touching any of them. */
struct pl_candidate {
	struct pl_process process;
	char python[32];       /* "3.11.2"; "" where it looks like Python and we may not look inside */
	struct pl_error block; /* code 0: can be attached to; else why not */
	bool probe;            /* a probe is in it */
	bool readable;         /* else nobody knows whether one is */
	pid_t pyleak;          /* the other pyleak that records it; 0: none that is to be seen */
	bool landing;          /* a landing page is, of this recording or an earlier one */
};

struct pl_candidates {
	struct pl_candidate *items; /* by pid */
	size_t count;
};

/* Processes that end meanwhile are left out, and so is pyleak itself. Free it also after an error. */
int pl_candidates_scan(struct pl_candidates *candidates);
void pl_candidates_free(struct pl_candidates *candidates);

/* Why not, in a word or two, for a table: "other user", "traced", … */
const char *pl_candidate_reason(const struct pl_candidate *candidate);

#endif
