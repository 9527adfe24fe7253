/* SPDX-License-Identifier: MIT */
#ifndef VICTIM_H
#define VICTIM_H

#include <stdbool.h>
#include <stddef.h>

/*
 * A victim is a shared object that host.py loads into a Python with ctypes. Its threads do one
 * thing that a careless tracer breaks, over and over, and look whether it is broken. host.py asks
 * for the three below; each victim defines victim_start(), victim.c the rest.
 */
#define VICTIM_API __attribute__((visibility("default")))

VICTIM_API int victim_start(void); /* 0 or an errno */
VICTIM_API unsigned long victim_rounds(void);
VICTIM_API const char *victim_broken(void); /* what was found first, or NULL */

void victim_round(void);
void victim_break(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A thread that runs body(argument) for ever; signals as the caller has them. */
int victim_thread(void *(*body)(void *), void *argument);

/* Python's own raw allocator, so that a victim's thread goes through pyleak's hooks. */
struct victim_allocator {
	void *(*allocate)(size_t size);
	void *(*reallocate)(void *block, size_t size);
	void (*release)(void *block);
};
bool victim_allocator(struct victim_allocator *ret);

#endif
