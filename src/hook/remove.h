/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HOOK_REMOVE_H
#define PYLEAK_HOOK_REMOVE_H

#include "carrier.h"

/* Removing a probe: what the way with all threads stopped (remove.c) and the one with none (let_go.c) have in common. */

/* Whether the object that a hooked word belongs to is still loaded there, as far as a file tells. */
bool pl_probe_word_is_there(const struct pl_probe_hook *hook, const struct pl_maps *maps);

/* What is left after a failure, why, and what removes it. Returns the code to give on. */
int pl_probe_explain_left(pid_t pid, int code, const struct pl_probe_left *left, struct pl_error *err);

/*
 * Removes a probe that has a routine for errands from a process that runs: disarms it, has the words put back, waits until
 * each thread has been seen outside, and unmaps. Each step leaves a state that the next pyleak finds and goes on from.
 * *ret_stop_ns (may be NULL): the longest time that a thread was held.
 */
int pl_probe_detach_running(pid_t pid, int64_t patience_ns, int64_t *ret_stop_ns, struct pl_error *err);
/* The same of a probe that is known, by a carrier that is at work already. */
int pl_probe_let_go(struct carrier *carrier, const struct pl_probe *probe, int64_t patience_ns, struct pl_error *err);

#endif
