/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "output.h"
#include "pyleak/units.h"
#include "scan.h"
#include "table.h"

enum { COMMAND_COLUMNS = 60 };

/* Not the ones that cannot be attached to, but `doctor` is for these: they come last. */
static void print_some(FILE *out, const struct pl_candidates *candidates, bool attachable)
{
	for (size_t i = 0; i < candidates->count; i++) {
		const struct pl_candidate *candidate = &candidates->items[i];
		const char *command = pl_process_title(&candidate->process);
		const char *reason = pl_candidate_reason(candidate);
		char rss[PL_SIZE_TEXT];

		if (attachable != !reason)
			continue;
		pl_format_size((int64_t)candidate->process.rss, false, rss);
		fprintf(out, "%d\t%.*s (%s%s%s)\n", (int)candidate->process.pid,
			(int)pl_output_fitting(command, COMMAND_COLUMNS), command, rss, reason ? ", " : "", reason ? reason : "");
	}
}

int pl_completions_print_pids(FILE *out)
{
	__attribute__((cleanup(pl_candidates_free))) struct pl_candidates candidates = {NULL, 0};
	int code = pl_candidates_scan(&candidates);

	if (code < 0)
		return code;
	print_some(out, &candidates, true);
	print_some(out, &candidates, false);
	return 0;
}
