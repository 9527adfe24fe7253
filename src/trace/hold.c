/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "pyleak/asleep.h"
#include "pyleak/cleanup.h"
#include "pyleak/process.h"
#include "pyleak/units.h"
#include "ptrace.h"
#include "tracee_private.h"

/*
 * Holding one thread. One that does not come to a stop in time is known to late.c.
 */

static int seize(pid_t pid, pid_t tid)
{
	if (late_take(pid, tid))
		return 0;

	int code = pl_ptrace_seize(tid, PL_TRACE_OPTIONS);

	/* One that is on its way out may not be seized. */
	return code == -EPERM && thread_is_dead(pid, tid) ? -ESRCH : code;
}

bool pl_trace_holds(pid_t pid)
{
	return pl_ptrace_is_held(pid);
}

int pl_tracee_hold(pid_t pid, pid_t tid, int64_t patience_ns, struct pl_tracee **ret)
{
	struct pl_tracee *tracee = calloc(1, sizeof(*tracee));

	if (!tracee)
		return -ENOMEM;
	tracee->pid = pid;
	events_tick(true);
	pl_trace_release_late();

	int code = seize(pid, tid);

	if (code == 0 && !thread_add(tracee, tid)) {
		late_add(pid, tid);
		code = -ENOMEM;
	}
	if (code == 0) {
		int processor = pl_thread_processor(pid, tid);
		bool first = priority_raise();

		/* Where we are it would have to go to another processor for its stop, and would wait for its turn there. */
		if (first)
			own_class_leave_processor(processor);

		int64_t asked = pl_now_ns();

		tracee->raised = true;
		priority_lend(tid);
		threads_interrupt(tracee);
		code = events_await(tracee, tid, asked + patience_ns);
		/* Until it has stopped it is not held; when that was is seen at once only by who has the priority. */
		tracee->stopped_since = code < 0 ? 0 : first ? pl_now_ns() : asked;
	}
	if (code < 0) {
		(void)pl_tracee_detach(tracee);
		return code;
	}
	*ret = tracee;
	return 0;
}

/* -- who carries calls ---------------------------------------------------------------------------------- */

enum { LOOKED_AT = 48, RANKS = 5, UNFIT = RANKS };

/*
 * What a stop costs a thread that sleeps in this system call. 0: nothing, it is made again; 1: it runs, and is delayed;
 * 2: the same as 0, unless we die in between: then EINTR, for the kernel alone knows how it goes on; 3: not known;
 * 4: EINTR whoever stops it (signal(7); no handler is run, and few programs expect it).
 */
static int rank(pid_t pid, pid_t tid)
{
	enum { EPOLL_PWAIT2 = 441 }; /* on all of them; newer than some headers */
	struct pl_asleep asleep;
	int code = pl_asleep_read(pid, tid, &asleep);

	if (code == -ESRCH)
		return UNFIT;
	if (code == 0 && asleep.state == 'D')
		return UNFIT;
	if (code == -EAGAIN)
		return 1;
	if (code < 0)
		return 3;
	switch (asleep.number) {
	case SYS_read:
	case SYS_write:
	case SYS_accept:
	case SYS_accept4:
	case SYS_wait4:
	case SYS_waitid:
	case SYS_pselect6:
#ifdef SYS_pause /* an architecture of later years has the newer ones only */
	case SYS_pause:
	case SYS_select:
#endif
		return 0;
	case SYS_futex:
		return asleep.arguments[3] ? 2 : 0;
#ifdef SYS_poll
	case SYS_poll:
#endif
	case SYS_nanosleep:
	case SYS_clock_nanosleep:
	case SYS_restart_syscall:
		return 2;
#ifdef SYS_epoll_wait
	case SYS_epoll_wait:
#endif
	case SYS_epoll_pwait:
	case EPOLL_PWAIT2:
	case SYS_semop:
	case SYS_semtimedop:
	case SYS_rt_sigtimedwait:
	case SYS_io_getevents:
		return 4;
	default:
		return 3;
	}
}

static int try_carrier(pid_t pid, pid_t tid, const struct pl_maps *maps, const struct pl_gadgets *gadgets,
	struct pl_remote_choice *choice, struct pl_tracee **ret, struct pl_remote **ret_remote, struct pl_error *err)
{
	int code = pl_tracee_hold(pid, tid, CARRIER_PATIENCE_NSEC, ret);

	if (code < 0)
		return code;
	code = pl_remote_begin(*ret, maps, gadgets, ret_remote, err);
	if (code < 0) {
		int64_t held = pl_tracee_detach(PL_TAKE(*ret));

		choice->in_vain = held > choice->in_vain ? held : choice->in_vain;
	}
	return code;
}

/* What befell this thread only: the next one is tried. */
static bool may_go_on(int code)
{
	return code == -ESRCH || code == -ETIMEDOUT || code == -EAGAIN;
}

static int choose(pid_t pid, const struct pl_maps *maps, const struct pl_gadgets *gadgets, struct pl_remote_choice *choice,
	struct pl_tracee **ret, struct pl_remote **ret_remote, struct pl_error *err)
{
	pl_autofree pid_t *tids = NULL;
	uint8_t ranks[LOOKED_AT];
	size_t count;
	int result = -EAGAIN, code = pl_process_threads(pid, &tids, &count);

	if (code < 0)
		return code;
	for (size_t i = 0; i < count && i < LOOKED_AT; i++)
		ranks[i] = (uint8_t)rank(pid, tids[i]);
	for (int wanted = 0; wanted < RANKS; wanted++)
		for (size_t i = 0; i < count; i++) {
			/* Of very many threads the further ones are looked at only if none of the first would do. */
			if (i < LOOKED_AT ? ranks[i] != wanted : wanted != RANKS - 1 || rank(pid, tids[i]) == UNFIT)
				continue;
			*err = (struct pl_error){0};
			code = try_carrier(pid, tids[i], maps, gadgets, choice, ret, ret_remote, err);
			if (code == 0) {
				choice->tid = tids[i];
				choice->rank = wanted;
			}
			if (!may_go_on(code))
				return code;
			if (code != -ESRCH)
				result = code;
		}
	return result;
}

int pl_remote_hold(pid_t pid, const struct pl_maps *maps, const struct pl_gadgets *gadgets, struct pl_remote_choice *choice,
	struct pl_tracee **ret, struct pl_remote **ret_remote, struct pl_error *err)
{
	struct pl_remote_choice none = {0};
	struct pl_error last = {0};
	int code = -EAGAIN;

	if (!choice)
		choice = &none;
	/* One that runs is not the one of choice for having been it. */
	if (choice->tid && choice->rank != 1 && rank(pid, choice->tid) <= choice->rank)
		code = try_carrier(pid, choice->tid, maps, gadgets, choice, ret, ret_remote, &last);
	if (may_go_on(code)) {
		choice->tid = 0;
		code = choose(pid, maps, gadgets, choice, ret, ret_remote, &last);
	}
	if (code == 0)
		return 0;
	return last.text[0] ? pl_fail(err, code, "%s", last.text) :
			      pl_fail(err, code, "no thread of process %d can carry a system call at this moment: try again",
				      (int)pid);
}
