/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "pyleak/units.h"
#include "scan.h"
#include "table.h"

enum { COMMAND_COLUMNS = 60 };

/* The longest beginning of UTF-8 text that is so many characters. */
static int fitting(const char *text)
{
	int length = 0;

	for (int columns = 0; text[length]; length++)
		if (((unsigned char)text[length] & 0xc0) != 0x80 && columns++ == COMMAND_COLUMNS)
			break;
	return length;
}

/* Not the ones that cannot be attached to, but `doctor` is for these: they come last. */
static void print_some(FILE *out, const struct pl_candidates *candidates, bool attachable)
{
	for (size_t i = 0; i < candidates->count; i++) {
		const struct pl_candidate *candidate = &candidates->items[i];
		const char *command = candidate->process.command_line;
		const char *reason = pl_candidate_reason(candidate);
		char rss[PL_SIZE_TEXT];

		if (attachable != !reason)
			continue;
		if (!command || !*command)
			command = candidate->process.comm;
		pl_format_size((int64_t)candidate->process.rss, false, rss);
		fprintf(out, "%d\t%.*s (%s%s%s)\n", (int)candidate->process.pid, fitting(command), command, rss, reason ? ", " : "",
			reason ? reason : "");
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
