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
 *
 *   helper        waits at the door, for as long as there is nothing to lend     FUTEX_WAIT_REQUEUE_PI
 *   to lend       we move it from the door to the lock, while it sleeps          FUTEX_CMP_REQUEUE_PI
 *   to take back  a signal ends its wait; it says so, and waits at the door
 *
 * It may not lock by itself: who waits for a lock whose owner runs spins until the owner sleeps (kernel/locking/rtmutex.c,
 * rtmutex_spin_on_owner()) and looks at no clock meanwhile. At this priority, beside a thread with the same that never
 * sleeps, that was up to a second in which nothing else ran on two processors (tests/integration/test_no_stop.py:
 * test_nobody_spins). And the loan ends before the thread is let go:
 * to take its priority from the helper, and give it back once the thread goes, lent it anew for the moment until the helper had left
 * the lock (3 attaches of 50 took 0.2 s more of a processor, none of 90 so).
 *
 * If we die in between, the helper has to run to end it, and the thread, which may be on its way back to a loop without end,
 * comes no later than the helper does: that takes a second processor, and nothing is lent without (test_nobody_starves).
 */

/* For the helper to be where it is to be. */
#define HELPER_NSEC PL_NSEC_PER_MSEC
#define REFUSED_PAUSE_NSEC (PL_NSEC_PER_MSEC / 5)
#define TAKE_BACK_SIGNAL (SIGRTMIN + 1)

static int depth;
static struct {
	int nice;
	bool realtime, changed, paced;
} before;

/* In shared memory. */
struct futexes {
	uint32_t door; /* 0 */
	uint32_t lock; /* who it is lent to */
};

static struct {
	bool started, lent;
	pid_t process; /* that has started the helper */
	pid_t helper;
	struct futexes *futexes;
	uint32_t returns_before; /* when it was lent */
	_Atomic bool refused;
	_Atomic uint32_t loans, returns; /* asked for; of the helper, from a wait */
} lending;

static void interrupt(int signal)
{
	(void)signal;
}

static void *wait_in_line(void *ready)
{
	uint32_t asked = 0;
	sigset_t back;

	(void)sigemptyset(&back);
	(void)sigaddset(&back, TAKE_BACK_SIGNAL);
	(void)pthread_sigmask(SIG_UNBLOCK, &back, NULL);
	__atomic_store_n((pid_t *)ready, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	while (!lending.refused) {
		long code = syscall(SYS_futex, &lending.futexes->door, FUTEX_WAIT_REQUEUE_PI, 0, NULL, &lending.futexes->lock, 0);

		if (code < 0 && errno != EAGAIN && errno != EINTR && errno != ETIMEDOUT)
			lending.refused = true;
		/* Nobody asked, or the owner has ended: no loop without a pause, at this priority. */
		if (asked == lending.loans)
			(void)nanosleep(&(struct timespec){.tv_nsec = REFUSED_PAUSE_NSEC}, NULL);
		asked = lending.loans;
		lending.returns++;
	}
	return NULL;
}

/* A thread of this process, at its priority of this moment. */
static bool start_helper(void)
{
	const struct sched_param highest = {.sched_priority = 1};
	struct sigaction action = {.sa_handler = interrupt}; /* no SA_RESTART */
	sigset_t all, old;
	pthread_t helper;

	lending.helper = 0;
	lending.futexes = mmap(NULL, sizeof(*lending.futexes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (lending.futexes == MAP_FAILED || sigaction(TAKE_BACK_SIGNAL, &action, NULL) < 0)
		return false;
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);

	int code = pthread_create(&helper, NULL, wait_in_line, &lending.helper);

	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (code != 0)
		return false;
	(void)pthread_detach(helper);
	return pthread_setschedparam(helper, SCHED_FIFO, &highest) == 0;
}

/* A guardian is a fork, which has no helper. */
static bool is_started(void)
{
	if (lending.started && lending.process == getpid())
		return true;
	lending.lent = false;
	lending.process = getpid();
	lending.started = start_helper();
	if (!lending.started)
		lending.refused = true;
	return lending.started;
}

static bool is_realtime(void)
{
	int policy = sched_getscheduler(0) & ~SCHED_RESET_ON_FORK;

	return policy == SCHED_FIFO || policy == SCHED_RR;
}

static bool has_second_processor(void)
{
	cpu_set_t set;

	/* -EINVAL: there are more than the set can name. */
	return sched_getaffinity(0, sizeof(set), &set) < 0 || CPU_COUNT(&set) > 1;
}

void priority_lend(pid_t tid)
{
	const int64_t give_up = pl_now_ns() + HELPER_NSEC;
	long moved = 0;

	if (!before.realtime || lending.refused || !has_second_processor() || !is_started())
		return;
	priority_take_back();
	lending.futexes->lock = (uint32_t)tid;
	lending.loans++;
	/* The helper may be on its way to the door; this one is no hindrance where there is but one processor. */
	while (!lending.refused && (moved == 0 || (moved < 0 && (errno == EAGAIN || errno == EINTR))) && pl_now_ns() < give_up) {
		moved = syscall(SYS_futex, &lending.futexes->door, FUTEX_CMP_REQUEUE_PI, 1, NULL, &lending.futexes->lock, 0);
		if (moved <= 0)
			(void)sched_yield();
	}
	lending.lent = moved > 0;
	/* One that was late is counted by now. */
	lending.returns_before = lending.returns;
	if (moved < 0 && errno == ENOSYS)
		lending.refused = true;
}

void priority_take_back(void)
{
	const int64_t give_up = pl_now_ns() + HELPER_NSEC;

	if (!lending.lent || lending.process != getpid())
		return;
	lending.lent = false;
	(void)syscall(SYS_tgkill, lending.process, __atomic_load_n(&lending.helper, __ATOMIC_ACQUIRE), TAKE_BACK_SIGNAL);
	while (lending.returns == lending.returns_before && pl_now_ns() < give_up)
		(void)sched_yield();
}

bool priority_raise(void)
{
	if (depth++)
		return before.realtime;
	before.changed = false;
	before.paced = before.realtime = pace_keep();
	if (before.paced)
		return true;
	before.nice = getpriority(PRIO_PROCESS, 0);
	/* One that the user gave us is no worse, or is meant. */
	before.changed = own_class_is_usual() && own_class_take_highest();
	before.realtime = before.changed || is_realtime();
	if (!before.realtime)
		(void)setpriority(PRIO_PROCESS, 0, -20);
	return before.realtime;
}

void priority_lower(void)
{
	if (--depth)
		return;
	priority_take_back();
	if (before.paced)
		pace_go_on();
	else if (before.changed)
		(void)own_class_take_usual();
	else if (!before.realtime && getpriority(PRIO_PROCESS, 0) != before.nice)
		(void)setpriority(PRIO_PROCESS, 0, before.nice);
}
