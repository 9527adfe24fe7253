/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/process.h"
#include "pyleak/units.h"
#include "ptrace.h"
#include "tracee_private.h"

#define ONE_STOP_NSEC (50 * PL_NSEC_PER_MSEC) /* how long one try may hold the process */
#define BETWEEN_STOPS_NSEC (50 * PL_NSEC_PER_MSEC)
#define SEIZE_TRIES 3

/* One try: every thread there is, those born meanwhile included, stops before the deadline. */
static int stop_once(struct pl_tracee *tracee, int64_t deadline)
{
	for (;;) {
		int added = tracee->follow_threads ? 0 : threads_seize_new(tracee);

		if (added < 0)
			return added;
		threads_interrupt(tracee);

		int code = events_collect_stops(tracee, deadline);

		if (code < 0)
			return code;
		if (added == 0)
			return 0;
	}
}

/* Serves whatever happens for a while with the process running. */
static int serve_for(struct pl_tracee *tracee, int64_t duration)
{
	int64_t end = pl_now_ns() + duration;

	while (pl_now_ns() < end) {
		int code = pl_tracee_wait(tracee);

		if (code < 0)
			return code;
	}
	return 0;
}

int pl_tracee_stop(struct pl_tracee *tracee, int64_t patience_ns, struct pl_error *err)
{
	int64_t give_up = pl_now_ns() + patience_ns;

	/* Each try that fails costs the other threads its time, so they get further apart. */
	for (int64_t pause = BETWEEN_STOPS_NSEC;; pause *= 2) {
		int code = stop_once(tracee, pl_now_ns() + ONE_STOP_NSEC);

		if (code == -ESRCH)
			return pl_fail(err, code, "process %d ended", (int)tracee->pid);
		if (code != -ETIMEDOUT)
			return code;
		pl_tracee_resume(tracee);
		if (pl_now_ns() >= give_up)
			return pl_fail(err, code,
				"a thread of process %d cannot be stopped now (it waits uninterruptibly, or for a "
				"child that has not called exec): try again later",
				(int)tracee->pid);
		code = serve_for(tracee, pause < give_up - pl_now_ns() ? pause : give_up - pl_now_ns());
		if (code < 0)
			return pl_fail(err, code, "process %d ended", (int)tracee->pid);
	}
}

/* A tracer that was killed a moment ago may not have let go yet: its threads are released while it
 * is taken down, which the guardian and `pyleak detach` must outwait. */
static int seize_patiently(struct pl_tracee *tracee, int64_t give_up)
{
	for (int tries = 0;; tries++) {
		int code = threads_seize_new(tracee);

		if (code != -EPERM || pl_now_ns() >= give_up)
			return code;

		struct pl_process process;
		bool dying_tracer = pl_process_read(tracee->pid, &process) == 0 && process.tracer > 0;

		if (dying_tracer) {
			struct pl_process other;

			dying_tracer = pl_process_read(process.tracer, &other) < 0 || strchr("ZX", other.state);
			pl_process_free(&other);
		}
		pl_process_free(&process);
		/* A thread that is on its way out may not be seized either, nor one that becomes the leader by
		 * execve(), and a moment later neither can be told from the others any more. */
		if (!dying_tracer && tries == SEIZE_TRIES)
			return code;
		pl_sleep_ns(5 * PL_NSEC_PER_MSEC);
	}
}

int pl_tracee_seize(pid_t pid, int64_t patience_ns, struct pl_tracee **ret, struct pl_error *err)
{
	struct pl_tracee *tracee = calloc(1, sizeof(*tracee));

	if (!tracee)
		return pl_fail(err, -ENOMEM, "out of memory");
	tracee->pid = pid;

	pace_suspend();
	tracee->unpaced = true;

	int code = pl_process_start_time(pid, &tracee->start_time);

	if (code < 0) {
		code = pl_fail(err, code, "no process %d", (int)pid);
		goto fail;
	}
	events_tick(true);
	code = seize_patiently(tracee, pl_now_ns() + patience_ns);
	if (code == -EPERM) {
		struct pl_process process;

		if (pl_process_read(pid, &process) == 0)
			(void)pl_process_explain_denied(&process, err);
		pl_process_free(&process);
		code = pl_fail(err, code, "process %d may not be traced", (int)pid);
		goto fail;
	}
	if (code < 0) {
		code = pl_fail(err, code, "process %d cannot be traced: %s", (int)pid, strerror(-code));
		goto fail;
	}
	code = pl_tracee_stop(tracee, patience_ns, err);
	if (code < 0) {
		code = pl_fail(err, code, "process %d cannot be stopped: %s", (int)pid, strerror(-code));
		goto fail;
	}
	*ret = tracee;
	return 0;
fail:
	pl_tracee_detach(tracee);
	return code;
}

static void count_stop(struct pl_tracee *tracee)
{
	if (!tracee->stopped_since)
		return;

	int64_t duration = pl_now_ns() - tracee->stopped_since;

	tracee->stopped_since = 0;
	if (duration > tracee->longest_stop)
		tracee->longest_stop = duration;
}

void pl_tracee_resume(struct pl_tracee *tracee)
{
	for (size_t i = 0; i < tracee->count; i++) {
		struct pl_thread *thread = &tracee->threads[i];

		if (thread->state != PL_THREAD_STOPPED)
			continue;
		if (thread->group_stopped)
			thread->state = pl_ptrace_listen(thread->tid) < 0 ? PL_THREAD_GONE : PL_THREAD_LISTENING;
		else
			thread_go_on(thread, 0, false);
	}
	threads_forget_gone(tracee);
	count_stop(tracee);
}

int64_t pl_tracee_detach(struct pl_tracee *tracee)
{
	if (!tracee)
		return 0;
	if (!tracee->ended && threads_any_running(tracee) && !tracee->raised) {
		threads_interrupt(tracee);
		(void)events_collect_stops(tracee, pl_now_ns() + ONE_STOP_NSEC);
	}
	if (tracee->raised)
		priority_take_back();
	for (size_t i = 0; i < tracee->count; i++) {
		enum pl_thread_state state = tracee->threads[i].state;

		if (state == PL_THREAD_STOPPED)
			(void)pl_ptrace_detach(tracee->threads[i].tid, 0);
		else if (state != PL_THREAD_GONE && !tracee->ended)
			late_add(tracee->pid, tracee->threads[i].tid);
	}
	count_stop(tracee);
	if (tracee->raised)
		priority_lower();

	if (tracee->unpaced)
		pace_resume();

	int64_t longest = tracee->longest_stop;

	events_tick(false);
	free(tracee->threads);
	free(tracee);
	return longest;
}
