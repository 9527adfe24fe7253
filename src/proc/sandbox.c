/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "pyleak/cleanup.h"
#include "pyleak/process.h"
#include "process_private.h"

/*
 * What a process has put around itself that our system calls in it could run into.
 *
 * A seccomp filter is the hard case. With CAP_SYS_ADMIN we suspend it (see remote.c); a debug container rarely has
 * that. But the process that one looks at from there mostly has no filter of its own: it runs under its container's,
 * and the default profiles of Docker, containerd, CRI-O and podman answer a call that they do not like with an error.
 * Our calls (mmap, munmap, madvise, prctl, rt_sigaction) are what every Python process makes by itself, so a profile
 * that killed for one of them could run no Python. A filter that a program put on itself, for the time after it has
 * begun, promises nothing of the kind.
 */

enum { MAX_ANCESTORS = 64 };

/* Inodes of the first namespaces (include/linux/proc_ns.h). */
static const ino_t first_user_namespace = 0xEFFFFFFD, first_pid_namespace = 0xEFFFFFFC;

/* How many PID namespaces a process is in, from that of our /proc inwards. */
static int namespace_depth(const char *status)
{
	const char *ids = pl_proc_field(status, "NSpid");
	int depth = 1;

	for (; ids && *ids && *ids != '\n'; ids++)
		depth += *ids == '\t' && ids[1] != '\n';
	return depth;
}

/* The number of filters, -1: this kernel does not say (before 5.9). */
static int filter_count(const char *status)
{
	return pl_proc_field(status, "Seccomp_filters") ? (int)pl_proc_number(status, "Seccomp_filters", 10) : -1;
}

/*
 * Whether somebody with power put the filter there. Without CAP_SYS_ADMIN only a process with no_new_privs may add a
 * filter (prepare_seccomp_filter() in kernel/seccomp.c); this one has not set it, never loses it, and what is not in
 * the bounding set it cannot have had since that was cut, which runtimes do before they run the program. This works on
 * kernels that do not count filters too, but not with `no-new-privileges` (allowPrivilegeEscalation: false).
 */
static bool needed_power(const char *status)
{
	return pl_proc_field(status, "NoNewPrivs") && pl_proc_number(status, "NoNewPrivs", 10) == 0 &&
	       pl_proc_field(status, "CapBnd") && !(pl_proc_number(status, "CapBnd", 16) >> CAP_SYS_ADMIN & 1);
}

/*
 * Filters are inherited and never go away, so a process with as many as the first of its container has none of its
 * own. The first one itself got one from the runtime: were it more, the others would be its own. Where filters are
 * not counted nothing of this can be told, and needed_power() has the last word: no_new_privs alone, or the mere
 * fact of a container, says nothing of who made the filter. One thing is taken on trust: that a first process with one
 * filter and no_new_privs, which is what a hardened pod looks like, has not put that one on itself.
 */
bool pl_proc_filter_is_containers(const char *status, const char *first_status)
{
	int count = filter_count(status);

	if (needed_power(status))
		return true;
	if (count < 1)
		return false;
	return status == first_status ? count == 1 : count == filter_count(first_status);
}

/* Whether a process is in another PID namespace than the machine's own: that is what we take for a container. */
static bool is_contained(const char *status)
{
	struct stat ours;

	if (stat("/proc/self/ns/pid", &ours) != 0)
		return false;
	return ours.st_ino != first_pid_namespace || namespace_depth(status) > 1;
}

bool pl_process_is_contained(pid_t pid)
{
	pl_autofree char *status = malloc(PL_PROC_STATUS_BYTES);

	return status && pl_proc_read(pid, "status", status, PL_PROC_STATUS_BYTES) >= 0 && is_contained(status);
}

bool pl_process_has_filter(pid_t tid)
{
	pl_autofree char *status = malloc(PL_PROC_STATUS_BYTES);

	return !status || pl_proc_read(tid, "status", status, PL_PROC_STATUS_BYTES) < 0 || pl_proc_number(status, "Seccomp", 10);
}

