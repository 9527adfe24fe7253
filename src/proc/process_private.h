/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_PROCESS_PRIVATE_H
#define PYLEAK_PROCESS_PRIVATE_H

#include "pyleak/process.h"

/* Reading the small text files of /proc/PID, for process.c, permission.c and sandbox.c. */

enum { PL_PROC_STATUS_BYTES = 65536 };

/* Reads at most size - 1 bytes of /proc/PID/name and ends them in NUL. Length or -errno (-ESRCH: it is not there). */
ssize_t pl_proc_read(pid_t pid, const char *name, char *buffer, size_t size);
/* The value that follows "name:" in the text of a status file; it ends with its line. NULL: no such line. */
const char *pl_proc_field(const char *status, const char *name);
uint64_t pl_proc_number(const char *status, const char *name, int base);
/* Where /proc/PID/name leads, without " (deleted)"; the caller frees. NULL: unreadable. */
char *pl_proc_link(pid_t pid, const char *name);
/* Fills in what a status file says: of a process, or of one of its threads. */
void pl_proc_parse_status(const char *status, struct pl_process *process);
/* Whether a program that begins with these bytes is one that we can trace. */
int pl_proc_check_program(pid_t pid, const unsigned char *header, size_t length, struct pl_error *err);
/* Whether what a process has around itself lets our system calls through; strictest is the sum of its threads. */
int pl_proc_check_sandbox(const struct pl_process *strictest, struct pl_error *err);
/* Whether a thread's seccomp filters are all its container's, by its status and that of the container's first process
 * (the same text: it is that process). */
bool pl_proc_filter_is_containers(const char *status, const char *first_status);

#endif
