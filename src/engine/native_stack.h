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
	/* Only from the first function on that is not the interpreter's own: of a block of Python's allocators, who asked for it. */
	bool outside;
	bool skipped_nameless; /* of what was left out, some had no name */
	bool full;
	bool failed; /* out of memory */
	/* The outermost functions that were seen: of the last one what object it is in, and the last that is none of the C
	 * library's, which is where a thread begins if the C library is behind it. */
	bool ends_in_libc;
	struct pl_native_line begins;
	/* What is known of the thread if it turns out to be none of Python's; a name of NULL and so on. */
	struct pl_native_thread thread;
	bool no_python, has_python; /* it is known to be none, or to be one; otherwise by where the stack ends */
};

/* Adds a frame, the next further out; a pl_unwind_visit. 1: no more are needed. Beyond the last one that has room they are
 * looked at, but not kept. */
int native_stack_add(void *stack, const struct pl_native_frame *frame);
/* The number of the stack in the sites. UINT32_MAX: none was found, or out of memory. */
uint32_t native_stack_intern(struct native_stack *stack);
/* The same of one that is `outside`. NATIVE_STACK_INTERPRETERS: the interpreter itself asked, for the line. */
#define NATIVE_STACK_INTERPRETERS (UINT32_MAX - 1)
uint32_t native_stack_intern_outside(struct native_stack *stack);

#endif
