/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_PROCESS_PRIVATE_H
#define PYLEAK_PROCESS_PRIVATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Reading the small text files of /proc/PID, for process.c and permission.c. */

enum { PL_PROC_STATUS_BYTES = 65536 };

/* Reads at most size - 1 bytes of /proc/PID/name and ends them in NUL. Length or -errno (-ESRCH: it is not there). */
ssize_t pl_proc_read(pid_t pid, const char *name, char *buffer, size_t size);
/* The value that follows "name:" in the text of a status file; it ends with its line. NULL: no such line. */
const char *pl_proc_field(const char *status, const char *name);
uint64_t pl_proc_number(const char *status, const char *name, int base);
/* Where /proc/PID/name leads, without " (deleted)"; the caller frees. NULL: unreadable. */
char *pl_proc_link(pid_t pid, const char *name);
/* False also where ns/ is not ours to look at. */
bool pl_proc_same_namespace(pid_t pid, const char *name);

#endif
