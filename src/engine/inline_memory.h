/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_INLINE_MEMORY_H
#define PYLEAK_ENGINE_INLINE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * What is written into the probe's data while the process runs. It is written through a file descriptor that is bound to
 * the memory as it was when the probe was found in it, so that no later program can be meant; by who has the claim, so that
 * nobody removes the probe meanwhile; and only into the probe's own data.
 */
struct inline_memory {
	pid_t pid;
	uint64_t base; /* of the probe */
	int fd;        /* /proc/PID/mem; -1: not to be had */
	bool ready;
};

/* It is opened when it is first needed. */
void inline_memory_init(struct inline_memory *memory, pid_t pid, uint64_t base);
void inline_memory_close(struct inline_memory *memory);
bool inline_memory_open(struct inline_memory *memory);

/* `claimed`: the process is this pyleak's. To be given back by inline_memory_end(). */
bool inline_memory_begin(const struct inline_memory *memory, bool claimed);
void inline_memory_end(const struct inline_memory *memory, bool claimed);

/* 0, -EFAULT. */
int inline_memory_read(const struct inline_memory *memory, uint64_t address, void *buffer, size_t length);
int inline_memory_write(const struct inline_memory *memory, uint64_t address, const void *bytes, size_t length);

#endif
