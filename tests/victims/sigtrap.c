/* SPDX-License-Identifier: MIT */
/* The program uses SIGTRAP itself: its own breakpoints and signals come to its own handler. */
#include <errno.h>
#include <signal.h>
#include <time.h>

#include "victim.h"

static _Thread_local volatile sig_atomic_t handled;

static void handler(int signal)
{
	handled++;
}

static void *body(void *argument)
{
	struct timespec pause = {.tv_nsec = 1000000};

	for (int n = 0;; n = (n + 2) & 0xffff) {
		handled = n;
		raise(SIGTRAP);
		__asm__ volatile("int3");
		if (handled != n + 2)
			victim_break("of two SIGTRAPs %d were handled", (int)handled - n);
		victim_round();
		nanosleep(&pause, NULL);
	}
	return NULL;
}

int victim_start(void)
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};

	if (sigaction(SIGTRAP, &action, NULL))
		return errno;
	return victim_thread(body, NULL);
}