bool pl_process_filter_is_containers(pid_t tid)
{
	pl_autofree char *status = malloc(PL_PROC_STATUS_BYTES), *first = malloc(PL_PROC_STATUS_BYTES);
	pl_autofree char *parent = malloc(PL_PROC_STATUS_BYTES);
	bool is_first = true;

	if (!status || !first || !parent || pl_proc_read(tid, "status", status, PL_PROC_STATUS_BYTES) < 0)
		return false;
	if (!is_contained(status))
		return false;
	memcpy(first, status, PL_PROC_STATUS_BYTES);
	/* Upwards until the parent is outside of the namespace: what a runtime, or `docker exec`, started. Usually
	 * that is its process 1, but where containers share a namespace each has its own. */
	for (int i = 0;; i++) {
		pid_t ppid = (pid_t)pl_proc_number(first, "PPid", 10);

		if (ppid <= 0)
			break;
		if (i == MAX_ANCESTORS || pl_proc_read(ppid, "status", parent, PL_PROC_STATUS_BYTES) < 0)
			return false; /* hidden (hidepid), or gone */
		if (namespace_depth(parent) != namespace_depth(status))
			break;
		memcpy(first, parent, PL_PROC_STATUS_BYTES);
		is_first = false;
	}
	return pl_proc_filter_is_containers(status, is_first ? status : first);
}

/* What check_ptrace_options() in kernel/ptrace.c asks of who wants PTRACE_O_SUSPEND_SECCOMP. */
static bool may_suspend(const char *our_status)
{
	struct stat namespace;

	return pl_proc_number(our_status, "CapEff", 16) >> CAP_SYS_ADMIN & 1 &&
	       pl_proc_number(our_status, "Seccomp", 10) == 0 && stat("/proc/self/ns/user", &namespace) == 0 &&
	       namespace.st_ino == first_user_namespace;
}

/* A thread can have filters that the others have not. */
static bool all_filters_are_containers(pid_t pid)
{
	pl_autofree pid_t *tids = NULL;
	size_t count;

	if (pl_process_threads(pid, &tids, &count) < 0)
		return false;
	for (size_t i = 0; i < count; i++) {
		struct pl_process thread;
		int r = pl_process_read(tids[i], &thread);
		bool filtered = r == 0 && thread.seccomp;

		pl_process_free(&thread);
		if (filtered && !pl_process_filter_is_containers(tids[i]))
			return false;
	}
	return true;
}

int pl_proc_check_sandbox(const struct pl_process *strictest, struct pl_error *err)
{
	pl_autofree char *our_status = malloc(PL_PROC_STATUS_BYTES);
	int pid = (int)strictest->pid;

	if (strictest->shadow_stack)
		return pl_fail(err, -EOPNOTSUPP,
			"process %d runs with a shadow stack (CET), which forbids the calls that pyleak would make in "
			"it: start it without SHSTK in GLIBC_TUNABLES",
			pid);
	if (strictest->seccomp == 1)
		return pl_fail(err, -EPERM,
			"process %d runs under strict seccomp: any call that pyleak made in it would kill it", pid);
	if (strictest->seccomp == 0)
		return 0;
	if (!our_status || pl_proc_read(getpid(), "status", our_status, PL_PROC_STATUS_BYTES) < 0)
		return pl_fail(err, -EIO, "cannot read pyleak's own entries in /proc");
	if (may_suspend(our_status) || all_filters_are_containers(strictest->pid))
		return 0;
	return pl_fail_remedied(err, -EPERM, PL_REMEDY_PRIVILEGED | PL_REMEDY_HOST,
		"process %d runs under a seccomp filter that could kill it for the calls pyleak would make: it is not "
		"just its container's, and %s; run pyleak on the host with sudo, or in a container with --privileged "
		"(kubectl debug --profile=sysadmin)",
		pid,
		pl_proc_number(our_status, "Seccomp", 10) ? "pyleak, under a filter itself, may not suspend it"
							  : "only CAP_SYS_ADMIN on the host may suspend it");
}
