/* SPDX-License-Identifier: MIT */
/*
 * Preloaded into a program: counts what is live of the C library's blocks and of anonymous mappings, in bytes that were
 * asked for. With PYTHONMALLOC=malloc these are Python's blocks as well. Whoever calls, and by what pointer: the dynamic
 * linker binds all of them here. The truth that pyleak is compared with where a library does not know it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);
int64_t count_live(void);

enum { SLOTS = 1 << 23 };
static struct slot {
	uintptr_t address; /* 0: never used; 1: not any more */
	size_t size;
} *slots;
static int64_t live;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static size_t hash(uintptr_t address)
{
	return (address >> 4) * 0x9e3779b97f4a7c15ULL >> (64 - 23);
}

static void add(void *block, size_t size)
{
	size_t at = hash((uintptr_t)block);

	if (!block)
		return;
	(void)pthread_mutex_lock(&lock);
	if (!slots)
		slots = mmap(NULL, SLOTS * sizeof(*slots), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
	while (slots[at].address > 1 && slots[at].address != (uintptr_t)block)
		at = (at + 1) % SLOTS;
	if (slots[at].address == (uintptr_t)block)
		live -= (int64_t)slots[at].size;
	slots[at] = (struct slot){(uintptr_t)block, size};
	live += (int64_t)size;
	(void)pthread_mutex_unlock(&lock);
}

static size_t take(void *block)
{
	size_t at = hash((uintptr_t)block), size = 0;

	if (!block || !slots)
		return 0;
	(void)pthread_mutex_lock(&lock);
	while (slots[at].address && slots[at].address != (uintptr_t)block)
		at = (at + 1) % SLOTS;
	if (slots[at].address) {
		size = slots[at].size;
		live -= (int64_t)size;
		slots[at].address = 1;
	}
	(void)pthread_mutex_unlock(&lock);
	return size;
}

int64_t count_live(void)
{
	return live;
}

void *malloc(size_t size)
{
	void *block = __libc_malloc(size);

	add(block, size);
	return block;
}

void free(void *block)
{
	(void)take(block);
	__libc_free(block);
}

void *calloc(size_t count, size_t size)
{
	void *block = __libc_calloc(count, size);

	add(block, count * size);
	return block;
}

void *realloc(void *old, size_t size)
{
	size_t before = take(old);
	void *block = __libc_realloc(old, size);

	if (block)
		add(block, size);
	else if (size)
		add(old, before);
	return block;
}

void *memalign(size_t alignment, size_t size)
{
	void *block = __libc_memalign(alignment, size);

	add(block, size);
	return block;
}

void *aligned_alloc(size_t alignment, size_t size)
{
	return memalign(alignment, size);
}

int posix_memalign(void **place, size_t alignment, size_t size)
{
	*place = memalign(alignment, size);
	return *place ? 0 : ENOMEM;
}

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
	static void *(*real)(void *, size_t, int, int, int, off_t);
	void *result;

	if (!real)
		real = (void *(*)(void *, size_t, int, int, int, off_t))dlsym(RTLD_NEXT, "mmap");
	result = real(address, size, protection, flags, fd, offset);
	if (result != MAP_FAILED && flags & MAP_ANONYMOUS && protection & PROT_WRITE && !(flags & (MAP_STACK | MAP_FIXED)))
		add(result, size);
	return result;
}

void *mmap64(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
	return mmap(address, size, protection, flags, fd, offset);
}

int munmap(void *address, size_t size)
{
	static int (*real)(void *, size_t);

	if (!real)
		real = (int (*)(void *, size_t))dlsym(RTLD_NEXT, "munmap");
	(void)take(address);
	return real(address, size);
}
