/* SPDX-License-Identifier: MIT */
#include "pyleak/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/uio.h>
#include <unistd.h>

#include "pyleak/cleanup.h"

enum { PIECES_AT_ONCE = 64 };

/* Not in the kernel (before 3.2), or a seccomp filter around us refuses it: then /proc/PID/mem may still work. */
static bool vm_readv_refused(int error)
{
	return error == ENOSYS || error == EPERM || error == EACCES;
}

static int open_mem(pid_t pid, int flags)
{
	char path[48];
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	fd = open(path, flags | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	if (errno == ENOENT || errno == ESRCH)
		return -ESRCH;
	return errno == EACCES ? -EPERM : -errno;
}

/* Reads up to the first byte that is not mapped. */
static ssize_t read_mem(int fd, uint64_t address, void *buffer, size_t length)
{
	size_t done = 0;

	while (done < length) {
		ssize_t got = pread(fd, (char *)buffer + done, length - done, (off_t)(address + done));

		if (got > 0) {
			done += (size_t)got;
		} else if (got == 0) {
			return done ? (ssize_t)done : -ESRCH; /* mem_rw() says 0 when the address space is gone */
		} else if (errno != EINTR) {
			break; /* EIO: not mapped; EINVAL: beyond what an off_t can say */
		}
	}
	return (ssize_t)done;
}

static ssize_t read_some_by_mem(pid_t pid, uint64_t address, void *buffer, size_t length)
{
	pl_autoclose int fd = open_mem(pid, O_RDONLY);

	return fd < 0 ? fd : read_mem(fd, address, buffer, length);
}

ssize_t pl_memory_read_some(pid_t pid, uint64_t address, void *buffer, size_t length)
{
	size_t done = 0;

	if (length > SSIZE_MAX)
		return -EINVAL;
	while (done < length) {
		struct iovec local = {(char *)buffer + done, length - done};
		struct iovec remote = {(void *)(uintptr_t)(address + done), length - done};
		ssize_t got = process_vm_readv(pid, &local, 1, &remote, 1, 0);

		/* A single call moves at most 2 GiB less a page, so a short count alone does not mean a fault. */
		if (got > 0) {
			done += (size_t)got;
			continue;
		}
		if (got == 0 || errno == EFAULT || errno == EINVAL)
			break;
		if (done == 0 && vm_readv_refused(errno))
			return read_some_by_mem(pid, address, buffer, length);
		return done ? (ssize_t)done : -errno;
	}
	return (ssize_t)done;
}

int pl_memory_read(pid_t pid, uint64_t address, void *buffer, size_t length)
{
	ssize_t got = pl_memory_read_some(pid, address, buffer, length);

	if (got < 0)
		return (int)got;
	return (size_t)got == length ? 0 : -EFAULT;
}

static int read_pieces_by_mem(pid_t pid, const struct pl_memory_piece *pieces, size_t count)
{
	pl_autoclose int fd = open_mem(pid, O_RDONLY);

	if (fd < 0)
		return fd;
	for (size_t i = 0; i < count; i++) {
		ssize_t got = read_mem(fd, pieces[i].address, pieces[i].buffer, pieces[i].length);

		if (got < 0)
			return (int)got;
		if ((size_t)got != pieces[i].length)
			return -EFAULT;
	}
	return 0;
}

int pl_memory_read_pieces(pid_t pid, const struct pl_memory_piece *pieces, size_t count)
{
	struct iovec local[PIECES_AT_ONCE], remote[PIECES_AT_ONCE];

	for (size_t done = 0; done < count; done += PIECES_AT_ONCE) {
		size_t batch = count - done < PIECES_AT_ONCE ? count - done : PIECES_AT_ONCE;
		size_t wanted = 0;
		ssize_t got;

		for (size_t i = 0; i < batch; i++) {
			const struct pl_memory_piece *piece = &pieces[done + i];

			local[i] = (struct iovec){piece->buffer, piece->length};
			remote[i] = (struct iovec){(void *)(uintptr_t)piece->address, piece->length};
			if (__builtin_add_overflow(wanted, piece->length, &wanted) || wanted > INT_MAX / 2)
				return -EINVAL;
		}
		if (wanted == 0)
			continue;
		got = process_vm_readv(pid, local, batch, remote, batch, 0);
		if (got < 0 && vm_readv_refused(errno))
			return read_pieces_by_mem(pid, pieces + done, count - done);
		if (got < 0)
			return errno == ESRCH ? -ESRCH : -EFAULT;
		if ((size_t)got != wanted)
			return -EFAULT;
	}
	return 0;
}

int pl_memory_write(pid_t pid, uint64_t address, const void *buffer, size_t length)
{
	struct iovec local = {(void *)buffer, length}, remote = {(void *)(uintptr_t)address, length};
	ssize_t put = process_vm_writev(pid, &local, 1, &remote, 1, 0);

	if (put < 0 && vm_readv_refused(errno)) {
		pl_autoclose int fd = open_mem(pid, O_WRONLY);

		if (fd < 0)
			return fd;
		put = pwrite(fd, buffer, length, (off_t)address);
	}
	if (put < 0)
		return errno == ESRCH ? -ESRCH : errno == EPERM || errno == EACCES ? -EPERM : -EFAULT;
	return (size_t)put == length ? 0 : -EFAULT;
}
