/* SPDX-License-Identifier: MIT */
#include "seen.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "pyleak/cleanup.h"
#include "pyleak/log.h"
#include "pyleak/process.h"
#include "pyleak/units.h"
#include "quiescent.h"

/* Until it has stopped it is not held: it waits for a processor. */
#define HELD_NSEC (200 * PL_NSEC_PER_MSEC)
#define PAUSE_NSEC PL_NSEC_PER_MSEC
#define PAUSE_NSEC_MAX (20 * PL_NSEC_PER_MSEC)

struct looking {
	struct carrier *carrier;
	const struct pl_probe *probe;
	enum seen_where where;
	pid_t *seen;
	size_t count, capacity;
};

static bool was_seen(const struct looking *looking, pid_t tid)
{
	for (size_t i = 0; i < looking->count; i++)
		if (looking->seen[i] == tid)
			return true;
	return false;
}

static int note_seen(struct looking *looking, pid_t tid)
{
	if (looking->count == looking->capacity) {
		size_t capacity = looking->capacity ? 2 * looking->capacity : 64;
		pid_t *seen = reallocarray(looking->seen, capacity, sizeof(*seen));

		if (!seen)
			return -ENOMEM;
		looking->seen = seen;
		looking->capacity = capacity;
	}
	looking->seen[looking->count++] = tid;
	return 0;
}

static bool in_routine(const struct looking *looking, uint64_t ip)
{
	return ip >= looking->probe->header.errand_entry && ip < looking->probe->header.errand_end;
}

static enum outside hold_and_look(struct looking *looking, pid_t pid, pid_t tid)
{
	struct pl_tracee *tracee = NULL;
	enum outside outside = OUTSIDE_UNKNOWN;
	pl_registers regs;
	int code = pl_tracee_hold(pid, tid, HELD_NSEC, &tracee);

	if (code < 0)
		return code == -ESRCH ? OUTSIDE_YES : OUTSIDE_UNKNOWN;
	if (looking->where == SEEN_OUTSIDE)
		outside = pl_thread_outside(
			&tracee->threads[0], tid == looking->probe->pid, looking->probe, &looking->carrier->maps);
	else if (pl_thread_registers(&tracee->threads[0], &regs) == 0)
		outside = in_routine(looking, pl_registers_ip(&regs)) ? OUTSIDE_NO : OUTSIDE_YES;

	int64_t held = pl_tracee_detach(tracee);

	if (held > looking->carrier->longest_hold)
		looking->carrier->longest_hold = held;
	return outside;
}

static enum outside look_at_thread(struct looking *looking, pid_t pid, pid_t tid);

/* A child that shares the memory until it calls exec() can be in the probe like a thread; its parent waits for it. */
static enum outside look_at_children(struct looking *looking, pid_t pid, pid_t tid)
{
	pl_autofree pid_t *children = NULL;
	enum outside outside = OUTSIDE_YES;
	size_t count = 0;

	if (pl_process_thread_children(pid, tid, &children, &count) < 0)
		return OUTSIDE_UNKNOWN;
	for (size_t i = 0; i < count && outside == OUTSIDE_YES; i++)
		if (pl_process_shares_memory(pid, children[i]))
			outside = look_at_thread(looking, children[i], children[i]);
	return outside;
}

static enum outside look_at_thread(struct looking *looking, pid_t pid, pid_t tid)
{
	struct pl_asleep asleep;
	enum outside outside = OUTSIDE_UNKNOWN;

	if (looking->where == SEEN_OUTSIDE) {
		outside = pl_sleeper_outside(pid, tid, looking->probe, &looking->carrier->maps, &asleep);
	} else {
		int code = pl_asleep_read(pid, tid, &asleep);

		if (code == -ESRCH)
			return OUTSIDE_YES;
		if (code == 0)
			outside = in_routine(looking, asleep.ip) ? OUTSIDE_NO : OUTSIDE_YES;
	}
	if (outside == OUTSIDE_YES && pl_asleep_may_wait_for_child(&asleep))
		return look_at_children(looking, pid, tid);
	/* Who waits uninterruptibly could not be stopped. */
	if (outside != OUTSIDE_UNKNOWN || asleep.state == 'D')
		return outside;
	if (pl_thread_is_kernels(pid, tid))
		return OUTSIDE_YES;
	return hold_and_look(looking, pid, tid);
}

/* Those that were not seen yet. *ret_left: how many it still is not. */
static int look_once(struct looking *looking, size_t *ret_left)
{
	pl_autofree pid_t *tids = NULL;
	size_t count = 0;
	int code = carrier_look(looking->carrier);

	*ret_left = 0;
	if (code == 0)
		code = pl_process_threads(looking->probe->pid, &tids, &count);
	for (size_t i = 0; code == 0 && i < count; i++) {
		if (was_seen(looking, tids[i]))
			continue;
		if (look_at_thread(looking, looking->probe->pid, tids[i]) == OUTSIDE_YES)
			code = note_seen(looking, tids[i]);
		else
			++*ret_left;
	}
	return code;
}

int seen_all(struct carrier *carrier, const struct pl_probe *probe, enum seen_where where, int64_t give_up)
{
	struct looking looking = {.carrier = carrier, .probe = probe, .where = where};
	int64_t pause = PAUSE_NSEC;
	size_t left;
	int code;

	for (;;) {
		code = look_once(&looking, &left);
		/* Threads that were born since the list was made began outside. */
		if (code < 0 || !left)
			break;
		if (pl_now_ns() >= give_up) {
			pl_log_debug("%zu threads of process %d were not seen outside of the probe", left, (int)probe->pid);
			code = -EAGAIN;
			break;
		}
		(void)nanosleep(&(struct timespec){.tv_nsec = pause}, NULL);
		pause = 2 * pause < PAUSE_NSEC_MAX ? 2 * pause : PAUSE_NSEC_MAX;
	}
	free(looking.seen);
	return code;
}
