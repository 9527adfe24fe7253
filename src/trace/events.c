/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "pyleak/units.h"
#include "ptrace.h"
#include "tracee_private.h"

#define TICK_USEC 20000

/* waitpid() has no timeout; a periodic signal without SA_RESTART is one, and the flag covers a tick
 * that falls between two waits. */
static volatile sig_atomic_t ticked;

static void on_tick(int signal)
{
	(void)signal;
	ticked = 1;
}

void events_tick(bool on)
{
	const struct sigaction action = {.sa_handler = on_tick};
	const struct itimerval timer = {{0, on ? TICK_USEC : 0}, {0, on ? TICK_USEC : 0}};
	sigset_t alarm;

	/* Whoever started us may have it blocked, and no wait would ever end. */
	(void)sigemptyset(&alarm);
	(void)sigaddset(&alarm, SIGALRM);
	if (on) {
		(void)sigaction(SIGALRM, &action, NULL);
		(void)sigprocmask(SIG_UNBLOCK, &alarm, NULL);
	}
	(void)setitimer(ITIMER_REAL, &timer, NULL);
}

static bool is_stop_signal(int signal)
{
	return signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU;
}

static void on_interrupt_stop(struct pl_thread *thread, int signal, bool collecting)
{
	thread->group_stopped = is_stop_signal(signal);
	if (collecting)
		thread->state = PL_THREAD_STOPPED;
	else if (thread->group_stopped)
		thread->state = pl_ptrace_listen(thread->tid) < 0 ? PL_THREAD_GONE : PL_THREAD_LISTENING;
	else
		thread_go_on(thread, 0, false);
}

/* A SIGTRAP of a breakpoint instruction says so in its si_code; one that somebody sent does not, and is passed on
 * like any other signal. */
static void on_trap_signal(struct pl_tracee *tracee, struct pl_thread *thread, bool collecting)
{
	pl_registers regs;
	int code = 0;
	bool ours = tracee->on_breakpoint && pl_ptrace_get_signal_code(thread->tid, &code) == 0 && code == PL_ARCH_BREAKPOINT_CODE &&
		    pl_ptrace_get_registers(thread->tid, &regs) == 0 && tracee->on_breakpoint(tracee, thread, &regs);

	if (ours && pl_registers_pass_breakpoint(&regs))
		(void)pl_ptrace_set_registers(thread->tid, &regs);
	thread_go_on(thread, ours ? 0 : SIGTRAP, collecting);
}

/* The new thread is traced and will report itself, but maybe only after all others have stopped: it is known from here
 * on, so that a stop waits for it and it is let go like the others. */
static void on_clone(struct pl_tracee *tracee, struct pl_thread *parent, bool collecting)
{
	pid_t tid = 0;
	int code = pl_ptrace_get_new_thread(parent->tid, &tid);

	thread_go_on(parent, 0, collecting);
	if (code == 0 && tid > 0 && !thread_find(tracee, tid) && thread_is_own(tracee, tid))
		(void)thread_add(tracee, tid);
}

static void on_status(struct pl_tracee *tracee, pid_t tid, int status, bool collecting)
{
	struct pl_thread *thread = thread_find(tracee, tid);

	if (WIFEXITED(status) || WIFSIGNALED(status)) {
		/* The leader is reported last: after it nothing is left of the process. */
		if (tid == tracee->pid)
			tracee->ended = true;
		if (thread)
			thread->state = PL_THREAD_GONE;
		return;
	}
	if (!WIFSTOPPED(status))
		return;
	if (!thread) {
		if (!thread_is_own(tracee, tid)) {
			(void)pl_ptrace_detach(tid, 0);
			return;
		}
		thread = thread_add(tracee, tid);
		if (!thread) {
			(void)pl_ptrace_detach(tid, 0);
			return;
		}
	}

	int event = status >> 16;
	int signal = WSTOPSIG(status);

	switch (event) {
	case PTRACE_EVENT_STOP:
		on_interrupt_stop(thread, signal, collecting);
		break;
	case PTRACE_EVENT_EXEC:
		/* A new program: nothing of ours is left in it. All other threads are gone. */
		tracee->ended = true;
		for (size_t i = 0; i < tracee->count; i++)
			tracee->threads[i].state = PL_THREAD_GONE;
		(void)pl_ptrace_detach(tid, 0);
		break;
	case 0:
		if (signal == SIGTRAP)
			on_trap_signal(tracee, thread, collecting);
		else if (signal == (SIGTRAP | 0x80))
			thread_go_on(thread, 0, collecting);
		else
			thread_go_on(thread, signal, collecting);
		break;
	default:
		on_clone(tracee, thread, collecting);
		break;
	}
}

int events_collect_stops(struct pl_tracee *tracee, int64_t deadline)
{
	while (threads_any_running(tracee)) {
		int status;
		pid_t tid = pl_ptrace_wait(-1, &status);

		if (tid > 0)
			on_status(tracee, tid, status, true);
		else if (errno == ECHILD)
			return -ESRCH;
		if (tracee->ended)
			return -ESRCH;
		if (pl_now_ns() >= deadline)
			return threads_any_running(tracee) ? -ETIMEDOUT : 0;
	}
	threads_forget_gone(tracee);
	return tracee->count ? 0 : -ESRCH;
}

int events_await(struct pl_tracee *tracee, pid_t tid, int64_t deadline)
{
	while (threads_any_running(tracee)) {
		int status;
		pid_t got = pl_ptrace_wait(tid, &status);

		if (got > 0)
			on_status(tracee, tid, status, true);
		else if (errno == ECHILD)
			tracee->threads[0].state = PL_THREAD_GONE;
		if (pl_now_ns() >= deadline && threads_any_running(tracee))
			return -ETIMEDOUT;
	}
	threads_forget_gone(tracee);
	return tracee->count ? 0 : -ESRCH;
}

int pl_tracee_wait(struct pl_tracee *tracee)
{
	pid_t last = 0;

	ticked = 0;
	while (!ticked) {
		int status;
		pid_t tid = pl_ptrace_wait(-1, &status);

		if (tid < 0)
			return errno == ECHILD ? -ESRCH : 0;
		on_status(tracee, tid, status, false);
		last = tid;
		if (tracee->ended)
			return -ESRCH;
	}
	threads_forget_gone(tracee);
	if (last)
		thread_follow_processor(tracee, last);
	return 0;
}
