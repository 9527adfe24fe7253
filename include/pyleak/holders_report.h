/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HOLDERS_REPORT_H
#define PYLEAK_HOLDERS_REPORT_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

#include "pyleak/holders.h"
#include "pyleak/report.h"

/* Who holds the memory, printed. */
struct pl_holders_report {
	const struct pl_holders *holders;
	pid_t pid;
	const char *python;  /* "3.11.2" */
	const char *type;    /* --type; NULL: none given */
	const char *file;    /* a core file; NULL: a live process */
	uint64_t memory;     /* bytes of memory in it */
	double stop_ms;      /* how long the process was stopped */
	uint64_t rss;        /* 0: a file does not say it */
	bool account_known;  /* what the allocators hold free, and what files show */
	uint64_t free, files;
	const struct pl_held_tree *tree; /* for the formats below that show it */
};

/* 0, -EIO or -ENOMEM. Text: at most 80 columns where names are short enough; numbers are never cut. */
int pl_holders_text(FILE *out, const struct pl_holders_report *report, bool color);
/* One document on one line: see pyleak-formats(5). */
int pl_holders_json(FILE *out, const struct pl_holders_report *report);
/* In the format that was asked for. */
int pl_holders_print(FILE *out, enum pl_format format, const struct pl_holders_report *report, bool color);

/* One page with everything in it: what retains what, to be walked through, and all that the JSON document has. */
int pl_holders_html(FILE *out, const struct pl_holders_report *report);
/* What is retained, by path: lines for flame graphs, or a profile for pprof. */
int pl_holders_stacks(FILE *out, const struct pl_holders_report *report, bool folded);

#endif
