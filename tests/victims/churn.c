/* SPDX-License-Identifier: MIT */
/* Threads are born and die all the time, each through the allocator. */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "victim.h"

static struct victim_allocator allocator;

static void *shortlived(void *argument)
{
	for (size_t size = 24; size < 1200; size += 300) {
		unsigned char *block = allocator.allocate(size);

		if (!block)
			return NULL;
		memset(block, (int)size & 0xff, size);
		if (block[size - 1] != (size & 0xff))
			victim_break("a block lost its last byte");
		allocator.release(block);
	}
	return argument;
}

static void *body(void *argument)
{
	struct timespec pause = {.tv_nsec = 500000};

	for (;;) {
		pthread_t threads[3];
		void *result;

		for (int i = 0; i < 3; i++)
			if (pthread_create(&threads[i], NULL, shortlived, &allocator))
				victim_break("a thread could not be created");
		for (int i = 0; i < 3; i++)
			if (pthread_join(threads[i], &result) || result != &allocator)
				victim_break("a thread ended early");
		victim_round();
		nanosleep(&pause, NULL);
	}
	return NULL;
}

int victim_start(void)
{
	int r;

	if (!victim_allocator(&allocator))
		return ENOSYS;
	r = victim_thread(body, NULL);
	return r ? r : victim_thread(body, NULL);
}
