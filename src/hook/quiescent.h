/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HOOK_QUIESCENT_H
#define PYLEAK_HOOK_QUIESCENT_H

#include "pyleak/asleep.h"
#include "pyleak/hook.h"

/* Of one thread: whether it is in the probe, or will return into it. */
enum outside { OUTSIDE_YES, OUTSIDE_NO, OUTSIDE_UNKNOWN };

/* A thread that is stopped. leader: the process's first one. *left: what it stays for, if it is not known to be outside. */
enum outside pl_thread_outside(const struct pl_thread *thread, bool leader, const struct pl_probe *probe,
	const struct pl_maps *maps, struct pl_probe_left *left);
/* A thread that sleeps, without touching it: *ret is how it does. Unknown also if it runs, or is not on its own stack. */
enum outside pl_sleeper_outside(pid_t pid, pid_t tid, const struct pl_probe *probe, const struct pl_maps *maps,
	struct pl_asleep *ret, struct pl_probe_left *left);

/* Of all threads, which are stopped; the first that is not outside is in *left. */
bool all_outside(struct pl_tracee *tracee, const struct pl_probe *probe, const struct pl_maps *maps, struct pl_probe_left *left);

/* How many objects are on their way through a deallocator of the probe, which would lead a thread back into it. */
int pl_probe_objects(const struct pl_probe *probe, pid_t tid, uint32_t *ret);
/* A thread that sleeps and has one of these objects in hand, or 0. */
pid_t pl_probe_find_holder(const struct pl_probe *probe);

#endif
