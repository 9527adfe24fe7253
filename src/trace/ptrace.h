/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_TRACE_PTRACE_H
#define PYLEAK_TRACE_PTRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ptrace.h>
#include <sys/types.h>

#include "pyleak/arch.h"

#define PL_TRACE_OPTIONS PTRACE_O_TRACESYSGOOD
#define PL_FOLLOW_OPTIONS (PL_TRACE_OPTIONS | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC)

/* Wrappers that only wrap: each is one step, and returns 0 or -errno. */

int pl_ptrace_seize(pid_t tid, unsigned long options);
int pl_ptrace_interrupt(pid_t tid);
int pl_ptrace_continue(pid_t tid, int signal);
int pl_ptrace_listen(pid_t tid);
int pl_ptrace_syscall(pid_t tid, int signal);
int pl_ptrace_detach(pid_t tid, int signal);
int pl_ptrace_set_options(pid_t tid, unsigned long options);
int pl_ptrace_get_registers(pid_t tid, pl_registers *regs);
int pl_ptrace_set_registers(pid_t tid, const pl_registers *regs);
/* The system call that it is in is none that the kernel could restart: what its result register holds is no result. */
int pl_ptrace_forget_call(pid_t tid);
/* The extended state (PL_ARCH_NT_STATE) of the thread; *ret_size <= capacity. */
int pl_ptrace_get_xstate(pid_t tid, void *buffer, size_t capacity, size_t *ret_size);
int pl_ptrace_set_xstate(pid_t tid, const void *buffer, size_t size);
/* Whether it computes with vectors that any system call would take from it (SME's streaming mode). */
bool pl_ptrace_is_streaming(pid_t tid);
int pl_ptrace_get_signal_mask(pid_t tid, uint64_t *ret_mask);
int pl_ptrace_set_signal_mask(pid_t tid, uint64_t mask);
int pl_ptrace_poke(pid_t tid, uint64_t address, uint64_t word);
/* Where the thread's struct rseq is; *ret_address 0 if it has none or the kernel (< 5.13) cannot tell. */
int pl_ptrace_get_rseq(pid_t tid, uint64_t *ret_address);
/* The id of the thread that an event stop of PTRACE_EVENT_CLONE tells of. */
int pl_ptrace_get_new_thread(pid_t tid, pid_t *ret_new);
/* si_code of the signal the thread is stopped with. */
int pl_ptrace_get_signal_code(pid_t tid, int *ret_code);

/*
 * A thread that is ours already, and stands at the entry of a system call (see pyleak/launch.h), or 0: who seizes it
 * takes it over as it is, and it stops behind that call, before it is back in the program.
 */
void pl_ptrace_hold(pid_t tid);
bool pl_ptrace_is_held(pid_t tid);

/* waitpid(), for threads too. The end of the program that we have started is noted, whoever waits for what. */
pid_t pl_ptrace_wait(pid_t tid, int *ret_status);
pid_t pl_ptrace_poll(pid_t tid, int *ret_status); /* the same without waiting: 0, nothing to report */
void pl_ptrace_started(pid_t pid);
/* Whether a wait has come across its end. */
bool pl_ptrace_ended(pid_t pid, int *ret_status);

/* Counts a step and, if PYLEAK_FAULT asks for this one, dies of SIGKILL. */
void pl_fault_point(void);

#endif
