/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HOOK_QUIESCENT_H
#define PYLEAK_HOOK_QUIESCENT_H

#include "pyleak/asleep.h"
#include "pyleak/hook.h"

/* Of one thread: whether it is in the probe, or will return into it. */
enum outside { OUTSIDE_YES, OUTSIDE_NO, OUTSIDE_UNKNOWN };

/* A thread that is stopped. leader: the process's first one. */
enum outside pl_thread_outside(
	const struct pl_thread *thread, bool leader, const struct pl_probe *probe, const struct pl_maps *maps);
/* A thread that sleeps, without touching it: *ret is how it does. Unknown also if it runs, or is not on its own stack. */
enum outside pl_sleeper_outside(pid_t pid, pid_t tid, const struct pl_probe *probe, const struct pl_maps *maps,
	struct pl_asleep *ret);

/* Whether no object is on its way through a deallocator of the probe, which would lead a thread back into it. */
bool pl_probe_is_empty(const struct pl_probe *probe, pid_t tid);

#endif
