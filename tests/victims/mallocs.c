/* SPDX-License-Identifier: MIT */
/* Threads that do nothing but allocate, by all that the C library offers, and look into each block; one of
 * them is interrupted by a handler which maps and unmaps in the middle of it. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

#include "victim.h"

static void on_alarm(int signal)
{
	int saved = errno;
	char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)signal;
	if (page == MAP_FAILED) {
		victim_break("a handler could not map");
	} else {
		page[0] = page[8191] = 1;
		if (munmap(page, 8192))
			victim_break("a handler could not unmap");
	}
	errno = saved;
}

static void check(unsigned char *block, size_t size, unsigned char byte)
{
	if (!block)
		victim_break("an allocation failed");
	else if (block[0] != byte || block[size / 2] != byte || block[size - 1] != byte)
		victim_break("a block of %zu bytes is not what it was", size);
}

static void *body(void *argument)
{
	unsigned int seed = (unsigned int)(size_t)argument;
	unsigned char *blocks[64] = {NULL};
	size_t sizes[64];

	if (seed != 1) {
		sigset_t mask;

		sigemptyset(&mask);
		sigaddset(&mask, SIGALRM);
		pthread_sigmask(SIG_BLOCK, &mask, NULL);
	}
	for (unsigned int round = 1;; round++) {
		unsigned int at = round % 64;
		size_t size = 16 + (size_t)(rand_r(&seed) % (round % 50 ? 400 : 300000));
		void *place = NULL;

		errno = 4711;
		if (blocks[at] && round & 64) {
			check(blocks[at], sizes[at], (unsigned char)at);
			blocks[at] = realloc(blocks[at], size);
		} else {
			if (blocks[at])
				check(blocks[at], sizes[at], (unsigned char)at);
			free(blocks[at]);
			switch (round / 64 % 4) {
			case 0:
				blocks[at] = malloc(size);
				break;
			case 1:
				blocks[at] = calloc(1, size);
				break;
			case 2:
				blocks[at] = posix_memalign(&place, 64, size) ? NULL : place;
				break;
			default:
				blocks[at] = aligned_alloc(32, (size + 31) / 32 * 32);
			}
		}
		if (errno != 4711)
			victim_break("errno is %d", errno);
		sizes[at] = size;
		if (blocks[at])
			memset(blocks[at], (int)at, size);
		check(blocks[at], size, (unsigned char)at);
		if (round % 4096 == 0) {
			const struct timespec pause = {.tv_nsec = 1000000};

			victim_round();
			nanosleep(&pause, NULL);
		}
	}
	return NULL;
}

int victim_start(void)
{
	const struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
	const struct itimerval often = {{0, 500}, {0, 500}};
	sigset_t mask;
	int code = 0;

	if (sigaction(SIGALRM, &action, NULL) < 0 || setitimer(ITIMER_REAL, &often, NULL) < 0)
		return errno;
	for (size_t i = 1; i <= 3 && !code; i++)
		code = victim_thread(body, (void *)i);
	/* The interpreter's thread is not to be interrupted. */
	sigemptyset(&mask);
	sigaddset(&mask, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &mask, NULL);
	return code;
}
