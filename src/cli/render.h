/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_RENDER_H
#define PYLEAK_CLI_RENDER_H

#include <stdbool.h>
#include <stdio.h>

#include "pyleak/options.h"
#include "pyleak/report.h"
#include "pyleak/stats.h"

/*
 * From snapshots to a document, for the commands that record and the one that reads a recording:
 * makes the rows of `now` against `before` (NULL: since the start) that the options ask for, and
 * prints them in their format. Of *report kind, facts, stop_ns and the processes are the caller's; the
 * rest is filled in. With a history of at least three windows, the last of them ending with `now`,
 * the rows that are shown get their verdicts (NULL: none). `over_all`: it is
 * the last of its windows, and says at its end what grew over all of them. *ret_exceeded: a row grew by more than --fail-above. 0 or -errno.
 */
int pl_render(const struct pl_options *options, struct pl_report *report, const struct pl_report_options *form,
	      const struct pl_snapshot *now, const struct pl_snapshot *before, const struct pl_history *history,
	      bool over_all, FILE *out, bool *ret_exceeded);

/* The same for who does not print it: `use` has it as long as it runs. */
struct pl_render_use {
	int (*use)(void *context, const struct pl_report *report); /* 0 or -errno */
	void *context;
	bool stacks; /* with pl_report.stacks, whatever the format is */
};
int pl_render_for(const struct pl_options *options, struct pl_report *report, const struct pl_report_options *form,
		  const struct pl_snapshot *now, const struct pl_snapshot *before, const struct pl_history *history,
		  bool over_all, const struct pl_render_use *use, bool *ret_exceeded);

#endif
