/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_LAUNCH_H
#define PYLEAK_LAUNCH_H

#include <stdbool.h>
#include <sys/types.h>

#include "pyleak/arch.h"
#include "pyleak/error.h"

/*
 * A program that this process starts and follows, through whatever it forks and executes, until a process of it is the
 * one that is looked for. Traced by PTRACE_SEIZE from before its first instruction; no breakpoint, no signal: what is
 * looked at are stops at the entry of system calls. If this process dies, the kernel lets all of it go on as if
 * nothing had been (tests/integration/test_run.py kills it at every step).
 *
 *   pl_launch_start() ─> pl_launch_follow() ─┬─> held: pl_tracee_seize() takes it over where it stands
 *                                            └─> pl_launch_release()
 */
struct pl_launch;

/* What the one who follows says of a process that is about to make a system call: `anew`, its first of a program that it
 * has just begun. Cheap, or rarely dear: each system call waits for it. */
enum pl_launch_answer {
	PL_LAUNCH_ASK_AGAIN, /* not yet */
	PL_LAUNCH_THIS,      /* it is the one */
	PL_LAUNCH_NEVER,     /* not this program; another one, once it has called execve() */
};
typedef enum pl_launch_answer pl_launch_question(void *context, pid_t pid, bool anew, const pl_registers *regs);

/*
 * Starts argv[0], which is looked for in PATH; with our standard files, folder and environment, and with the signals
 * as they were when this process started (call it before any are caught). `tracer`: a process, no relative of it, that
 * may trace it under Yama (PR_SET_PTRACER), or 0. -ENOENT, -EACCES …: it could not be executed.
 */
int pl_launch_start(char *const argv[], pid_t tracer, struct pl_launch **ret, struct pl_error *err);
/* Of the process that was started. */
pid_t pl_launch_pid(const struct pl_launch *launch);

/* Until the question is answered with THIS: *ret_pid then stands at the entry of a system call, and nothing else is
 * traced. -ESRCH: all of it has ended before; -EPERM, -ENOSYS: it may not be traced. */
int pl_launch_follow(struct pl_launch *launch, pl_launch_question *ask, void *context, pid_t *ret_pid);
/* The same again of a process that was let go and has called execve() since: it stands in pl_launch_follow() as if it were
 * about to begin. 0; -ESRCH, -EPERM: it goes on by itself. */
int pl_launch_again(struct pl_launch *launch, pid_t pid);
/* Lets the process that is held go, if nobody has taken it over. */
void pl_launch_release(struct pl_launch *launch);

/*
 * Whether the program that was started has ended, and with which status of waitpid(). Takes note of every child of this
 * process that has ended: process 1 gets those of others too. *ret_stop_signal: the signal that has stopped it (^Z)
 * since it was last asked, else 0.
 */
bool pl_launch_ended(struct pl_launch *launch, int *ret_status, int *ret_stop_signal);
void pl_launch_free(struct pl_launch *launch); /* NULL is allowed; the program goes on */

#endif
