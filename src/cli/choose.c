/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "pyleak/options.h"
#include "scan.h"

enum { MAX_NAMED = 12, NAME = 48 }; /* what fits into one line that is still read */

/* Which of the candidates can be the one that is meant. */
struct choice {
	const struct pl_candidates *candidates;
	bool probe; /* those that carry a probe; else those that can be attached to */
	bool heads; /* of families: not those whose parent is meant */
};

static bool qualifies(const struct choice *choice, const struct pl_candidate *candidate)
{
	return choice->probe ? candidate->probe : !candidate->block.code;
}

static bool meant(const struct choice *choice, const struct pl_candidate *candidate)
{
	if (!qualifies(choice, candidate))
		return false;
	for (size_t i = 0; choice->heads && i < choice->candidates->count; i++) {
		const struct pl_candidate *other = &choice->candidates->items[i];

		if (other->process.pid == candidate->process.ppid && qualifies(choice, other))
			return false;
	}
	return true;
}

/* How many are meant, and the first of them. */
static size_t count_meant(const struct choice *choice, const struct pl_candidate **ret_first)
{
	size_t count = 0;

	for (size_t i = 0; i < choice->candidates->count; i++)
		if (meant(choice, &choice->candidates->items[i]) && count++ == 0)
			*ret_first = &choice->candidates->items[i];
	return count;
}

/* "12 (gunicorn: worker), 34 (python3 app.py) and 3 more" */
static void name_candidates(const struct choice *choice, char *text, size_t size)
{
	const struct pl_candidates *candidates = choice->candidates;
	size_t named = 0, more = 0;
	int used = 0;

	text[0] = '\0';
	for (size_t i = 0; i < candidates->count; i++) {
		const struct pl_process *process = &candidates->items[i].process;
		const char *command = pl_process_title(process);
		size_t length = strlen(command), cut = length;

		if (!meant(choice, &candidates->items[i]))
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

static int explain_none(const struct pl_candidates *candidates, struct pl_error *err)
{
	if (candidates->count == 0)
		return pl_fail(err, -ESRCH, "no Python process is to be seen from here: give a PID");
	if (candidates->count == 1)
		return pl_fail(err, -ESRCH, "the only Python process, %d, cannot be attached to: %s",
			candidates->items[0].process.pid, candidates->items[0].block.text);
	return pl_fail(err, -ESRCH, "none of %zu Python processes can be attached to, see 'pyleak ps'",
		candidates->count);
}

int pl_choose_process(const struct pl_options *options, pid_t *ret_pid, struct pl_error *err)
{
	__attribute__((cleanup(pl_candidates_free))) struct pl_candidates candidates = {NULL, 0};
	char names[MAX_NAMED * (NAME + 32)];
	const struct pl_candidate *first = NULL;
	struct choice choice = {.candidates = &candidates, .probe = true, .heads = options->children};
	size_t count;
	int r;

	if (options->pid) {
		*ret_pid = options->pid;
		return 0;
	}
	r = pl_candidates_scan(&candidates);
	if (r < 0)
		return pl_fail(err, r, "cannot list the processes: %s", strerror(-r));
	count = count_meant(&choice, &first);
	if (count == 0) {
		choice.probe = false;
		count = count_meant(&choice, &first);
	}
	/* Whoever asks the doctor may ask about the one that cannot be attached to. */
	if (count == 0 && options->command == PL_COMMAND_DOCTOR && candidates.count == 1) {
		*ret_pid = candidates.items[0].process.pid;
		return 0;
	}
	if (count == 0)
		return explain_none(&candidates, err);
	if (count == 1) {
		*ret_pid = first->process.pid;
		return 0;
	}
	name_candidates(&choice, names, sizeof(names));
	return pl_fail(err, -ENOTUNIQ, "several Python processes %s: %s; give a PID, see 'pyleak ps'",
		choice.probe ? "carry a probe" : "can be attached to", names);
}
