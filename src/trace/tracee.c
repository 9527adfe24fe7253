/* SPDX-License-Identifier: MIT */
#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pyleak/cleanup.h"
#include "pyleak/process.h"
#include "pyleak/trace.h"
#include "pyleak/units.h"
#include "ptrace.h"

#define TICK_USEC 20000
#define ONE_STOP_NSEC (50 * PL_NSEC_PER_MSEC) /* how long one try may hold the process */
#define BETWEEN_STOPS_NSEC (50 * PL_NSEC_PER_MSEC)
#define SEIZE_TRIES 3

#ifndef SI_KERNEL
#define SI_KERNEL 0x80
#endif

/* waitpid() has no timeout; a periodic signal without SA_RESTART is one, and the flag covers a tick
 * that falls between two waits. */
static volatile sig_atomic_t ticked;

static void on_tick(int signal)
{
	(void)signal;
	ticked = 1;
}

static void tick(bool on)
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

static struct pl_thread *thread_find(struct pl_tracee *tracee, pid_t tid)
{
	for (size_t i = 0; i < tracee->count; i++)
		if (tracee->threads[i].tid == tid)
			return &tracee->threads[i];
	return NULL;
}

static struct pl_thread *thread_add(struct pl_tracee *tracee, pid_t tid)
{
	if (tracee->count == tracee->capacity) {
		size_t capacity = tracee->capacity ? 2 * tracee->capacity : 16;
		struct pl_thread *threads = reallocarray(tracee->threads, capacity, sizeof(*threads));

		if (!threads)
			return NULL;
		tracee->threads = threads;
		tracee->capacity = capacity;
	}
	tracee->threads[tracee->count] = (struct pl_thread){.tid = tid, .state = PL_THREAD_RUNNING};
	return &tracee->threads[tracee->count++];
}

static void forget_gone(struct pl_tracee *tracee)
{
	size_t kept = 0;

	for (size_t i = 0; i < tracee->count; i++)
		if (tracee->threads[i].state != PL_THREAD_GONE)
			tracee->threads[kept++] = tracee->threads[i];
	tracee->count = kept;
}

static bool is_stop_signal(int signal)
{
	return signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU;
}

/* Whether tid is a thread of this process and not a process that it cloned with unusual flags. */
static bool is_own_thread(const struct pl_tracee *tracee, pid_t tid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task/%d", (int)tracee->pid, (int)tid);
	return access(path, F_OK) == 0;
}

/*
 * Lets a thread go on. While stops are being collected it must come back at once: any trap clears
 * a pending INTERRUPT (kernel/signal.c, ptrace_stop()), so it is asked for anew before each step.
 */
