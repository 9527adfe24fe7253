/* SPDX-License-Identifier: MIT */
/* A thread's alternate signal stack stays the one that it chose, and handlers run on it. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#include "victim.h"

#define SIZE 65536
static _Thread_local unsigned char *stack;
static _Thread_local volatile sig_atomic_t handled, elsewhere;

static void handler(int signal)
{
	unsigned char here;

	if ((uintptr_t)&here - (uintptr_t)stack >= SIZE)
		elsewhere = 1;
	handled++;
}

static void *body(void *argument)
{
	stack_t mine = {.ss_sp = argument, .ss_size = SIZE}, found;

	stack = argument;
	if (sigaltstack(&mine, NULL))
		victim_break("sigaltstack: %d", errno);
	for (int n = 0;; n = (n + 1) & 0xffff) {
		handled = n;
		raise(SIGUSR2);
		if (handled != n + 1)
			victim_break("the handler ran %d times", (int)handled - n);
		if (elsewhere)
			victim_break("the handler ran on another stack");
		if (sigaltstack(NULL, &found) || found.ss_sp != mine.ss_sp || found.ss_size != SIZE || found.ss_flags)
			victim_break("the alternate stack is another");
		for (volatile int spin = 0; spin < 20000; spin++)
			continue;
		victim_round();
	}
	return NULL;
}

int victim_start(void)
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK | SA_RESTART};
	int r = 0;

	if (sigaction(SIGUSR2, &action, NULL))
		return errno;
	for (int i = 0; i < 2 && !r; i++) {
		void *memory = malloc(SIZE);

		r = memory ? victim_thread(body, memory) : ENOMEM;
	}
	return r;
}
