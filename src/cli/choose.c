/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "pyleak/options.h"
#include "scan.h"

enum { MAX_NAMED = 12, NAME = 48 }; /* what fits into one line that is still read */

/* "12 (gunicorn: worker), 34 (python3 app.py) and 3 more", of those that can be attached to. */
static void name_candidates(const struct pl_candidates *candidates, char *text, size_t size)
{
	size_t named = 0, more = 0;
	int used = 0;

	text[0] = '\0';
	for (size_t i = 0; i < candidates->count; i++) {
		const struct pl_process *process = &candidates->items[i].process;
		const char *command = process->command_line && *process->command_line ? process->command_line
										      : process->comm;
		size_t length = strlen(command), cut = length;

		if (candidates->items[i].block.code)
			continue;
		if (named == MAX_NAMED) {
			more++;
			continue;
		}
		if (length > NAME)
			for (cut = NAME; cut > 0 && ((unsigned char)command[cut] & 0xc0) == 0x80;)
				cut--;
		used += snprintf(text + used, size - (size_t)used, "%s%d (%.*s%s)", named++ ? ", " : "", process->pid,
			(int)cut, command, cut < length ? "…" : "");
	}
	if (more)
		(void)snprintf(text + used, size - (size_t)used, " and %zu more", more);
}

int pl_choose_process(const struct pl_options *options, pid_t *ret_pid, struct pl_error *err)
{
	__attribute__((cleanup(pl_candidates_free))) struct pl_candidates candidates = {NULL, 0};
	char names[MAX_NAMED * (NAME + 32)];
	const struct pl_candidate *only = NULL;
	size_t attachable = 0;
	int r;

	if (options->pid) {
		*ret_pid = options->pid;
		return 0;
	}
	r = pl_candidates_scan(&candidates);
	if (r < 0)
		return pl_fail(err, r, "cannot list the processes: %s", strerror(-r));
	for (size_t i = 0; i < candidates.count; i++) {
		if (candidates.items[i].block.code)
			continue;
		attachable++;
		only = &candidates.items[i];
	}
	if (attachable == 1) {
		*ret_pid = only->process.pid;
		return 0;
	}
	if (attachable == 0 && candidates.count == 0)
		return pl_fail(err, -ESRCH, "no Python process is to be seen from here: give a PID");
	if (attachable == 0 && candidates.count == 1)
		return pl_fail(err, -ESRCH, "the only Python process, %d, cannot be attached to: %s",
			candidates.items[0].process.pid, candidates.items[0].block.text);
	if (attachable == 0)
		return pl_fail(err, -ESRCH, "none of %zu Python processes can be attached to, see 'pyleak ps'",
			candidates.count);
	name_candidates(&candidates, names, sizeof(names));
	return pl_fail(err, -ENOTUNIQ, "several Python processes can be attached to: %s; give a PID, see 'pyleak ps'", names);
}
