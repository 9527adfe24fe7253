/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_MEMORY_H
#define PYLEAK_MEMORY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Another process's memory: process_vm_readv, and /proc/PID/mem where a kernel or a
 * sandbox has no process_vm_readv. No stop, no ptrace. Everything read is hostile: callers bound
 * every length and every loop themselves.
 *
 * pid may be any live thread of the process (the leader may be a zombie).
 */

/* Reads exactly length bytes. 0; -EFAULT: (partly) not mapped; -ESRCH: gone; -EPERM. */
int pl_memory_read(pid_t pid, uint64_t address, void *buffer, size_t length);

/* Reads as much as is mapped from address on: the number of bytes (maybe 0), or -errno as above. */
ssize_t pl_memory_read_some(pid_t pid, uint64_t address, void *buffer, size_t length);

/* Many small pieces in one system call; all or nothing. */
struct pl_memory_piece {
	uint64_t address;
	void *buffer;
	size_t length;
};
int pl_memory_read_pieces(pid_t pid, const struct pl_memory_piece *pieces, size_t count);

/* Writes into memory that the process may write itself, without a stop: for words of our own that are made for that (see
 * probe_abi.h). All or nothing only up to 8 aligned bytes. Errors as above. */
int pl_memory_write(pid_t pid, uint64_t address, const void *buffer, size_t length);

static inline int pl_memory_read_u64(pid_t pid, uint64_t address, uint64_t *ret)
{
	return pl_memory_read(pid, address, ret, sizeof(*ret));
}

#endif
