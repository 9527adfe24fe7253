/* SPDX-License-Identifier: MIT */
#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#include "victim.h"

static atomic_ulong rounds;
static atomic_bool is_broken;
static char reason[256];

void victim_round(void)
{
	atomic_fetch_add(&rounds, 1);
}

void victim_break(const char *format, ...)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	va_list arguments;

	pthread_mutex_lock(&lock);
	if (!atomic_load(&is_broken)) {
		va_start(arguments, format);
		vsnprintf(reason, sizeof(reason), format, arguments);
		va_end(arguments);
		atomic_store(&is_broken, true);
	}
	pthread_mutex_unlock(&lock);
}

unsigned long victim_rounds(void)
{
	return atomic_load(&rounds);
}

const char *victim_broken(void)
{
	return atomic_load(&is_broken) ? reason : NULL;
}

int victim_thread(void *(*body)(void *), void *argument)
{
	pthread_t thread;
	int r = pthread_create(&thread, NULL, body, argument);

	if (r)
		return r;
	return pthread_detach(thread);
}

bool victim_allocator(struct victim_allocator *ret)
{
	*(void **)&ret->allocate = dlsym(RTLD_DEFAULT, "PyMem_RawMalloc");
	*(void **)&ret->reallocate = dlsym(RTLD_DEFAULT, "PyMem_RawRealloc");
	*(void **)&ret->release = dlsym(RTLD_DEFAULT, "PyMem_RawFree");
	return ret->allocate && ret->reallocate && ret->release;
}
