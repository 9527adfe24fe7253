/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_WHY_JUDGE_H
#define PYLEAK_CLI_WHY_JUDGE_H

#include "pyleak/why_report.h"

/* What a report of all windows, with its verdicts, says of the process: fills in all of *why but who holds it. */
void pl_why_judge(const struct pl_report *report, struct pl_why *why);

/* And the known cause, if it leaks: by the tracebacks of report->stacks, and sources as `source_pid` sees them. */
void pl_why_find_cause(const struct pl_report *report, pid_t source_pid, struct pl_why *why);

/* Whether the answer will not become another one: after some windows in which it was the same. */
struct pl_why_certainty {
	const char *filename; /* of the row that was the answer last */
	int line;
	size_t times;
};
bool pl_why_is_sure(struct pl_why_certainty *certainty, const struct pl_why *why);

#endif
