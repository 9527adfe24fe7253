/* SPDX-License-Identifier: MIT */
#include <sched.h>
#include <sys/resource.h>

#include "tracee_private.h"

/*
 * Who holds a thread of a busy service must not wait for a processor himself: a tracer of the usual priority was seen to
 * hold a process of one thread for 270 ms. So while a thread is held this one comes before all others, on the one
 * processor that it uses, and gives that up again with the thread. Without the right to that (CAP_SYS_NICE, RLIMIT_RTPRIO)
 * it is as nice as it may be to itself.
 */

static int depth;
static struct {
	int policy, nice;
	struct sched_param param;
	bool realtime, changed;
} before;

bool priority_raise(void)
{
	const struct sched_param highest = {.sched_priority = 1};

	if (depth++)
		return before.realtime;
	before.policy = sched_getscheduler(0);
	if (before.policy < 0 || sched_getparam(0, &before.param) < 0)
		before.policy = SCHED_OTHER;
	before.nice = getpriority(PRIO_PROCESS, 0);
	before.realtime = before.policy == SCHED_FIFO || before.policy == SCHED_RR;
	before.changed = false;
	if (before.realtime)
		return true;
	/* Our own guardian, and what we may start, does not inherit it. */
	before.changed = sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &highest) == 0;
	before.realtime = before.changed;
	if (!before.changed)
		(void)setpriority(PRIO_PROCESS, 0, -20);
	return before.realtime;
}

void priority_lower(void)
{
	if (--depth)
		return;
	/* With the limit alone, and no capability, the flag stays. */
	if (before.changed && sched_setscheduler(0, before.policy, &before.param) < 0)
		(void)sched_setscheduler(0, before.policy | SCHED_RESET_ON_FORK, &before.param);
	if (!before.realtime && getpriority(PRIO_PROCESS, 0) != before.nice)
		(void)setpriority(PRIO_PROCESS, 0, before.nice);
}
