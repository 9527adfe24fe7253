/* SPDX-License-Identifier: MIT */
#include "stop.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>

static volatile int stop_requested;
static volatile pid_t program;

static void on_stop_signal(int signal)
{
	(void)signal;
	stop_requested = 1;
}

/* What comes from the terminal comes to all of its foreground group, and so to the program by itself (si_code
 * SI_KERNEL, drivers/tty/n_tty.c, isig()). */
static void on_signal_for_program(int signal, siginfo_t *info, void *context)
{
	int code = errno;

	(void)context;
	if (info->si_code <= 0 && program)
		(void)kill(program, signal);
	errno = code;
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

void pl_stop_forward_signals(pid_t pid)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGCONT, SIGWINCH};
	struct sigaction forward = {.sa_sigaction = on_signal_for_program, .sa_flags = SA_SIGINFO};
	const struct sigaction ignore = {.sa_handler = SIG_IGN};
	sigset_t caught;

	program = pid;
	(void)sigemptyset(&caught);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		(void)sigaction(signals[i], &forward, NULL);
		(void)sigaddset(&caught, signals[i]);
	}
	(void)sigprocmask(SIG_UNBLOCK, &caught, NULL);
	(void)sigaction(SIGPIPE, &ignore, NULL);
	(void)sigaction(SIGTSTP, &ignore, NULL);
	(void)sigaction(SIGTTIN, &ignore, NULL);
	(void)sigaction(SIGTTOU, &ignore, NULL);
}

void pl_stop_program_ended(void)
{
	program = 0;
}

const volatile int *pl_stop_flag(void)
{
	return &stop_requested;
}
