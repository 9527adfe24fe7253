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
	const char *name; /* those that have it in what they are called, whatever else they are; NULL: any name */
};

static bool qualifies(const struct choice *choice, const struct pl_candidate *candidate)
{
	if (choice->name)
		return strstr(pl_process_title(&candidate->process), choice->name) ||
		       strcmp(candidate->process.comm, choice->name) == 0;
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

/* Appends "\n  12  gunicorn: worker\n  34  python3 app.py\n  and 3 more": the one text of errors that has several lines. What
 * a process is called has no control characters. */
static void name_candidates(const struct choice *choice, struct pl_error *err)
{
	const struct pl_candidates *candidates = choice->candidates;
	size_t named = 0, more = 0, used = strlen(err->text);

	for (size_t i = 0; i < candidates->count; i++) {
		const struct pl_process *process = &candidates->items[i].process;
		const char *command = pl_process_title(process);
		size_t length = strlen(command), cut = length;

		if (!meant(choice, &candidates->items[i]))
			continue;
		if (named++ >= MAX_NAMED) {
			more++;
			continue;
		}
		if (length > NAME)
			for (cut = NAME; cut > 0 && ((unsigned char)command[cut] & 0xc0) == 0x80;)
				cut--;
		if (sizeof(err->text) - used > NAME + 32)
			used += (size_t)snprintf(err->text + used, sizeof(err->text) - used, "\n  %d  %.*s%s", process->pid, (int)cut,
				command, cut < length ? "…" : "");
	}
	if (more)
		(void)snprintf(err->text + used, sizeof(err->text) - used, "\n  and %zu more", more);
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
	const struct pl_candidate *first = NULL;
	struct choice choice = {.candidates = &candidates, .probe = true, .heads = options->children, .name = options->process};
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
	if (count == 0 && choice.name)
		return pl_fail(err, -ESRCH, "no Python process that is to be seen is called '%s': give a PID, see 'pyleak ps'",
			choice.name);
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
	if (choice.name)
		r = pl_fail(err, -ENOTUNIQ, "several Python processes are called '%s', give the PID of one:", choice.name);
	else
		r = pl_fail(err, -ENOTUNIQ, "several Python processes %s, give the PID of one:",
			choice.probe ? "carry a probe" : "can be attached to");
	name_candidates(&choice, err);
	return r;
}
