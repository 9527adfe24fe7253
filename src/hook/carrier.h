/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HOOK_CARRIER_H
#define PYLEAK_HOOK_CARRIER_H

#include "pyleak/hook.h"

/*
 * What is done in a process that goes on meanwhile, by one of its threads: system calls, and errands
 * (errand.h). A thread is held when the first of them is asked for. Once that is CARRIER_HOLD_NSEC ago it is let go, and the next
 * request takes another one, or the same again: a program that has only this one sees many short pauses and no long one.
 */
struct carrier {
	pid_t pid;
	struct pl_maps maps;
	struct pl_gadgets gadgets;
	struct pl_tracee *tracee; /* the thread that is held now, or NULL */
	struct pl_remote *remote;
	struct pl_remote_choice choice;
	int64_t longest_hold;
	bool keep; /* a process that is to begin when all is done: its thread is held until carrier_free() */
};

/* Reads what is mapped. Release it in any case. 0 or -errno. */
int carrier_init(struct carrier *carrier, pid_t pid, struct pl_error *err);
/* The mappings as they are now. */
int carrier_look(struct carrier *carrier);
void carrier_free(struct carrier *carrier);

/* A thread is held after this. 0; -EAGAIN, -ETIMEDOUT: none can be at this moment. */
int carrier_hold(struct carrier *carrier, struct pl_error *err);
/* Lets the thread go, if one is held. 0 or -errno: what befell it. */
int carrier_rest(struct carrier *carrier);

/* From outside, while the process runs; where that is not allowed, with a thread held. */
int carrier_write(struct carrier *carrier, uint64_t address, const void *bytes, size_t length);
/* A system call that must succeed: its own failure becomes the return value. -ETIMEDOUT: no thread could carry it. */
int carrier_call(struct carrier *carrier, long number, const uint64_t arguments[6], int64_t *ret_result);

#endif
