/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ASLEEP_H
#define PYLEAK_ASLEEP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * A thread that sleeps in the kernel, seen without touching it. /proc/PID/task/TID/syscall has the system call that it is
 * in, its arguments, and where in its own code and stack it will go on (kernel: lib/syscall.c, which answers only if the
 * thread was off its processor all the while). Threads in an uninterruptible wait or in vfork say it too, which no tracer
 * could stop.
 */
struct pl_asleep {
	int64_t number; /* of the system call */
	uint64_t arguments[6];
	uint64_t sp, ip;
	uint64_t switches; /* how often it was taken off a processor, by itself or not */
	char state;        /* S or D; T: the process is stopped */
};

/* 0; -EAGAIN: it runs, or would if it were given a processor, or sleeps outside of a system call (a page fault);
 * -ESRCH: it has ended; -EPERM, -ENOENT: the kernel does not say. */
int pl_asleep_read(pid_t pid, pid_t tid, struct pl_asleep *ret);

/* Whether a thread that was seen twice has not run in between: then whatever was read of its stack meanwhile holds. */
bool pl_asleep_same(const struct pl_asleep *before, const struct pl_asleep *after);

/* A thread of the kernel's own that counts among those of the process: a worker of io_uring. It never runs code of the
 * process, and no tracer can stop it. */
bool pl_thread_is_kernels(pid_t pid, pid_t tid);

/* This moment, in the unit in which the kernel says when a thread began. */
uint64_t pl_thread_ticks_now(void);
/* Whether a thread began after that moment; not if it ended, or the kernel does not say. */
bool pl_thread_began_after(pid_t pid, pid_t tid, uint64_t ticks);

/* Whether it waits for a child that shares its memory and has not called exec() (vfork, posix_spawn), if it is in D. */
bool pl_asleep_may_wait_for_child(const struct pl_asleep *asleep);

#endif
