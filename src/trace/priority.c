/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "pyleak/units.h"
#include "tracee_private.h"

/*
 * Who holds a thread of a busy service must not wait for a processor, nor may that thread when it is to make a call for
 * us: a tracer of the usual priority was seen to hold a process of one thread for 270 ms. So while a thread is held, this
 * one comes before all others, on the one processor that it uses, and gives that up with the thread. Without the right to
 * that (CAP_SYS_NICE, RLIMIT_RTPRIO) it is as nice as it may be to itself.
 *
 * The thread's own priority is not changed, or it would keep it if we died: it inherits ours, as the owner of a lock does
 * from who waits for it. A helper waits for a lock that names the thread as its owner, which the kernel takes on trust
 * (kernel/futex/pi.c, attach_to_pi_owner(); only the futex must be a shared one, since the owner has another memory). When
 * the wait ends, or this process does, however it does, the thread has its own priority again.
 */

#ifndef FUTEX_LOCK_PI2
#define FUTEX_LOCK_PI2 13
#endif

#define LEND_NSEC (PL_NSEC_PER_MSEC / 5) /* a wait; what it may outlast that which it is for */
#define REFUSED_PAUSE_NSEC (PL_NSEC_PER_MSEC / 5)

static int depth;
static struct {
	int policy, nice;
	struct sched_param param;
	bool realtime, changed;
} before;

static struct {
	pthread_t helper;
	bool started, refused;
	pid_t process;         /* that has started the helper */
	pthread_mutex_t mutex; /* of what follows */
	pthread_cond_t changed;
	pid_t borrower;        /* the thread that is lent to; 0: none */
	uint32_t *lock;        /* shared memory */
} lending = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

/* A guardian is a fork, which has no helper, and the locks as they were just then. */
static void start_anew_after_fork(void)
{
	if (!lending.started || lending.process == getpid())
		return;
	lending.started = false;
	(void)pthread_mutex_init(&lending.mutex, NULL);
	(void)pthread_cond_init(&lending.changed, NULL);
}

static void set_borrower(pid_t tid)
{
	(void)pthread_mutex_lock(&lending.mutex);
	lending.borrower = tid;
	(void)pthread_cond_signal(&lending.changed);
	(void)pthread_mutex_unlock(&lending.mutex);
}

/* Whether the kernel let it wait until then. */
static bool lock_until(pid_t tid, int operation, clockid_t clock, int64_t nsec)
{
	struct timespec until;

	(void)clock_gettime(clock, &until);
	until.tv_nsec += nsec;
	if (until.tv_nsec >= PL_NSEC_PER_SEC) {
		until.tv_sec++;
		until.tv_nsec -= PL_NSEC_PER_SEC;
	}
	*lending.lock = (uint32_t)tid;
	return syscall(SYS_futex, lending.lock, operation, 0, &until, NULL, 0) < 0 && errno == ETIMEDOUT;
}

/* Waits for a lock of the borrower's, and returns whether the kernel let it wait. */
static bool wait_for(pid_t tid, int64_t nsec)
{
	static bool unknown;

	/* A clock that is set back must not make the thread ours for longer; before Linux 5.14 it can. */
	if (!unknown) {
		if (lock_until(tid, FUTEX_LOCK_PI2, CLOCK_MONOTONIC, nsec))
			return true;
		unknown = errno == ENOSYS;
	}
	return unknown && lock_until(tid, FUTEX_LOCK_PI, CLOCK_REALTIME, nsec);
}

static void *lend(void *unused)
{
	(void)pthread_mutex_lock(&lending.mutex);
	for (;;) {
		if (!lending.borrower) {
			(void)pthread_cond_wait(&lending.changed, &lending.mutex);
			continue;
		}

		pid_t tid = lending.borrower;

		(void)pthread_mutex_unlock(&lending.mutex);
		/* The thread has ended, or the kernel will not have it: no loop without a pause, at this priority. */
		if (!wait_for(tid, LEND_NSEC))
			(void)nanosleep(&(struct timespec){.tv_nsec = REFUSED_PAUSE_NSEC}, NULL);
		(void)pthread_mutex_lock(&lending.mutex);
	}
	return unused;
}

/* A thread of this process, at its priority of this moment. */
static bool start_helper(void)
{
	sigset_t all, old;

	lending.lock = mmap(NULL, sizeof(*lending.lock), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (lending.lock == MAP_FAILED)
		return false;
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);

	const struct sched_param highest = {.sched_priority = 1};
	int code = pthread_create(&lending.helper, NULL, lend, NULL);

	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	return code == 0 && pthread_setschedparam(lending.helper, SCHED_FIFO, &highest) == 0;
}

void priority_lend(pid_t tid)
{
	if (!before.realtime || lending.refused)
		return;
	start_anew_after_fork();
	if (!lending.started) {
		lending.process = getpid();
		lending.started = start_helper();
		lending.refused = !lending.started;
		if (lending.refused)
			return;
	}
	set_borrower(tid);
}

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
	start_anew_after_fork();
	if (lending.started)
		set_borrower(0);
	/* With the limit alone, and no capability, the flag stays. */
	if (before.changed && sched_setscheduler(0, before.policy, &before.param) < 0)
		(void)sched_setscheduler(0, before.policy | SCHED_RESET_ON_FORK, &before.param);
	if (!before.realtime && getpriority(PRIO_PROCESS, 0) != before.nice)
		(void)setpriority(PRIO_PROCESS, 0, before.nice);
}
