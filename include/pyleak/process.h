/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_PROCESS_H
#define PYLEAK_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "pyleak/error.h"

/* What /proc says of a process, read without touching it. */

struct pl_process {
	pid_t pid;
	pid_t ppid;
	pid_t tracer;        /* TracerPid, 0: none */
	uint64_t start_time; /* field 22 of stat, clock ticks after boot: with pid, an identity */
	char state;          /* R S D T t Z X */
	uid_t uid, euid;
	gid_t gid, egid;
	int threads;
	uint64_t rss;        /* bytes */
	uint64_t sig_blocked, sig_caught, sig_ignored; /* of the leader; bit n-1 is signal n */
	int seccomp;         /* 0 none, 1 strict, 2 filter */
	bool shadow_stack;   /* see arch.h */
	bool same_pid_namespace;
	pid_t own_pid;       /* its number in its own PID namespace */
	char comm[32];
	char *command_line; /* arguments joined by spaces, control characters replaced; may be "" */
	char *executable;   /* where /proc/PID/exe leads, without " (deleted)"; NULL if unreadable */
};

/* -ESRCH: no such process. Release with pl_process_free() (also after an error). */
int pl_process_read(pid_t pid, struct pl_process *process);
void pl_process_free(struct pl_process *process);
/* What people call it: the command line, or where there is none comm. Lasts as long as *process. */
const char *pl_process_title(const struct pl_process *process);
/* RSS in bytes from /proc/PID/statm; 0 if the process is gone. */
uint64_t pl_process_rss(pid_t pid);
/* Resident bytes by kind, from /proc/PID/status. Shared memory is not among the files. -ESRCH: the process is gone;
 * -ENODATA: the kernel does not say (before 4.5). */
struct pl_process_memory {
	uint64_t rss, anonymous, files, shared;
};
int pl_process_memory(pid_t pid, struct pl_process_memory *ret);
/* Bytes of its address space that it has locked (mlock, mlockall), in memory or not; 0 if that cannot be had. */
uint64_t pl_process_locked(pid_t pid);
/* The start time alone, to see that a pid still means the same process. */
int pl_process_start_time(pid_t pid, uint64_t *ret_start_time);
/* Whether this very process still runs: it is neither gone, nor a zombie, nor another one under its number. */
bool pl_process_is_alive(pid_t pid, uint64_t start_time);

/* Thread ids of a process, in /proc's order; *ret_tids is the caller's to free. -ESRCH. */
int pl_process_threads(pid_t pid, pid_t **ret_tids, size_t *ret_count);
/* The name of a thread (PR_SET_NAME) by the number that it has in the innermost of its namespaces, as gettid() gives it there.
 * -ESRCH: there is none. */
enum { PL_PROCESS_THREAD_NAME = 16 };
int pl_process_thread_name(pid_t pid, pid_t own_tid, char ret[PL_PROCESS_THREAD_NAME]);
/* The same by the number that it has here; and what that is in its own namespace (0: it has ended). */
int pl_process_name_of_thread(pid_t pid, pid_t tid, char ret[PL_PROCESS_THREAD_NAME]);
pid_t pl_process_own_number(pid_t pid, pid_t tid);
/* A process and those that descend from it, each behind its parent; *ret_pids is the caller's to free. -ESRCH. */
int pl_process_family(pid_t pid, pid_t **ret_pids, size_t *ret_count);
/* The children that one thread has made; *ret_pids is the caller's to free. -ESRCH: it ended, or the kernel does not say. */
int pl_process_thread_children(pid_t pid, pid_t tid, pid_t **ret_pids, size_t *ret_count);
/* Whether another process has the very memory of this one, as far as the kernel says; it does where it does not. */
bool pl_process_shares_memory(pid_t pid, pid_t other);
/* All pids that /proc shows, ascending. */
int pl_process_list(pid_t **ret_pids, size_t *ret_count);

/*
 * Whether this process may be traced by us, as far as can be told without ptrace. 0 or -errno with
 * one line in *err that names the cause and the remedy: it ended (ESRCH), it is a zombie, it is us,
 * it is 32-bit (ENOEXEC), another tracer has it and which (EBUSY), another user's (EPERM), Yama's
 * ptrace_scope, a container without CAP_SYS_PTRACE, not dumpable, a seccomp filter that may kill on
 * our calls (its own, and we may not suspend it), a shadow stack, memory that is its parent's (vfork).
 */
int pl_process_may_trace(const struct pl_process *process, struct pl_error *err);

/* The same in parts, in the order in which they are asked. */
enum pl_process_check {
	PL_PROCESS_IS_ALIVE,
	PL_PROCESS_HAS_PROGRAM, /* of its own, 64-bit, for this processor */
	PL_PROCESS_HAS_NO_TRACER,
	PL_PROCESS_IS_PERMITTED,
	PL_PROCESS_HAS_OWN_MEMORY, /* not its parent's, as between vfork() and exec() */
	PL_PROCESS_HAS_NO_SANDBOX, /* none that our calls could run into */
	PL_PROCESS_CHECKS
};
int pl_process_check(const struct pl_process *process, enum pl_process_check check, struct pl_error *err);
/* For use after ptrace itself said EPERM: the most probable reason that is left. Never 0. */
int pl_process_explain_denied(const struct pl_process *process, struct pl_error *err);
/* Whether system calls of a thread are filtered (seccomp), or it is not to be seen. */
bool pl_process_has_filter(pid_t tid);
/* Whether the seccomp filter of a thread was put on by the runtime of its container and not by the program: such a
 * one lets our calls through, or answers them with an error. */
bool pl_process_filter_is_containers(pid_t tid);

/* Whether a process runs in a PID namespace of its own, which is what we take for a container. */
bool pl_process_is_contained(pid_t pid);

/* Opens a regular file as the process itself would see it (through /proc/PID/root). fd or -errno;
 * -EINVAL: it is something else. With our own rights: for files that it has mapped. */
int pl_process_open_file(pid_t pid, const char *path);
/* The same with the rights of the process: for names that it has chosen, of files whose content is shown. -EACCES: it may
 * not read that; -EPERM: its rights cannot be taken on. */
int pl_process_open_file_as(pid_t pid, const char *path);

#endif
