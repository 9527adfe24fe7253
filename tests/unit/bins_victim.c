/* SPDX-License-Identifier: MIT */
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

/*
 * Uses glibc's malloc for test_bins: `bins_victim SEED THREADS BLOCKS KEEP BUSY`. The first thread and so many others
 * each allocate so many blocks, and free all but one of KEEP of them. Then it says how much is free in lists, with
 * the tops, and how much of it in fast bins, and waits; or, BUSY, goes on.
 */
enum { SIZE_MAX_OF_BLOCK = 6000 };

static unsigned int seed, blocks, keep, busy;
static pthread_barrier_t ready;

static void use(unsigned int number)
{
	unsigned int state = seed + number;
	char **all = calloc(blocks, sizeof(*all));

	for (unsigned int i = 0; i < blocks; i++) {
		size_t size = 1 + (unsigned int)rand_r(&state) % SIZE_MAX_OF_BLOCK;

		all[i] = malloc(size);
		memset(all[i], 1, size);
	}
	for (unsigned int i = 0; i < blocks; i++)
		if ((unsigned int)rand_r(&state) % keep)
			free(all[i]);
	if (!number)
		return;
	(void)pthread_barrier_wait(&ready);
	for (;;)
		(void)pause();
}

static void *run(void *number)
{
	use((unsigned int)(size_t)number);
	return NULL;
}

static void go_on(void)
{
	char *all[64] = {NULL};

	for (unsigned int i = 0;; i = (i + 1) % 64) {
		free(all[i]);
		all[i] = malloc(1500 + (size_t)(rand() % 3000));
	}
}

int main(int argc, char **argv)
{
	struct mallinfo2 figures;
	unsigned int threads;

	if (argc != 6)
		return 2;
	/* A test that fails does not end us. */
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	seed = (unsigned int)atoi(argv[1]);
	threads = (unsigned int)atoi(argv[2]);
	blocks = (unsigned int)atoi(argv[3]);
	keep = (unsigned int)atoi(argv[4]);
	busy = (unsigned int)atoi(argv[5]);
	(void)pthread_barrier_init(&ready, NULL, threads + 1);
	for (unsigned int i = 1; i <= threads; i++) {
		pthread_t thread;

		(void)pthread_create(&thread, NULL, run, (void *)(size_t)i);
	}
	use(0);
	(void)pthread_barrier_wait(&ready);
	/* The buffer of stdout, before it is counted. */
	(void)printf("%d", 0);
	figures = mallinfo2();
	(void)printf(" %zu %zu\n", figures.fordblks, figures.fsmblks);
	(void)fflush(stdout);
	if (busy)
		go_on();
	for (;;)
		(void)pause();
}
