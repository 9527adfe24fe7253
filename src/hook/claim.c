/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "pyleak/cleanup.h"
#include "pyleak/hook.h"

/* A lock on the process's own directory in /proc: it needs no file of ours, ends with its holder,
 * and cannot mean a later process with the same number. Another mount of /proc has another one. */
static struct claim {
	pid_t pid;
	int fd;
} *claims;
static size_t claim_count;

static struct claim *claim_find(pid_t pid)
{
	for (size_t i = 0; i < claim_count; i++)
		if (claims[i].pid == pid)
			return &claims[i];
	return NULL;
}

int pl_probe_claim(pid_t pid)
{
	struct claim *grown;
	char path[32];

	if (claim_find(pid))
		return 0;
	grown = reallocarray(claims, claim_count + 1, sizeof(*claims));
	if (!grown)
		return -ENOMEM;
	claims = grown;

	(void)snprintf(path, sizeof(path), "/proc/%d", (int)pid);

	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		int code = errno == EWOULDBLOCK ? -EBUSY : 0; /* a kernel without locks there leaves it to chance */

		(void)close(fd);
		return code;
	}
	claims[claim_count++] = (struct claim){pid, fd};
	return 0;
}

void pl_probe_unclaim(pid_t pid)
{
	struct claim *claim = claim_find(pid);

	if (!claim)
		return;
	(void)close(claim->fd);
	*claim = claims[--claim_count];
}

/* "1: FLOCK  ADVISORY  WRITE 4711 00:17:53123 0 EOF" (fs/locks.c, lock_get_status()). The directory's inode is this one
 * for as long as somebody has it open. */
pid_t pl_probe_claimant(pid_t pid)
{
	pl_autofclose FILE *file = fopen("/proc/locks", "re");
	char path[32], line[256];
	struct stat status;

	(void)snprintf(path, sizeof(path), "/proc/%d", (int)pid);
	if (!file || stat(path, &status) < 0)
		return 0;
	while (fgets(line, sizeof(line), file)) {
		unsigned int device_major, device_minor;
		unsigned long inode;
		int holder;

		if (sscanf(line, "%*[0-9]: FLOCK ADVISORY WRITE %d %x:%x:%lu", &holder, &device_major, &device_minor, &inode) == 4 &&
			inode == status.st_ino && device_major == major(status.st_dev) && device_minor == minor(status.st_dev) &&
			holder > 0 && holder != getpid())
			/* What a killed one leaves is its guardian's, which is done in a moment. */
			return kill(holder, 0) < 0 && errno == ESRCH ? 0 : holder;
	}
	return 0;
}

void pl_probe_unclaim_all(void)
{
	while (claim_count)
		pl_probe_unclaim(claims[0].pid);
	free(claims);
	claims = NULL;
}
