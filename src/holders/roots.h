/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HOLDERS_ROOTS_H
#define PYLEAK_HOLDERS_ROOTS_H

#include "view.h"

/*
 * What holds objects and is no object. In the order in which they name a path: what a module's variable leads to is named
 * by it, whoever else holds it.
 *
 * A word of memory holds an object only if the object's count has a rest that no other object explains, or nothing else
 * reaches it: words are stale as often as not.
 */
enum root_kind {
	ROOT_MODULES,     /* sys.modules */
	ROOT_LOCAL,       /* a local of a running frame */
	ROOT_ATEXIT,      /* what atexit.register() was given */
	ROOT_THREAD,      /* a word of a thread's state */
	ROOT_STACK,       /* what an expression or a loop of a running frame has in hand */
	ROOT_INTERPRETER, /* or of an interpreter's */
	ROOT_STATIC,      /* it lies in a program's data, or never ends */
	ROOT_VARIABLE,    /* a variable of a library leads to it */
	ROOT_NATIVE,      /* counted, and nobody found who holds it */
	ROOT_KINDS,
};
enum { ATEXIT_LIST = 3 }; /* from 3.14 on: all of them, a tuple of those three each */
struct root {
	uint32_t object;
	enum root_kind kind;
	uint32_t thread;  /* its place among all; LOCAL, THREAD */
	uint64_t where;   /* LOCAL, STACK: the code object; ATEXIT: 0 the function, 1 arguments, 2 those with names, or ATEXIT_LIST; THREAD: offset in its state; VARIABLE: address of the word */
	uint32_t index;   /* LOCAL: which of its names; ATEXIT: which callback */
	uint32_t found;   /* the how manieth that was found */
};

struct roots {
	struct root *items;
	size_t count, capacity;
	uint32_t *of;     /* object → 1 + its first root's place in items; 0: none */
	uint32_t *via;    /* object → the one before it on its path; itself: a root; PL_GRAPH_NONE: garbage */
	uint32_t *order;  /* reached ones, in the order in which they were */
	uint32_t reached; /* how many of them; without those that only native code holds: */
	uint32_t reached_from_known;
	uint32_t modules; /* the dict; NO_OBJECT: not found */
};

/*
 * Objects that slots of the stack of a frame lead to which is at work, the frame's locals left out. Where the stack ends is
 * not kept meanwhile: what lies there may be stale, and is for the counts to decide.
 */
void stack_of_frame(struct view *view, uint64_t frame, void (*see)(void *context, uint32_t object, uint64_t code), void *context);

/* Finds them all, and adds them to the graph as edges of number 0. -ENOMEM. */
int roots_of(struct view *view, struct roots *ret);
void roots_free(struct roots *roots);

#endif
