/* SPDX-License-Identifier: MIT */
/* A thread's signal mask is its own: it is the same after every stop. */
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "victim.h"

static void *body(void *argument)
{
	sigset_t mask, found;

	sigemptyset(&mask);
	sigaddset(&mask, SIGUSR1);
	sigaddset(&mask, SIGWINCH);
	sigaddset(&mask, SIGRTMIN + 3);
	if (argument)
		sigaddset(&mask, SIGTERM);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	for (;;) {
		for (int signal = 1; signal < NSIG; signal++) {
			pthread_sigmask(SIG_SETMASK, NULL, &found);
			/* The C library's own two signals (32 and 33) never show. */
			if (sigismember(&found, signal) != sigismember(&mask, signal))
				victim_break("signal %d is %s", signal,
					sigismember(&found, signal) ? "blocked" : "no longer blocked");
		}
		victim_round();
	}
	return NULL;
}

int victim_start(void)
{
	static char other;
	int r = victim_thread(body, NULL);

	return r ? r : victim_thread(body, &other);
}