static void thread_go_on(struct pl_thread *thread, int signal, bool collecting)
{
	if (collecting)
		(void)pl_ptrace_interrupt(thread->tid);
	if (pl_ptrace_continue(thread->tid, signal) == -ESRCH)
		thread->state = PL_THREAD_GONE;
	else
		thread->state = PL_THREAD_RUNNING;
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

/* A SIGTRAP of a breakpoint instruction has si_code SI_KERNEL (arch/x86/kernel/traps.c, do_int3);
 * one that somebody sent has not, and is passed on like any other signal. */
static void on_trap_signal(struct pl_tracee *tracee, struct pl_thread *thread, bool collecting)
{
	pl_registers regs;
	int code = 0;
	bool ours = tracee->on_breakpoint && pl_ptrace_get_signal_code(thread->tid, &code) == 0 && code == SI_KERNEL &&
		    pl_ptrace_get_registers(thread->tid, &regs) == 0 && tracee->on_breakpoint(tracee, thread, &regs);

	thread_go_on(thread, ours ? 0 : SIGTRAP, collecting);
}

/* The new thread is traced and will report itself, but maybe only after all others have stopped: it is known from here
 * on, so that a stop waits for it and it is let go like the others. */
static void on_clone(struct pl_tracee *tracee, struct pl_thread *parent, bool collecting)
{
	pid_t tid = 0;
	int code = pl_ptrace_get_new_thread(parent->tid, &tid);

	thread_go_on(parent, 0, collecting);
	if (code == 0 && tid > 0 && !thread_find(tracee, tid) && is_own_thread(tracee, tid))
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
		if (!is_own_thread(tracee, tid)) {
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

static bool any_running(const struct pl_tracee *tracee)
{
	for (size_t i = 0; i < tracee->count; i++)
		if (tracee->threads[i].state == PL_THREAD_RUNNING || tracee->threads[i].state == PL_THREAD_LISTENING)
			return true;
	return false;
}

/* 0; -ETIMEDOUT: some thread did not stop; -ESRCH: the process ended. */
static int collect_stops(struct pl_tracee *tracee, int64_t deadline)
{
	while (any_running(tracee)) {
		int status;
		pid_t tid = waitpid(-1, &status, __WALL);

		if (tid > 0)
			on_status(tracee, tid, status, true);
		else if (errno == ECHILD)
			return -ESRCH;
		if (tracee->ended)
			return -ESRCH;
		if (pl_now_ns() >= deadline)
			return any_running(tracee) ? -ETIMEDOUT : 0;
	}
	forget_gone(tracee);
	return tracee->count ? 0 : -ESRCH;
}

static void interrupt_running(struct pl_tracee *tracee)
{
	if (!tracee->stopped_since)
		tracee->stopped_since = pl_now_ns();
	for (size_t i = 0; i < tracee->count; i++) {
		struct pl_thread *thread = &tracee->threads[i];

		if (thread->state != PL_THREAD_RUNNING && thread->state != PL_THREAD_LISTENING)
			continue;
		if (pl_ptrace_interrupt(thread->tid) == -ESRCH)
			thread->state = PL_THREAD_GONE;
	}
}

static bool thread_is_dead(pid_t pid, pid_t tid)
{
	char path[64], line[512];
	pl_autofclose FILE *file = NULL;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", (int)pid, (int)tid);
	file = fopen(path, "re");
	if (!file || !fgets(line, sizeof(line), file))
		return true;

	const char *state = strrchr(line, ')');

	return !state || state[1] == '\0' || state[2] == 'Z' || state[2] == 'X';
}

/* Seizes the threads that are not ours yet. The number of new ones, or -errno. */
static int seize_new_threads(struct pl_tracee *tracee)
{
	pl_autofree pid_t *tids = NULL;
	size_t count;
	int added = 0;
	int code = pl_process_threads(tracee->pid, &tids, &count);

	if (code < 0)
		return code;
	for (size_t i = 0; i < count; i++) {
		if (thread_find(tracee, tids[i]))
			continue;
		code = pl_ptrace_seize(tids[i], PL_TRACE_OPTIONS);
		if (code < 0) {
			if (thread_is_dead(tracee->pid, tids[i]))
				continue;
			return code;
		}
		if (!thread_add(tracee, tids[i])) {
			(void)pl_ptrace_interrupt(tids[i]);
			return -ENOMEM;
		}
		added++;
	}
	return added;
}

/* One try: every thread there is, those born meanwhile included, stops before the deadline. */
static int stop_once(struct pl_tracee *tracee, int64_t deadline)
{
	for (;;) {
		int added = tracee->follow_threads ? 0 : seize_new_threads(tracee);

		if (added < 0)
			return added;
		interrupt_running(tracee);

		int code = collect_stops(tracee, deadline);

		if (code < 0)
			return code;
		if (added == 0)
			return 0;
	}
}

static void sleep_ns(int64_t ns)
{
	const struct timespec duration = {ns / PL_NSEC_PER_SEC, ns % PL_NSEC_PER_SEC};

	(void)nanosleep(&duration, NULL);
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
		int code = seize_new_threads(tracee);

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
		sleep_ns(5 * PL_NSEC_PER_MSEC);
	}
}

int pl_tracee_seize(pid_t pid, int64_t patience_ns, struct pl_tracee **ret, struct pl_error *err)
{
	struct pl_tracee *tracee = calloc(1, sizeof(*tracee));

	if (!tracee)
		return pl_fail(err, -ENOMEM, "out of memory");
	tracee->pid = pid;

	int code = pl_process_start_time(pid, &tracee->start_time);

	if (code < 0) {
		code = pl_fail(err, code, "no process %d", (int)pid);
		goto fail;
	}
	tick(true);
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
	forget_gone(tracee);
	count_stop(tracee);
}

int64_t pl_tracee_detach(struct pl_tracee *tracee)
{
	if (!tracee)
		return 0;
	if (!tracee->ended && any_running(tracee)) {
		interrupt_running(tracee);
		(void)collect_stops(tracee, pl_now_ns() + ONE_STOP_NSEC);
	}
	/* What did not stop in time is let go by the kernel when this process ends. */
	for (size_t i = 0; i < tracee->count; i++)
		if (tracee->threads[i].state == PL_THREAD_STOPPED)
			(void)pl_ptrace_detach(tracee->threads[i].tid, 0);
	count_stop(tracee);

	int64_t longest = tracee->longest_stop;

	tick(false);
	free(tracee->threads);
	free(tracee);
	return longest;
}

int pl_tracee_follow_threads(struct pl_tracee *tracee)
{
	for (size_t i = 0; i < tracee->count; i++) {
		int code = pl_ptrace_set_options(tracee->threads[i].tid, PL_FOLLOW_OPTIONS);

		if (code < 0 && code != -ESRCH)
			return code;
	}
	tracee->follow_threads = true;
	return 0;
}

int pl_thread_registers(const struct pl_thread *thread, pl_registers *ret)
{
	return pl_ptrace_get_registers(thread->tid, ret);
}

int pl_thread_processor(pid_t pid, pid_t tid)
{
	char path[64], line[1024];
	pl_autofclose FILE *file = NULL;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", (int)pid, (int)tid);
	file = fopen(path, "re");
	if (!file || !fgets(line, sizeof(line), file))
		return -1;

	char *field = strrchr(line, ')');
	char *rest;
	int number = 2; /* the command's name was the second */

	if (!field)
		return -1;
	for (char *word = strtok_r(field + 1, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
		if (++number == 39)
			return atoi(word);
	return -1;
}

/* A stop costs a tenth where tracer and tracee share a processor: one hands over to the other
 * without waking an idle core. The tracee is left free; we follow it. */
static void follow_processor(const struct pl_tracee *tracee, pid_t tid)
{
	static int current = -1;
	int processor = pl_thread_processor(tracee->pid, tid);
	cpu_set_t set;

	if (processor < 0 || processor >= CPU_SETSIZE || processor == current)
		return;
	CPU_ZERO(&set);
	CPU_SET(processor, &set);
	if (sched_setaffinity(0, sizeof(set), &set) == 0)
		current = processor;
}

int pl_tracee_wait(struct pl_tracee *tracee)
{
	pid_t last = 0;

	ticked = 0;
	while (!ticked) {
		int status;
		pid_t tid = waitpid(-1, &status, __WALL);

		if (tid < 0)
			return errno == ECHILD ? -ESRCH : 0;
		on_status(tracee, tid, status, false);
		last = tid;
		if (tracee->ended)
			return -ESRCH;
	}
	forget_gone(tracee);
	if (last)
		follow_processor(tracee, last);
	return 0;
}
