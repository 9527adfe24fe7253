/* SPDX-License-Identifier: MIT */
/* Signals come at a high rate: none is lost, doubled, reordered or stripped of what it carries. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "victim.h"

static atomic_int received;
static atomic_ulong alarms;
static pthread_t receiver;

static void on_queued(int signal, siginfo_t *info, void *context)
{
	int value = info->si_value.sival_int;

	/* Not safe in a handler in general, but nobody prints while all is well. */
	if (info->si_code != SI_QUEUE || info->si_pid != getpid())
		victim_break("a queued signal came with code %d from %d", info->si_code, info->si_pid);
	if (value != atomic_load(&received) + 1)
		victim_break("queued signal %d came after %d", value, atomic_load(&received));
	atomic_store(&received, value);
	victim_round();
}

static void on_alarm(int signal, siginfo_t *info, void *context)
{
	if (info->si_code != SI_KERNEL && info->si_code != SI_TIMER)
		victim_break("an alarm came with code %d", info->si_code);
	atomic_fetch_add(&alarms, 1);
}

static void *receive(void *argument)
{
	sigset_t mask;

	sigemptyset(&mask);
	sigaddset(&mask, SIGRTMIN + 5);
	pthread_sigmask(SIG_UNBLOCK, &mask, NULL);
	for (;;)
		pause();
	return NULL;
}

static void *send(void *argument)
{
	struct timespec pause = {.tv_nsec = 500000}, waited = {.tv_nsec = 10000000};

	for (int n = 1;; n++) {
		union sigval value = {.sival_int = n};
		int tries = 0;

		while (pthread_sigqueue(receiver, SIGRTMIN + 5, value) == EAGAIN)
			nanosleep(&pause, NULL);
		nanosleep(&pause, NULL);
		while (atomic_load(&received) + 50 < n) {
			nanosleep(&waited, NULL);
			if (++tries == 2000) {
				victim_break("queued signal %d never came", atomic_load(&received) + 1);
				return NULL;
			}
		}
	}
	return NULL;
}

int victim_start(void)
{
	struct sigaction queued = {.sa_sigaction = on_queued, .sa_flags = SA_SIGINFO | SA_RESTART};
	struct sigaction alarm = {.sa_sigaction = on_alarm, .sa_flags = SA_SIGINFO | SA_RESTART};
	struct itimerval every = {{.tv_usec = 2000}, {.tv_usec = 2000}};
	int r;

	if (sigaction(SIGRTMIN + 5, &queued, NULL) || sigaction(SIGALRM, &alarm, NULL))
		return errno;
	r = pthread_create(&receiver, NULL, receive, NULL);
	if (!r)
		r = victim_thread(send, NULL);
	if (!r && setitimer(ITIMER_REAL, &every, NULL))
		r = errno;
	return r;
}
