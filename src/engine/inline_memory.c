/* SPDX-License-Identifier: MIT */
#include "inline_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "pyleak/hook.h"
#include "pyleak/log.h"

void inline_memory_init(struct inline_memory *memory, pid_t pid, uint64_t base)
{
	*memory = (struct inline_memory){.pid = pid, .base = base, .fd = -1};
}

void inline_memory_close(struct inline_memory *memory)
{
	if (memory->ready && memory->fd >= 0)
		(void)close(memory->fd);
	memory->ready = false;
	memory->fd = -1;
}

int inline_memory_read(const struct inline_memory *memory, uint64_t address, void *buffer, size_t length)
{
	for (size_t done = 0; done < length;) {
		ssize_t got = pread(memory->fd, (char *)buffer + done, length - done, (off_t)(address + done));

		if (got <= 0)
			return -EFAULT;
		done += (size_t)got;
	}
	return 0;
}

int inline_memory_write(const struct inline_memory *memory, uint64_t address, const void *bytes, size_t length)
{
	return pwrite(memory->fd, bytes, length, (off_t)address) == (ssize_t)length ? 0 : -EFAULT;
}

/* Whether the probe is in this memory. */
static bool is_there(const struct inline_memory *memory)
{
	char magic[sizeof(PL_PROBE_MAGIC) - 1];

	return inline_memory_read(memory, memory->base, magic, sizeof(magic)) == 0 &&
	       memcmp(magic, PL_PROBE_MAGIC, sizeof(magic)) == 0;
}

bool inline_memory_open(struct inline_memory *memory)
{
	char path[32];

	if (!memory->ready) {
		(void)snprintf(path, sizeof(path), "/proc/%d/mem", (int)memory->pid);
		memory->fd = open(path, O_RDWR | O_CLOEXEC);
		memory->ready = true;
		if (memory->fd < 0)
			pl_log_debug("no native frames, and rows of tables are not used again: %s cannot be opened: %s", path,
				strerror(errno));
	}
	return memory->fd >= 0;
}

bool inline_memory_begin(const struct inline_memory *memory, bool claimed)
{
	if (!claimed && pl_probe_claim(memory->pid) < 0)
		return false;
	if (is_there(memory))
		return true;
	if (!claimed)
		pl_probe_unclaim(memory->pid, 0);
	return false;
}

void inline_memory_end(const struct inline_memory *memory, bool claimed)
{
	if (!claimed)
		pl_probe_unclaim(memory->pid, 0);
}
