/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_TRACE_H
#define PYLEAK_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "pyleak/arch.h"
#include "pyleak/error.h"
#include "pyleak/maps.h"

/*
 * The only room that calls ptrace. PTRACE_SEIZE and PTRACE_INTERRUPT only; no single step, no debug
 * register, no PTRACE_O_EXITKILL. At every step the tracer may be killed and the tracee goes on
 * correctly; each step is a fault point that a test stops at (PYLEAK_FAULT=n: SIGKILL to ourselves
 * after the n-th step).
 *
 *   pl_tracee_seize() ─> all threads stopped ─┬─> pl_tracee_detach()
 *                          ▲                  │
 *         pl_tracee_stop() └── traced, running <── pl_tracee_resume()
 *                                │ pl_tracee_wait(): signals passed on, new threads taken in,
 *                                └ breakpoints handed to the engine
 */

enum pl_thread_state {
	PL_THREAD_RUNNING,
	PL_THREAD_STOPPED,   /* in an interrupt stop: registers may be read and changed */
	PL_THREAD_LISTENING, /* group-stopped (^Z), left so by PTRACE_LISTEN */
	PL_THREAD_GONE,
};

struct pl_thread {
	pid_t tid;
	enum pl_thread_state state;
	bool group_stopped;
	uint64_t hint; /* the engine's: the tstate that was right the last time */
	uint64_t aside[3]; /* the engine's: what a thread carries between two breakpoints */
};

struct pl_tracee {
	pid_t pid;
	uint64_t start_time;
	struct pl_thread *threads;
	size_t count, capacity;
	bool follow_threads;   /* PTRACE_O_TRACECLONE is set: new threads are taken in */
	bool ended;            /* the process exited, was killed, or called execve */
	int64_t stopped_since; /* CLOCK_MONOTONIC, 0 while it runs */
	int64_t longest_stop;  /* ns */
	/* A SIGTRAP that a breakpoint instruction caused. True: it was one of ours (the signal is
	 * dropped and the thread goes on); false: it belongs to the program. */
	bool (*on_breakpoint)(struct pl_tracee *tracee, struct pl_thread *thread, const pl_registers *regs);
	void *context; /* the callback's */
};

/* Seizes every thread of pid and stops them all, within `patience_ns` of tries that each hold the
 * process for 50 ms at most (a thread in an uninterruptible sleep or in vfork cannot be stopped).
 * Only threads: nothing else of the process changes. */
int pl_tracee_seize(pid_t pid, int64_t patience_ns, struct pl_tracee **ret, struct pl_error *err);
/* Stops all threads of a running tracee again. */
int pl_tracee_stop(struct pl_tracee *tracee, int64_t patience_ns, struct pl_error *err);
/* Lets all threads go on, still traced. A group-stopped process stays stopped. */
void pl_tracee_resume(struct pl_tracee *tracee);
/* Lets go of every thread and frees the tracee; returns the longest stop, in ns. NULL is allowed. */
int64_t pl_tracee_detach(struct pl_tracee *tracee);
/* New threads are traced from their first instruction on. Call while all are stopped. */
int pl_tracee_follow_threads(struct pl_tracee *tracee);

/* Serves stops of a running tracee until a signal or a tick (20 ms) interrupts the wait. 0: go on
 * calling; -ESRCH: the process ended. */
int pl_tracee_wait(struct pl_tracee *tracee);

int pl_thread_registers(const struct pl_thread *thread, pl_registers *ret);
/* The processor that the thread last ran on, or -1. */
int pl_thread_processor(pid_t pid, pid_t tid);

/* Writes into the tracee's private memory, read-only and executable pages included (the kernel
 * copies them on write). While all threads are stopped, or into pages that nobody uses yet. */
int pl_tracee_write(struct pl_tracee *tracee, uint64_t address, const void *bytes, size_t length);
/* Changes one aligned 8-byte word in one step if it holds `expected`; -EAGAIN and *ret_found
 * (may be NULL) if it holds something else. All threads are stopped. */
int pl_tracee_swap_word(struct pl_tracee *tracee, uint64_t address, uint64_t expected, uint64_t desired,
			uint64_t *ret_found);

/*
 * Remote system calls that restore the thread by themselves if the tracer dies (see
 * pl_arch_remote_frame). Only mmap, munmap, madvise, prctl, rt_sigaction and, where memory
 * is locked, munlock, mremap and mprotect are ever called so.
 * A seccomp filter of the thread is suspended for the calls if we may do that; it is in force again if
 * the tracer dies, so a call that is under way at that moment is judged by it. If we may not, the calls
 * are made under a container's filter, and none is made under one of the program's own.
 */
struct pl_gadgets {
	uint64_t syscall_return, sigreturn;
};
/* Finds the two instruction sequences in the tracee's own text. No stop needed. */
int pl_gadgets_find(pid_t pid, const struct pl_maps *maps, struct pl_gadgets *ret, struct pl_error *err);

struct pl_remote;
/* Chooses a stopped thread that can carry the calls (native code, room on its own stack, not inside
 * a restartable sequence). -EAGAIN if none can at this moment. */
int pl_remote_begin(struct pl_tracee *tracee, const struct pl_maps *maps, const struct pl_gadgets *gadgets,
		    struct pl_remote **ret, struct pl_error *err);
/* The call's own result (maybe -errno of the call) in *ret_result; the return value is about ptrace. */
int pl_remote_call(struct pl_remote *remote, long number, const uint64_t arguments[6], int64_t *ret_result);
/* The thread stands again where it was, stopped. Frees; NULL is allowed. */
int pl_remote_end(struct pl_remote *remote);

/* How many steps this process has made: for tests that enumerate them. */
unsigned int pl_trace_steps(void);

#endif
