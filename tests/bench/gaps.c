/* SPDX-License-Identifier: MIT */
/* Threads that run and allocate, in steps of 100 µs, and note the longest gap between two of them: see gaps.py. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

enum { THREADS_MAX = 64, STEP_NSEC = 100000 };

__attribute__((visibility("default"))) void gaps_start(int threads);
__attribute__((visibility("default"))) double gaps_longest(void);

static _Atomic int64_t longest[THREADS_MAX];

static int64_t now(void)
{
	struct timespec time;

	(void)clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static void *run(void *argument)
{
	_Atomic int64_t *gap = argument;

	for (int64_t last = now();;) {
		void *volatile block = malloc(100);
		int64_t at;

		free(block);
		while ((at = now()) - last < STEP_NSEC)
			;
		if (at - last - STEP_NSEC > *gap)
			*gap = at - last - STEP_NSEC;
		last = at;
	}
	return NULL;
}

void gaps_start(int threads)
{
	for (int i = 0; i < threads && i < THREADS_MAX; i++) {
		pthread_t thread;

		if (pthread_create(&thread, NULL, run, (void *)&longest[i]) == 0)
			(void)pthread_detach(thread);
	}
}

/* Of all threads since it was asked for last, in milliseconds. */
double gaps_longest(void)
{
	int64_t most = 0;

	for (int i = 0; i < THREADS_MAX; i++) {
		int64_t gap = __atomic_exchange_n((int64_t *)&longest[i], 0, __ATOMIC_RELAXED);

		if (gap > most)
			most = gap;
	}
	return (double)most / 1e6;
}
