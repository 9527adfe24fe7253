/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "process_private.h"
#include "pyleak/asleep.h"
#include "pyleak/units.h"

#ifndef SYS_vfork
#define SYS_vfork SYS_clone /* where that does it */
#endif

static int read_status(pid_t pid, pid_t tid, struct pl_asleep *ret)
{
	char name[48], text[16384];
	const char *state;

	(void)snprintf(name, sizeof(name), "task/%d/status", (int)tid);

	ssize_t got = pl_proc_read(pid, name, text, sizeof(text));

	if (got < 0)
		return (int)got;
	state = pl_proc_field(text, "State");
	ret->state = state ? state[strspn(state, " \t")] : '\0';
	ret->switches = pl_proc_number(text, "voluntary_ctxt_switches", 10) +
			pl_proc_number(text, "nonvoluntary_ctxt_switches", 10);
	return strchr("ZX", ret->state) ? -ESRCH : 0;
}

static int read_syscall(pid_t pid, pid_t tid, struct pl_asleep *ret)
{
	char name[48], text[512], *end;
	uint64_t *const words[] = {&ret->arguments[0], &ret->arguments[1], &ret->arguments[2], &ret->arguments[3],
		&ret->arguments[4], &ret->arguments[5], &ret->sp, &ret->ip};

	(void)snprintf(name, sizeof(name), "task/%d/syscall", (int)tid);

	ssize_t got = pl_proc_read(pid, name, text, sizeof(text));

	if (got < 0)
		return (int)got;
	ret->number = strtoll(text, &end, 10);
	/* "running", or -1 with no arguments: outside of a system call. */
	if (end == text || ret->number < 0)
		return -EAGAIN;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		const char *at = end;

		*words[i] = strtoull(at, &end, 16);
		if (end == at)
			return -EAGAIN;
	}
	return 0;
}

int pl_asleep_read(pid_t pid, pid_t tid, struct pl_asleep *ret)
{
	*ret = (struct pl_asleep){0};

	int code = read_syscall(pid, tid, ret);

	if (code == 0)
		code = read_status(pid, tid, ret);
	return code == 0 && !strchr("SDT", ret->state) ? -EAGAIN : code;
}

bool pl_asleep_same(const struct pl_asleep *before, const struct pl_asleep *after)
{
	return before->switches == after->switches && before->number == after->number && before->sp == after->sp &&
	       before->ip == after->ip;
}

/* PF_IO_WORKER of include/linux/sched.h. In kernels before 5.12, where workers are no threads of the process, it may be another
 * flag: so the name says it too. */
#define IO_WORKER 0x10UL

bool pl_thread_is_kernels(pid_t pid, pid_t tid)
{
	char name[48], text[1024];
	unsigned long flags = 0;
	const char *bracket;

	(void)snprintf(name, sizeof(name), "task/%d/stat", (int)tid);
	if (pl_proc_read(pid, name, text, sizeof(text)) <= 0)
		return false;
	bracket = strrchr(text, ')');
	return strstr(text, " (iou-") && bracket && sscanf(bracket + 1, " %*c %*d %*d %*d %*d %*d %lu", &flags) == 1 &&
	       flags & IO_WORKER;
}

bool pl_asleep_may_wait_for_child(const struct pl_asleep *asleep)
{
	return asleep->state == 'D' && (asleep->number == SYS_vfork || asleep->number == SYS_clone || asleep->number == SYS_clone3);
}

uint64_t pl_thread_ticks_now(void)
{
	const uint64_t tick_nsec = PL_NSEC_PER_SEC / (uint64_t)sysconf(_SC_CLK_TCK);
	struct timespec now;

	/* With the offset of our own time namespace, as in what we read of others. */
	(void)clock_gettime(CLOCK_BOOTTIME, &now);
	return ((uint64_t)now.tv_sec * PL_NSEC_PER_SEC + (uint64_t)now.tv_nsec) / tick_nsec;
}

bool pl_thread_began_after(pid_t pid, pid_t tid, uint64_t ticks)
{
	char name[48], text[1024];
	const char *bracket;
	unsigned long long began;

	(void)snprintf(name, sizeof(name), "task/%d/stat", (int)tid);
	if (pl_proc_read(pid, name, text, sizeof(text)) <= 0)
		return false;
	bracket = strrchr(text, ')');
	/* A clock that is not the one we know proves nothing. */
	return bracket &&
	       sscanf(bracket + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &began) == 1 &&
	       began > ticks && began <= pl_thread_ticks_now();
}
