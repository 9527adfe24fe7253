/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "pyleak/cleanup.h"
#include "pyleak/hook.h"
#include "pyleak/process.h"
#include "pyleak/units.h"

#define CLAIM_PAUSE_NSEC (20 * PL_NSEC_PER_MSEC)

/*
 * A lock on the process's own /proc/PID/mem: it needs no file of ours, ends with its holder, and cannot mean a later
 * process with the same number. Only who may trace the process can open that file, so that nobody else can keep us out.
 * Another mount of /proc has another one.
 */
static struct claim {
	pid_t pid;
	uint64_t start_time;
	int fd; /* -1: taken over another's lock */
} *claims;
static size_t claim_count;

static void claim_drop(struct claim *claim)
{
	if (claim->fd >= 0)
		(void)close(claim->fd);
	*claim = claims[--claim_count];
}

/* That of another process that had the number before is none. */
static struct claim *claim_find(pid_t pid, uint64_t start_time)
{
	for (size_t i = 0; i < claim_count; i++) {
		if (claims[i].pid != pid)
			continue;
		if (claims[i].start_time == start_time)
			return &claims[i];
		claim_drop(&claims[i]);
		break;
	}
	return NULL;
}

static int open_lock(pid_t pid)
{
	char path[32];
	int fd;

	(void)snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 ? fd : errno == ENOENT ? -ESRCH : errno == EACCES ? -EPERM : -errno;
}

static int claim(pid_t pid, bool by_force)
{
	struct claim *grown;
	uint64_t start_time;
	int code = pl_process_start_time(pid, &start_time), fd;

	if (code < 0)
		return code;
	if (claim_find(pid, start_time))
		return 0;
	grown = reallocarray(claims, claim_count + 1, sizeof(*claims));
	if (!grown)
		return -ENOMEM;
	claims = grown;
	fd = open_lock(pid);
	if (fd < 0)
		return fd;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		bool held = errno == EWOULDBLOCK; /* a kernel without locks there leaves it to chance */

		(void)close(fd);
		if (held && !by_force)
			return -EBUSY;
		fd = -1;
	}
	claims[claim_count++] = (struct claim){pid, start_time, fd};
	return 0;
}

int pl_probe_claim(pid_t pid)
{
	return claim(pid, false);
}

int pl_probe_claim_within(pid_t pid, int64_t patience_ns)
{
	const struct timespec pause = {.tv_nsec = CLAIM_PAUSE_NSEC};
	const int64_t give_up = pl_now_ns() + patience_ns;
	int code;

	while ((code = claim(pid, false)) == -EBUSY && pl_now_ns() < give_up)
		(void)nanosleep(&pause, NULL);
	return code;
}

int pl_probe_claim_by_force(pid_t pid)
{
	return claim(pid, true);
}

bool pl_probe_is_claimed_by_force(pid_t pid)
{
	for (size_t i = 0; i < claim_count; i++)
		if (claims[i].pid == pid)
			return claims[i].fd < 0;
	return false;
}

void pl_probe_unclaim(pid_t pid, uint64_t start_time)
{
	for (size_t i = 0; i < claim_count; i++)
		if (claims[i].pid == pid && (!start_time || claims[i].start_time == start_time)) {
			claim_drop(&claims[i]);
			return;
		}
}

/* "1: FLOCK  ADVISORY  WRITE 4711 00:17:53123 0 EOF" (fs/locks.c, lock_get_status()). The file's inode is this one
 * for as long as somebody has it open. */
pid_t pl_probe_claimant(pid_t pid)
{
	pl_autofclose FILE *file = fopen("/proc/locks", "re");
	char path[32], line[256];
	struct stat status;

	(void)snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
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
		claim_drop(&claims[0]);
	free(claims);
	claims = NULL;
}
