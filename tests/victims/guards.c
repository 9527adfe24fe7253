/* SPDX-License-Identifier: MIT */
/* Stacks of many threads in one mapping, as the kernel shows it: what guards them are pages that cannot be read, and no mappings
 * of their own (glibc from 2.42 on, where the kernel is Linux 6.13 or later). */
#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

#include "victim.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

enum { THREADS = 400, STACK = 4 << 20, GUARD = 4096 };

static void *body(void *unused)
{
	const struct timespec pause = {.tv_nsec = 100000000};

	for (;;) {
		victim_round();
		(void)nanosleep(&pause, NULL);
	}
	return unused;
}

int victim_start(void)
{
	char *stacks = mmap(NULL, (size_t)THREADS * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (stacks == MAP_FAILED)
		return errno;
	(void)madvise(stacks, (size_t)THREADS * STACK, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < THREADS; i++)
		if (madvise(stacks + i * STACK, GUARD, MADV_GUARD_INSTALL))
			return ENOSYS;
	for (size_t i = 0; i < THREADS; i++) {
		pthread_attr_t attributes;
		pthread_t thread;
		int r = pthread_attr_init(&attributes);

		if (r == 0)
			r = pthread_attr_setstack(&attributes, stacks + i * STACK + GUARD, STACK - GUARD);
		if (r == 0)
			r = pthread_create(&thread, &attributes, body, NULL);
		if (r)
			return r;
	}
	return 0;
}
