/* SPDX-License-Identifier: MIT */
#include <stddef.h>

/*
 * What any hook of Python's allocators costs: pass-throughs that do nothing, put in the way by the
 * interpreter's own PyMem_SetAllocator. Loaded by ctypes into the Python that is measured.
 */

struct allocator { /* PyMemAllocatorEx */
	void *context;
	void *(*malloc)(void *context, size_t size);
	void *(*calloc)(void *context, size_t count, size_t size);
	void *(*realloc)(void *context, void *block, size_t size);
	void (*free)(void *context, void *block);
};

enum { DOMAINS = 3 };

/* Of the interpreter that loads this. */
extern void PyMem_GetAllocator(int domain, struct allocator *allocator);
extern void PyMem_SetAllocator(int domain, struct allocator *allocator);

void empty_hook(int on);

static struct allocator original[DOMAINS];

#define HOOKS(domain)                                                                        \
	static void *malloc_##domain(void *context, size_t size)                             \
	{                                                                                    \
		return original[domain].malloc(context, size);                               \
	}                                                                                    \
	static void *calloc_##domain(void *context, size_t count, size_t size)               \
	{                                                                                    \
		return original[domain].calloc(context, count, size);                        \
	}                                                                                    \
	static void *realloc_##domain(void *context, void *block, size_t size)               \
	{                                                                                    \
		return original[domain].realloc(context, block, size);                       \
	}                                                                                    \
	static void free_##domain(void *context, void *block)                                \
	{                                                                                    \
		original[domain].free(context, block);                                       \
	}
HOOKS(0)
HOOKS(1)
HOOKS(2)
#define HOOKED(domain) {NULL, malloc_##domain, calloc_##domain, realloc_##domain, free_##domain}

/* The context stays what it was. The words are put back only while they are ours. */
void empty_hook(int on)
{
	static const struct allocator hooked[DOMAINS] = {HOOKED(0), HOOKED(1), HOOKED(2)};
	struct allocator now;

	for (int domain = 0; domain < DOMAINS; domain++) {
		PyMem_GetAllocator(domain, &now);
		if (on && now.malloc != hooked[domain].malloc) {
			original[domain] = now;
			now = hooked[domain];
			now.context = original[domain].context;
			PyMem_SetAllocator(domain, &now);
		} else if (!on && now.malloc == hooked[domain].malloc) {
			PyMem_SetAllocator(domain, &original[domain]);
		}
	}
}
