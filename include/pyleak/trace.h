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

/*
 * A process is hooked and let go while it runs (hook.h), one of its threads held at a time. Each step, why it is safe, and
 * the test that shows it; wherever the tracer dies, tests/torture/kill_storm.py visits the step:
 *
 *   hold one thread         SEIZE, INTERRUPT. If the tracer dies it goes on. One that does not stop goes on too, and is
 *                           let go when it does (pl_trace_release_late(); test_no_stop.py: test_vfork)
 *   compute, meanwhile      in grains, before all others: a timer of ours, and a priority of ours, which end with us; what is
 *                           started from there has neither (trace/pace.c; test_no_stop.py: test_in_grains)
 *   let it go in between    after each errand, and after any call once it was held for an eighth of a millisecond
 *                           (hook/carrier.c): what there is then is what there would be if the tracer had died there
 *   mmap, madvise           remote calls, which return by themselves; nobody knows of the new pages (test_remote)
 *   fill the pages          from outside, by nobody held; no word leads there yet
 *   change a word           pl_remote_run(): a routine that the thread itself goes through, whether anybody looks or not,
 *                           and leaves by the same frame. A compare-and-swap: a word that was changed since is left alone.
 *                           Its page may be unmapped by another thread in that very moment: the fault is reported to
 *                           the tracer and to nobody else, and the thread put back where it was (test_remote: fault).
 *                           Only a tracer that dies within the microseconds between the look at a page and the swap, while
 *                           another thread unloads the object, would leave that fault to the program
 *                           (kill_storm.py --libraries)
 *   tell a thread what      only once no other is in the routine, or on its way there: one that a dead tracer has sent
 *                           (test_plant: leaves_an_errand_to_who_was_sent)
 *   make a page writable    by the routine, around the swap, and only if the word is the one that is meant
 *                           (test_no_stop.py: test_read_only)
 *   arm                     one word from outside, after the last hook; disarm: the first thing at the end
 *   lengths of free lists   by compare-and-swap too. A change of the interpreter's at the same moment may undo ours, which
 *                           is right for it, and is looked for; ours never undoes one of its (test_free_lists.py)
 *   see a thread outside    sleeping: /proc/PID/task/TID/syscall, and its stack, twice: it must not have run in between;
 *                           otherwise held, its registers and its stack (hook/quiescent.c; test_racers.py, test_hooked)
 *   unmap                   a remote call, after the last thread was seen and no word leads to us (cycles.py)
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
	bool raised;           /* one thread, held at a higher priority */
	bool unpaced;          /* all threads: nobody rests meanwhile */
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
/*
 * Seizes and stops one thread alone; the others go on. The tracee that is given has this thread only: it can carry calls,
 * and its registers can be read. Until it is let go this process has the highest priority that it may take. -ETIMEDOUT: it
 * did not stop, and goes on; -ESRCH: it has ended; -EPERM.
 */
int pl_tracee_hold(pid_t pid, pid_t tid, int64_t patience_ns, struct pl_tracee **ret);
/* Whether a process that was started by us stands where it was followed to (launch.h): its one thread is to be held until it
 * may go on. Its registers can be read. */
bool pl_trace_holds(pid_t pid);
/*
 * A thread that did not stop when it was told to (in vfork, in a long uninterruptible wait) cannot be let go before it
 * does: then it would stand still until this process ends. This lets go of those that have stopped since; to be called
 * again and again (tests/integration/test_hazards.py, test_vfork). The next that holds them, or stops all, has them back.
 */
void pl_trace_release_late(void);
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

/* Between the two, where more want to run than there are processors for us, this thread computes in grains of a quarter of a
 * millisecond in two, which change nobody's turn (trace/pace.c), if it has the right to (SCHED_FIFO). Not while it waits for long.
 * Calls are counted. */
void pl_trace_pace_begin(void);
void pl_trace_pace_end(void);

int pl_thread_registers(const struct pl_thread *thread, pl_registers *ret);
/* The processor that the thread last ran on, or -1. */
int pl_thread_processor(pid_t pid, pid_t tid);

/* Writes into the tracee's private memory, read-only and executable pages included (the kernel
 * copies them on write). While all threads are stopped, or into pages that nobody uses yet. */
int pl_tracee_write(struct pl_tracee *tracee, uint64_t address, const void *bytes, size_t length);
/* The same while it runs, by a thread that need not be traced. -EACCES: it is there, but cannot be written like this. */
int pl_trace_write(pid_t tid, uint64_t address, const void *bytes, size_t length);
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

/*
 * pl_tracee_hold() and pl_remote_begin() for a running process: of the thread that a stop costs least, of those that can carry
 * calls. *choice (may be NULL; zeros at first) remembers it, so that of a thousand threads not all are looked at each time.
 */
struct pl_remote_choice {
	pid_t tid;
	int rank;
	int64_t in_vain; /* for how long a thread was held at most that could not, ns */
};
int pl_remote_hold(pid_t pid, const struct pl_maps *maps, const struct pl_gadgets *gadgets, struct pl_remote_choice *choice,
		   struct pl_tracee **ret, struct pl_remote **ret_remote, struct pl_error *err);
/*
 * Calls a routine of ours in the thread, with one argument and all signals blocked but those of faults, and waits until it
 * makes the system call madvise(done, 0, …), its last act before it returns. Like a call it ends by itself, in the
 * thread's own state, if the tracer dies. -EFAULT: it ran into a fault, and is left where it stands; the thread is as it
 * was after pl_remote_end(), and the routine can be called again.
 */
int pl_remote_run(struct pl_remote *remote, uint64_t routine, uint64_t argument, uint64_t done);

/* How many steps this process has made: for tests that enumerate them. */
unsigned int pl_trace_steps(void);

#endif
