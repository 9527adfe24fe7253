/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#include "pyleak/hook.h"

/* A lock on the process's own directory in /proc: it needs no file of ours, ends with its holder,
 * and cannot mean a later process with the same number. Another mount of /proc has another one. */
static int claim_fd = -1;

int pl_probe_claim(pid_t pid)
{
	char path[32];

	if (claim_fd >= 0)
		return 0;

	(void)snprintf(path, sizeof(path), "/proc/%d", (int)pid);

	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		int code = errno == EWOULDBLOCK ? -EBUSY : 0; /* a kernel without locks there leaves it to chance */

		(void)close(fd);
		return code;
	}
	claim_fd = fd;
	return 0;
}

void pl_probe_unclaim(void)
{
	if (claim_fd >= 0)
		(void)close(claim_fd);
	claim_fd = -1;
}
