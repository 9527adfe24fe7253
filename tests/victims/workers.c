/* SPDX-License-Identifier: MIT */
/* A library with a thread of its own, as numeric ones have: what a call from Python asks for, that allocates. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "victim.h"

enum { KEEP = 1, USE };

VICTIM_API int workers_start(void);
VICTIM_API void workers_keep(const char *bytes, int blocks);
VICTIM_API void workers_use(const char *bytes, int blocks);

static struct block {
	struct block *next;
} *kept;
static volatile size_t size = 1000; /* no constant that functions could be made for */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int task, left;

static __attribute__((noinline)) struct block *allocate(void)
{
	struct block *block = malloc(size);

	if (!block)
		abort();
	memset(block, 1, size);
	return block;
}

static __attribute__((noinline)) void do_task(void)
{
	struct block *block = allocate();

	if (task == KEEP) {
		block->next = kept;
		kept = block;
	} else {
		free(block);
	}
}

static void *run_worker(void *nothing)
{
	(void)nothing;
	(void)pthread_setname_np(pthread_self(), "victim-worker");
	(void)pthread_mutex_lock(&lock);
	for (;;) {
		while (!left)
			(void)pthread_cond_wait(&changed, &lock);
		do_task();
		left--;
		(void)pthread_cond_broadcast(&changed);
	}
	return NULL;
}

int workers_start(void)
{
	pthread_t thread;

	return pthread_create(&thread, NULL, run_worker, NULL);
}

static void have_done(int what, int blocks)
{
	(void)pthread_mutex_lock(&lock);
	task = what;
	left = blocks;
	(void)pthread_cond_broadcast(&changed);
	while (left)
		(void)pthread_cond_wait(&changed, &lock);
	(void)pthread_mutex_unlock(&lock);
}

void workers_keep(const char *bytes, int blocks)
{
	(void)bytes;
	have_done(KEEP, blocks);
}

void workers_use(const char *bytes, int blocks)
{
	(void)bytes;
	have_done(USE, blocks);
}
