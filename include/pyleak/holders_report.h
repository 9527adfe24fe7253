/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HOLDERS_REPORT_H
#define PYLEAK_HOLDERS_REPORT_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

#include "pyleak/holders.h"

/* Who holds the memory, printed. */
struct pl_holders_report {
	const struct pl_holders *holders;
	pid_t pid;
	const char *python;  /* "3.11.2" */
	const char *type;    /* --type; NULL: none given */
	double stop_ms;      /* how long the process was stopped */
	uint64_t rss;
	bool account_known;  /* what the allocators hold free, and what files show */
	uint64_t free, files;
};

/* 0, -EIO or -ENOMEM. Text: at most 80 columns where names are short enough; numbers are never cut. */
int pl_holders_text(FILE *out, const struct pl_holders_report *report, bool color);
/* One document on one line: see pyleak(1). */
int pl_holders_json(FILE *out, const struct pl_holders_report *report);

#endif
