/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "pyleak/trace.h"
#include "pyleak/units.h"
#include "tracee_private.h"

/*
 * Attaching and letting go are 0.1 s of computing, beside a service whose threads wait for their turn. Who takes turns
 * among them, sleeping in between, changes the order of theirs, and some wait for a second round: of twenty threads and six
 * busy processes on two processors the longest wait grew by 8 to 12 ms (kernel/sched/fair.c, Linux 6.18), also where
 * another process, which sleeps, was attached to. So where a processor is rare we have no turn. We come before all others,
 * for much less than one, and sleep for much longer, on one processor after the other:
 *
 *   processor 0   ▌                   ▌                   ▌        ▌ a grain, 0.25 ms, SCHED_FIFO
 *   processor 1             ▌                   ▌                  from one to the next: 2 ms of sleep
 *
 * What these numbers are for was measured (tests/bench/gaps.py and a program that only computes; 26 to 40 rounds each in turns):
 * half a millisecond in every two and a half on the same processor takes a fifth of it, for which the kernel's balance moves a
 * quarter of the threads to another one (over 117 % in kernel/sched/topology.c, imbalance_pct); with more than a tick
 * (4 ms) between the grains the order changes as before. The lowest class in between instead of sleep is far worse.
 *
 * A timer ends a grain. Its signal is blocked while a thread is held, and comes when that is let go. While a whole process is
 * traced (holders, --engine breakpoint) it waits for us, and nobody rests. What waits for a signal
 * of its own does not mind another (SA_RESTART, pl_sleep_ns()). If we die, nothing is left of it.
 */

#define GRAIN_NSEC (PL_NSEC_PER_MSEC / 4)
#define REST_NSEC (2 * PL_NSEC_PER_MSEC)
/* Where nobody waits, or we do. */
#define LOOK_NSEC PL_NSEC_PER_MSEC
/* What computes for longer is not made nine times as long: it takes its turns from then on. */
#define PACED_NSEC_MAX PL_NSEC_PER_SEC
#define PACE_SIGNAL (SIGRTMIN + 2)

#ifndef sigev_notify_thread_id /* glibc before 2.38 */
#define sigev_notify_thread_id _sigev_un._tid
#endif

static struct {
	unsigned int depth, suspended;
	bool running, contended, first; /* this thread comes first */
	pid_t process;                  /* whose timer it is */
	timer_t timer;
	int loadavg;
	int processors;
	int64_t computed; /* by the last rest */
	int64_t until;    /* it computes so much in grains */
} pace;

/* A fork has no timer. */
static bool runs(void)
{
	return pace.running && pace.process == getpid();
}

/* More want to run than there are processors for us. */
static bool is_contended(void)
{
	char text[128];
	ssize_t got = pread(pace.loadavg, text, sizeof(text) - 1, 0);
	const char *running = text;

	text[got > 0 ? got : 0] = '\0';
	for (int i = 0; i < 3 && running; i++) {
		running = strchr(running, ' ');
		running = running ? running + 1 : NULL;
	}
	return running && strtol(running, NULL, 10) > pace.processors;
}

static void set_timer(int64_t ns)
{
	const struct itimerspec time = {.it_value.tv_nsec = ns};

	(void)timer_settime(pace.timer, 0, &time, NULL);
}

static void set_first(bool first)
{
	if (first != pace.first && (first ? own_class_take_highest() : own_class_take_usual()))
		pace.first = first;
}

static void on_grain(int signal)
{
	const int error = errno;
	bool waits = pl_thread_cpu_ns() - pace.computed < GRAIN_NSEC / 2;

	(void)signal;
	if (!runs())
		return;
	if (!waits) {
		pace.contended = pace.computed < pace.until && is_contended();
		set_first(pace.contended);
		if (pace.contended && pace.first) {
			own_class_leave_processor(sched_getcpu());
			pl_sleep_ns(REST_NSEC);
		}
		pace.computed = pl_thread_cpu_ns();
	}
	set_timer(waits || !pace.contended ? LOOK_NSEC : GRAIN_NSEC);
	errno = error;
}

static bool has_timer(void)
{
	struct sigaction action = {.sa_handler = on_grain, .sa_flags = SA_RESTART};
	struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = PACE_SIGNAL};

	if (pace.process == getpid())
		return true;
	event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
	pace.loadavg = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
	if (pace.loadavg < 0 || sigaction(PACE_SIGNAL, &action, NULL) < 0 || timer_create(CLOCK_MONOTONIC, &event, &pace.timer) < 0)
		return false;
	pace.process = getpid();
	return true;
}

static void mask(int how)
{
	sigset_t signals;

	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, PACE_SIGNAL);
	(void)pthread_sigmask(how, &signals, NULL);
}

void pl_trace_pace_begin(void)
{
	cpu_set_t allowed;

	if (pace.depth++ || pace.suspended || !own_class_is_usual() || !has_timer())
		return;
	pace.processors = sched_getaffinity(0, sizeof(allowed), &allowed) < 0 ? (int)sysconf(_SC_NPROCESSORS_ONLN) : CPU_COUNT(&allowed);
	pace.running = true;
	pace.computed = pl_thread_cpu_ns();
	pace.until = pace.computed + PACED_NSEC_MAX;
	pace.contended = is_contended();
	set_first(pace.contended);
	mask(SIG_UNBLOCK);
	set_timer(pace.contended ? GRAIN_NSEC : LOOK_NSEC);
}

void pl_trace_pace_end(void)
{
	if (--pace.depth || !runs())
		return;
	pace.running = false;
	set_timer(0);
	set_first(false);
	mask(SIG_UNBLOCK);
}

bool pace_keep(void)
{
	if (!runs() || pace.suspended)
		return false;
	mask(SIG_BLOCK);
	set_first(true);
	if (!pace.first)
		mask(SIG_UNBLOCK);
	return pace.first;
}

void pace_go_on(void)
{
	set_first(pace.contended);
	mask(SIG_UNBLOCK);
}

void pace_suspend(void)
{
	if (pace.suspended++ || !runs())
		return;
	mask(SIG_BLOCK);
	set_first(false);
}

void pace_resume(void)
{
	if (--pace.suspended == 0 && runs())
		pace_go_on();
}
