/* SPDX-License-Identifier: MIT */
/* Signal handlers on an alternate stack, above the thread's own, that map memory: they interrupt hooks, and go through them. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "victim.h"

enum { SIZE = 65536, BLOCKS = 64, PAGE = 4096 };
static volatile sig_atomic_t refused, handled;
static pthread_t worker;
static volatile int started;

static void handler(int signal)
{
	int before = errno;
	char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)signal;
	if (page == MAP_FAILED) {
		refused = 1;
	} else {
		refused |= page[PAGE - 1] != 0;
		page[0] = 1;
		refused |= munmap(page, PAGE) != 0;
	}
	handled++;
	errno = before;
}

static void *work(void *argument)
{
	const stack_t mine = {.ss_sp = argument, .ss_size = SIZE};
	char *blocks[BLOCKS] = {NULL};

	if (sigaltstack(&mine, NULL))
		victim_break("sigaltstack: %d", errno);
	worker = pthread_self();
	started = 1;
	for (unsigned int n = 0;; n++) {
		const unsigned int at = n % BLOCKS, size = 1 + n * 7 % 3000;

		if (blocks[at] && blocks[at][0] != (char)at)
			victim_break("a block is another's");
		free(blocks[at]);
		blocks[at] = malloc(size);
		if (!blocks[at])
			victim_break("malloc: %d", errno);
		memset(blocks[at], (int)at, size);
		if (refused)
			victim_break("a handler was refused its page");
		if (n % 1000 == 0)
			victim_round();
	}
	return NULL;
}

static void *disturb(void *argument)
{
	const struct timespec pause = {.tv_nsec = 50000};

	(void)argument;
	for (;;) {
		if (started)
			(void)pthread_kill(worker, SIGUSR2);
		(void)nanosleep(&pause, NULL);
	}
	return NULL;
}

int victim_start(void)
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK | SA_RESTART};
	/* Mapped first, it lies above the stack of the thread that comes later. */
	void *stack = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int r;

	if (stack == MAP_FAILED || sigaction(SIGUSR2, &action, NULL))
		return errno;
	r = victim_thread(work, stack);
	return r ? r : victim_thread(disturb, NULL);
}
