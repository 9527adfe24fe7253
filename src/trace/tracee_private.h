/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_TRACE_TRACEE_PRIVATE_H
#define PYLEAK_TRACE_TRACEE_PRIVATE_H

#include "pyleak/trace.h"
#include "pyleak/units.h"

/* What a tracee is made of. threads.c: the threads that are traced, and what one of them is told; events.c: what the
 * kernel reports of them; tracee.c: stopping all of them and letting go; hold.c: one of them alone. */

/* threads.c */
struct pl_thread *thread_find(struct pl_tracee *tracee, pid_t tid);
struct pl_thread *thread_add(struct pl_tracee *tracee, pid_t tid); /* NULL: no memory */
/* Takes those that are gone out of the list. */
void threads_forget_gone(struct pl_tracee *tracee);
/* Whether tid is a thread of this process and not a process that it cloned with unusual flags. */
bool thread_is_own(const struct pl_tracee *tracee, pid_t tid);
/*
 * Lets a thread go on. While stops are being collected it must come back at once: any trap clears
 * a pending INTERRUPT (kernel/signal.c, ptrace_stop()), so it is asked for anew before each step.
 */
void thread_go_on(struct pl_thread *thread, int signal, bool collecting);
bool thread_is_dead(pid_t pid, pid_t tid);
bool threads_any_running(const struct pl_tracee *tracee);
void threads_interrupt(struct pl_tracee *tracee);
/* Seizes the threads that are not ours yet. The number of new ones, or -errno. */
int threads_seize_new(struct pl_tracee *tracee);
/* A stop costs a tenth where tracer and tracee share a processor: one hands over to the other
 * without waking an idle core. The tracee is left free; we follow it. */
void thread_follow_processor(const struct pl_tracee *tracee, pid_t tid);

/* events.c */
/* waitpid() has no timeout: while this is on, a wait ends after 20 ms. */
void events_tick(bool on);
/* Until all threads have stopped. 0; -ETIMEDOUT: some thread did not stop; -ESRCH: the process ended. */
int events_collect_stops(struct pl_tracee *tracee, int64_t deadline);
/* The same of one thread, the only one that is traced. */
int events_await(struct pl_tracee *tracee, pid_t tid, int64_t deadline);

/* hold.c */
/* How long one thread is waited for that is to carry calls. */
#define CARRIER_PATIENCE_NSEC (100 * PL_NSEC_PER_MSEC)

/* late.c */
/* A thread that is seized and was told to stop, and is left to itself until it does. */
void late_add(pid_t pid, pid_t tid);
/* Whether it was one: it is the caller's again. */
bool late_take(pid_t pid, pid_t tid);

/* pace.c */
/* While a thread is held this one is not to rest; it has the priority when this returns. False: it is not paced. */
bool pace_keep(void);
void pace_go_on(void);
/* While all threads may be stopped it is not paced at all. Calls are counted. */
void pace_suspend(void);
void pace_resume(void);

/* priority.c */
/* Before a thread is held, and once it is let go; nested calls are counted. True: nobody else comes first now. */
bool priority_raise(void);
void priority_lower(void);
/* This thread has the same priority, if it can be had, until it is taken back: before the thread is let go, or by
 * priority_lower(). */
void priority_lend(pid_t tid);
void priority_take_back(void);

/* own_class.c */
/* Of this thread. False: it has no right to it. */
bool own_class_is_usual(void);
bool own_class_take_highest(void);
bool own_class_take_usual(void);
/* If it runs on that processor, it goes on on another one, if there is one for it. */
void own_class_leave_processor(int processor);

#endif
