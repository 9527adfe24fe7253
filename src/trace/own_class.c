/* SPDX-License-Identifier: MIT */
#include <sched.h>

#include "tracee_private.h"

void own_class_leave_processor(int processor)
{
	cpu_set_t allowed, next;

	if (processor < 0 || processor >= CPU_SETSIZE || sched_getcpu() != processor ||
		sched_getaffinity(0, sizeof(allowed), &allowed) < 0 || CPU_COUNT(&allowed) < 2)
		return;
	do
		processor = (processor + 1) % CPU_SETSIZE;
	while (!CPU_ISSET(processor, &allowed));
	CPU_ZERO(&next);
	CPU_SET(processor, &next);
	/* At this priority we stay where we are put. */
	if (sched_setaffinity(0, sizeof(next), &next) == 0)
		(void)sched_setaffinity(0, sizeof(allowed), &allowed);
}

bool own_class_is_usual(void)
{
	return (sched_getscheduler(0) & ~SCHED_RESET_ON_FORK) == SCHED_OTHER;
}

bool own_class_take_highest(void)
{
	const struct sched_param highest = {.sched_priority = 1};

	/* Our own guardian, and what we may start, does not inherit it. */
	return sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &highest) == 0;
}

bool own_class_take_usual(void)
{
	const struct sched_param usual = {.sched_priority = 0};

	/* With the limit alone, and no capability, the flag stays. */
	return sched_setscheduler(0, SCHED_OTHER, &usual) == 0 || sched_setscheduler(0, SCHED_OTHER | SCHED_RESET_ON_FORK, &usual) == 0;
}
