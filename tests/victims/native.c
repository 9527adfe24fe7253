/* SPDX-License-Identifier: MIT */
/* An extension that keeps what it allocates: every function of the C library that hands out blocks, from
 * threads of Python's and of its own. Driven by native.py. */
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "victim.h"

enum { MALLOC, CALLOC, REALLOC, GROWN, POSIX_MEMALIGN, ALIGNED_ALLOC, MEMALIGN, VALLOC, REALLOCARRAY, MMAP, MREMAP };

VICTIM_API void *native_take(int kind, size_t size);
VICTIM_API void native_drop(int kind, void *block, size_t size);
VICTIM_API void native_take_many(void **blocks, int count, size_t size);
VICTIM_API void native_drop_many(void **blocks, int count);
VICTIM_API void native_churn(void);
VICTIM_API int native_threads(int threads, int blocks, size_t size);
VICTIM_API void native_threads_drop(void);
VICTIM_API int native_errno(void);

void *native_take(int kind, size_t size)
{
	void *block = NULL;

	switch (kind) {
	case MALLOC:
		return malloc(size);
	case CALLOC:
		return calloc(size / 8, 8);
	case REALLOC:
		return realloc(NULL, size);
	case GROWN:
		block = malloc(10);
		return realloc(block, size);
	case POSIX_MEMALIGN:
		return posix_memalign(&block, 64, size) == 0 ? block : NULL;
	case ALIGNED_ALLOC:
		return aligned_alloc(64, size);
	case MEMALIGN:
		return memalign(64, size);
	case VALLOC:
		return valloc(size);
	case REALLOCARRAY:
		return reallocarray(NULL, size / 8, 8);
	case MMAP:
		block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		return block == MAP_FAILED ? NULL : block;
	case MREMAP:
		block = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		block = block == MAP_FAILED ? block : mremap(block, 4096, size, MREMAP_MAYMOVE);
		return block == MAP_FAILED ? NULL : block;
	default:
		return NULL;
	}
}

void native_drop(int kind, void *block, size_t size)
{
	if (kind == MMAP || kind == MREMAP)
		(void)munmap(block, size);
	else
		free(block);
}

void native_take_many(void **blocks, int count, size_t size)
{
	for (int i = 0; i < count; i++)
		blocks[i] = malloc(size);
}

void native_drop_many(void **blocks, int count)
{
	for (int i = 0; i < count; i++)
		free(blocks[i]);
}

/* Never returns. */
void native_churn(void)
{
	void *blocks[100];

	for (;;) {
		native_take_many(blocks, 100, 40);
		native_drop_many(blocks, 100);
	}
}

/* When the interpreter has ended and the process has not. */
__attribute__((destructor)) static void at_exit(void)
{
	void *blocks[1000];

	for (int round = 0; round < 20; round++) {
		native_take_many(blocks, 1000, 3000);
		native_drop_many(blocks, 1000);
	}
}

/* -- threads that never see Python, on the smallest stacks ----------------------------------------- */

struct work {
	pthread_t thread;
	int blocks;
	size_t size;
	void **kept;
};
static struct work *works;
static int work_count;

static void *native_keep(void *argument)
{
	struct work *work = argument;

	for (int i = 0; i < work->blocks; i++) {
		work->kept[i] = malloc(work->size);
		if (work->kept[i])
			memset(work->kept[i], i, work->size);
		free(malloc(work->size + 1));
	}
	return argument;
}

int native_threads(int threads, int blocks, size_t size)
{
	pthread_attr_t attributes;
	int code = 0;

	works = calloc((size_t)threads, sizeof(*works));
	if (!works)
		return ENOMEM;
	work_count = threads;
	(void)pthread_attr_init(&attributes);
	(void)pthread_attr_setstacksize(&attributes, 16384);
	for (int i = 0; i < threads && !code; i++) {
		works[i] = (struct work){.blocks = blocks, .size = size, .kept = calloc((size_t)blocks, sizeof(void *))};
		code = works[i].kept ? pthread_create(&works[i].thread, &attributes, native_keep, &works[i]) : ENOMEM;
	}
	for (int i = 0; i < threads && !code; i++)
		code = pthread_join(works[i].thread, NULL);
	(void)pthread_attr_destroy(&attributes);
	return code;
}

void native_threads_drop(void)
{
	for (int i = 0; i < work_count; i++) {
		for (int k = 0; k < works[i].blocks; k++)
			free(works[i].kept[k]);
		free(works[i].kept);
	}
	free(works);
	works = NULL;
	work_count = 0;
}

/* What a failed allocation and a good one leave in errno. */
int native_errno(void)
{
	void *volatile huge;
	void *block;

	errno = 0;
	huge = malloc((size_t)1 << 62);
	if (huge || errno != ENOMEM)
		return 1;
	errno = 77;
	block = malloc(100);
	free(block);
	return block && errno == 77 ? 0 : 2;
}
