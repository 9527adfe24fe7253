/* SPDX-License-Identifier: MIT */
#include "stop.h"

#include <signal.h>
#include <stddef.h>

static volatile int stop_requested;

static void on_stop_signal(int signal)
{
	(void)signal;
	stop_requested = 1;
}

/* Without SA_RESTART: a wait must end. A reader of our output that goes away must not kill us while
 * hooks are planted. */
void pl_stop_catch_signals(void)
{
	const struct sigaction stop = {.sa_handler = on_stop_signal};
	const struct sigaction ignore = {.sa_handler = SIG_IGN};
	struct sigaction before;
	sigset_t caught;

	(void)sigaction(SIGINT, &stop, NULL);
	(void)sigaction(SIGTERM, &stop, NULL);
	if (sigaction(SIGHUP, NULL, &before) == 0 && before.sa_handler != SIG_IGN) /* nohup */
		(void)sigaction(SIGHUP, &stop, NULL);
	(void)sigemptyset(&caught);
	(void)sigaddset(&caught, SIGINT);
	(void)sigaddset(&caught, SIGTERM);
	(void)sigaddset(&caught, SIGHUP);
	(void)sigprocmask(SIG_UNBLOCK, &caught, NULL);
	(void)sigaction(SIGPIPE, &ignore, NULL);
	/* While we are stopped, every thread that we have stopped, or that comes to a breakpoint, stands still. */
	(void)sigaction(SIGTSTP, &ignore, NULL);
	(void)sigaction(SIGTTIN, &ignore, NULL);
	(void)sigaction(SIGTTOU, &ignore, NULL);
}

const volatile int *pl_stop_flag(void)
{
	return &stop_requested;
}
