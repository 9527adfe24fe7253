/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "ptrace.h"
#include "tracee_private.h"

/*
 * A thread that does not come to a stop in time (it began to wait uninterruptibly after it was looked at, or is not given
 * a processor) cannot be let go either: ptrace(2) detaches only what is stopped. It goes on all the while, and is known
 * here until its stop is reported and it can be let go.
 */

struct late {
	pid_t pid, tid;
};
static struct late *lates;
static size_t late_count;

void late_add(pid_t pid, pid_t tid)
{
	struct late *grown = reallocarray(lates, late_count + 1, sizeof(*grown));

	/* Without memory the kernel lets it go when this process ends. */
	if (!grown)
		return;
	lates = grown;
	lates[late_count++] = (struct late){pid, tid};
}

bool late_take(pid_t pid, pid_t tid)
{
	for (size_t i = 0; i < late_count; i++)
		if (lates[i].pid == pid && lates[i].tid == tid) {
			lates[i] = lates[--late_count];
			return true;
		}
	return false;
}

/* Its stop has come: it goes on as it would have without us. One that was on a call or an errand stops at a system call,
 * which is no signal. False: it could not be let go. */
static bool release(pid_t tid, int status)
{
	bool signal = WIFSTOPPED(status) && !(status >> 16) && WSTOPSIG(status) != (SIGTRAP | 0x80);
	int code = WIFSTOPPED(status) ? pl_ptrace_detach(tid, signal ? WSTOPSIG(status) : 0) : 0;

	return code == 0 || code == -ESRCH;
}

void pl_trace_release_late(void)
{
	for (size_t i = late_count; i-- > 0;) {
		int status = 0;
		pid_t got = pl_ptrace_poll(lates[i].tid, &status);

		if (got == 0 || (got > 0 && !release(lates[i].tid, status)))
			continue;
		lates[i] = lates[--late_count];
	}
}
