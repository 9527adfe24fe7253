/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_NATIVE_STACK_H
#define PYLEAK_ENGINE_NATIVE_STACK_H

#include "pyleak/stats.h"
#include "pyleak/unwind.h"

/*
 * From a stack, copied or walked, to the frames that belong into a traceback: from who called the allocator up to
 * where the interpreter called out of a line of Python. What runs that line, and how it calls, is left out: the
 * frames of Python say it better.
 */
struct native_stack {
	struct pl_sites *sites; /* where strings are interned */
	size_t limit;           /* frames wanted, at most PL_NATIVE_FRAMES_MAX */
	const char *python;     /* path of the object that is the interpreter; NULL: not known */
	struct pl_native_line lines[PL_NATIVE_FRAMES_MAX];
	size_t count;
	const char *interpreter; /* the object that runs Python, once the stack was followed up to there */
	size_t nameless; /* 1 + the first line of a nameless function of the interpreter's; 0: none */
	bool full;
	bool failed; /* out of memory */
};

/* Adds a frame, the next further out; a pl_unwind_visit. 1: no more are needed. */
int native_stack_add(void *stack, const struct pl_native_frame *frame);
/* The number of the stack in the sites. UINT32_MAX: none was found, or out of memory. */
uint32_t native_stack_intern(struct native_stack *stack);

#endif
