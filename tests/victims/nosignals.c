/* SPDX-License-Identifier: MIT */
/* A thread that blocks every signal, SIGTRAP too, and allocates: a breakpoint that outlives its tracer kills it. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "victim.h"

static struct victim_allocator allocator;

static void *body(void *argument)
{
	struct timespec pause = {.tv_nsec = 1000000};
	sigset_t all, found;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	for (;;) {
		void *block = allocator.allocate(64);

		if (!block)
			victim_break("malloc failed");
		allocator.release(block);
		pthread_sigmask(SIG_SETMASK, NULL, &found);
		if (!sigismember(&found, SIGTRAP) || !sigismember(&found, SIGUSR1))
			victim_break("a signal is no longer blocked");
		victim_round();
		nanosleep(&pause, NULL);
	}
	return NULL;
}

int victim_start(void)
{
	if (!victim_allocator(&allocator))
		return ENOSYS;
	return victim_thread(body, NULL);
}
