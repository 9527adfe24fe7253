/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "pyleak/cleanup.h"
#include "pyleak/memory.h"
#include "pyleak/trace.h"
#include "ptrace.h"

static int poke_bytes(struct pl_tracee *tracee, uint64_t address, const uint8_t *bytes, size_t length)
{
	while (length) {
		uint64_t aligned = address & ~7ULL, word;
		size_t skip = address - aligned;
		size_t part = length < 8 - skip ? length : 8 - skip;
		int code = pl_memory_read_u64(tracee->threads[0].tid, aligned, &word);

		if (code < 0)
			return code;
		memcpy((uint8_t *)&word + skip, bytes, part);
		code = pl_ptrace_poke(tracee->threads[0].tid, aligned, word);
		if (code < 0)
			return code;
		address += part;
		bytes += part;
		length -= part;
	}
	return 0;
}

static bool write_file(pid_t tid, uint64_t address, const void *bytes, size_t length)
{
	char path[64];
	pl_autoclose int fd = -1;

	snprintf(path, sizeof(path), "/proc/%d/mem", (int)tid);
	fd = open(path, O_WRONLY | O_CLOEXEC);

	ssize_t written = fd < 0 ? -1 : pwrite(fd, bytes, length, (off_t)address);

	pl_fault_point();
	return written == (ssize_t)length;
}

int pl_trace_write(pid_t tid, uint64_t address, const void *bytes, size_t length)
{
	uint8_t ignored;

	if (write_file(tid, address, bytes, length))
		return 0;

	int code = pl_memory_read(tid, address, &ignored, sizeof(ignored));

	return code < 0 ? code : -EACCES;
}

int pl_tracee_write(struct pl_tracee *tracee, uint64_t address, const void *bytes, size_t length)
{
	if (!tracee->count)
		return -ESRCH;
	if (write_file(tracee->threads[0].tid, address, bytes, length))
		return 0;
	/* proc_mem.force_override (Linux 6.12) can forbid this for read-only pages, and a sandbox can
	 * hide the file; POKEDATA is left then. */
	return poke_bytes(tracee, address, bytes, length);
}

int pl_tracee_swap_word(struct pl_tracee *tracee, uint64_t address, uint64_t expected, uint64_t desired,
	uint64_t *ret_found)
{
	uint64_t found;

	if (address & 7)
		return -EINVAL;
	if (!tracee->count)
		return -ESRCH;

	int code = pl_memory_read_u64(tracee->threads[0].tid, address, &found);

	if (code < 0)
		return code;
	if (ret_found)
		*ret_found = found;
	if (found != expected)
		return -EAGAIN;
	return pl_ptrace_poke(tracee->threads[0].tid, address, desired);
}
