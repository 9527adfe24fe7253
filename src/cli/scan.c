/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checks.h"
#include "pyleak/cleanup.h"
#include "pyleak/hook.h"
#include "pyleak/landing.h"
#include "pyleak/python.h"
#include "scan.h"

/* All that is left where maps and memory are closed to us. gunicorn and others change both names, so
 * this finds some of the processes, and never one too many that could be attached to. */
static bool looks_like_python(const struct pl_process *process)
{
	const char *word = process->command_line ? process->command_line : "";
	size_t length = strcspn(word, " ");

	for (;;) {
		const char *slash = memchr(word, '/', length);

		if (!slash)
			break;
		length -= (size_t)(slash + 1 - word);
		word = slash + 1;
	}
	return strncmp(process->comm, "python", 6) == 0 || (length >= 6 && strncmp(word, "python", 6) == 0);
}

/* 1: *candidate is filled. 0: none of ours, or it ended. */
static int look_at(pid_t pid, struct pl_candidate *candidate)
{
	struct pl_space *space;
	int identified, r;

	memset(candidate, 0, sizeof(*candidate));
	if (pl_space_of_process(pid, &space) < 0)
		return -ENOMEM;
	identified = pl_python_identify(space, candidate->python);
	pl_space_close(space);
	if (identified < 0) {
		candidate->python[0] = '\0';
		if (identified != -EPERM && identified != -EACCES)
			return identified == -ENOMEM ? -ENOMEM : 0;
	}
	r = pl_process_read(pid, &candidate->process);
	if (r < 0 || (identified < 0 && !looks_like_python(&candidate->process))) {
		pl_process_free(&candidate->process);
		return r == -ENOMEM ? -ENOMEM : 0;
	}
	(void)pl_process_may_trace(&candidate->process, &candidate->block);
	candidate->readable = identified >= 0;
	if (!candidate->readable)
		pl_fail(&candidate->block, -EPERM, "its memory may not be read");
	else
		candidate->probe = pl_probe_present(pid);
	candidate->landing = pl_landing_present(pid) != 0;
	candidate->pyleak = pl_probe_claimant(pid);
	if (candidate->pyleak)
		(void)pl_check_claimed(pid, &candidate->block);
	if (identified > 0)
		pl_fail(&candidate->block, -ENOEXEC, "process %d runs Python %s, which pyleak does not know", (int)pid,
			candidate->python);
	return 1;
}

int pl_candidates_scan(struct pl_candidates *candidates)
{
	pl_autofree pid_t *pids = NULL;
	size_t count;
	int r;

	*candidates = (struct pl_candidates){0};
	r = pl_process_list(&pids, &count);
	if (r < 0)
		return r;
	candidates->items = calloc(count ? count : 1, sizeof(*candidates->items));
	if (!candidates->items)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		if (pids[i] == getpid())
			continue;
		r = look_at(pids[i], &candidates->items[candidates->count]);
		if (r < 0)
			return r;
		candidates->count += (size_t)r;
	}
	return 0;
}

void pl_candidates_free(struct pl_candidates *candidates)
{
	for (size_t i = 0; i < candidates->count; i++)
		pl_process_free(&candidates->items[i].process);
	free(candidates->items);
	*candidates = (struct pl_candidates){0};
}

const char *pl_candidate_reason(const struct pl_candidate *candidate)
{
	switch (-candidate->block.code) {
	case 0:
		return NULL;
	case EPERM:
	case EACCES:
		return candidate->process.uid != geteuid() ? "other user" : "no permission";
	case EBUSY:
		return candidate->pyleak ? "already recorded" : "already traced";
	case ENOEXEC:
		return "not supported";
	case ESRCH:
		return "ended";
	default:
		return "refused";
	}
}
