/* SPDX-License-Identifier: MIT */
#include "pyleak/process.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/kcmp.h>
#include <linux/nsfs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "pyleak/arch.h"
#include "pyleak/cleanup.h"
#include "pyleak/page.h"
#include "process_private.h"

/*
 * Who may trace whom is __ptrace_may_access() in the kernel's kernel/ptrace.c, then cap_ptrace_access_check() in
 * security/commoncap.c, then Yama and the other security modules. The kernel is asked for its verdict first (a read of
 * the process's memory passes the same check as PTRACE_SEIZE), and only a refusal is then taken apart, in this order,
 * which puts what a person can change at once first.
 */

enum { MAX_ANCESTORS = 64, MAX_NAMESPACES = 33 };

#define HOW_IN_CONTAINER "docker run --cap-add=SYS_PTRACE, or kubectl debug --profile=general"

struct credentials {
	uint64_t effective, permitted; /* capabilities */
	uid_t ids[3];		       /* real, effective, saved */
	gid_t group_ids[3];
	int seccomp;
};

static bool has(uint64_t capabilities, int capability)
{
	return capabilities >> capability & 1;
}

static void parse_credentials(const char *status, struct credentials *ret)
{
	const char *ids = pl_proc_field(status, "Uid"), *group_ids = pl_proc_field(status, "Gid");

	*ret = (struct credentials){
		.effective = pl_proc_number(status, "CapEff", 16),
		.permitted = pl_proc_number(status, "CapPrm", 16),
		.seccomp = (int)pl_proc_number(status, "Seccomp", 10),
	};
	if (ids)
		(void)sscanf(ids, "%u %u %u", &ret->ids[0], &ret->ids[1], &ret->ids[2]);
	if (group_ids)
		(void)sscanf(group_ids, "%u %u %u", &ret->group_ids[0], &ret->group_ids[1], &ret->group_ids[2]);
}

static int read_credentials(pid_t pid, struct credentials *ret)
{
	pl_autofree char *status = malloc(PL_PROC_STATUS_BYTES);
	ssize_t length;

	if (!status)
		return -ENOMEM;
	length = pl_proc_read(pid, "status", status, PL_PROC_STATUS_BYTES);
	if (length < 0)
		return (int)length;
	parse_credentials(status, ret);
	return 0;
}

/*
 * Whether CAP_SYS_PTRACE, if we have it, counts in the user namespace of the process: it does in our own and in those
 * below it.
 */
static bool capability_counts(pid_t pid, const struct credentials *ours)
{
	char path[48];
	struct stat mine;
	pl_autoclose int namespace = -1;

	(void)snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)pid);
	namespace = open(path, O_RDONLY | O_CLOEXEC);
	/* Looking at the link takes the same capability: where it does not suffice for that, it does not count. */
	if (namespace < 0)
		return errno != EACCES || !has(ours->effective, CAP_SYS_PTRACE);
	if (stat("/proc/self/ns/user", &mine) != 0)
		return true;
	for (int depth = 0; depth < MAX_NAMESPACES; depth++) {
		struct stat its;
		int parent;

		if (fstat(namespace, &its) != 0)
			return true;
		if (its.st_ino == mine.st_ino && its.st_dev == mine.st_dev)
			return true;
		parent = ioctl(namespace, NS_GET_PARENT);
		if (parent < 0)
			return false; /* EPERM: it is no descendant of ours */
		(void)close(namespace);
		namespace = parent;
	}
	return false;
}

/* The kernel's verdict. */
enum verdict { ALLOWED, DENIED, CALL_FILTERED };

static enum verdict ask_kernel(pid_t pid)
{
	char byte, path[48];
	struct iovec local = {&byte, 1}, remote = {NULL, 1};
	pl_autoclose int fd = -1;

	/* Nothing is mapped at 0, so EFAULT means that only the address was wrong. */
	if (process_vm_readv(pid, &local, 1, &remote, 1, 0) >= 0 || errno != EPERM)
		return ALLOWED;
	(void)snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 ? CALL_FILTERED : DENIED;
}

static int fail_traced(pid_t pid, pid_t tracer, struct pl_error *err)
{
	struct pl_process other;
	int r;

	if (pl_process_read(tracer, &other) == 0 && other.comm[0])
		r = pl_fail(err, -EBUSY, "process %d is already traced by process %d (%s): detach that first", (int)pid,
			(int)tracer, other.comm);
	else
		r = pl_fail(err, -EBUSY, "process %d is already traced by process %d: detach that first", (int)pid,
			(int)tracer);
	pl_process_free(&other);
	return r;
}

/* The threads can differ from their leader in who traces them, and in what they let themselves do. */
static int read_threads(const struct pl_process *process, struct pl_process *ret_strictest, struct pl_error *err)
{
	pl_autofree pid_t *tids = NULL;
	pl_autofree char *status = malloc(PL_PROC_STATUS_BYTES);
	size_t count;
	int r;

	*ret_strictest = (struct pl_process){.pid = process->pid};
	if (!status)
		return pl_fail(err, -ENOMEM, "out of memory");
	r = pl_process_threads(process->pid, &tids, &count);
	if (r < 0)
		return pl_fail(err, r, "process %d has ended", (int)process->pid);
	for (size_t i = 0; i < count; i++) {
		struct pl_process thread = {0};
		char name[64];

		(void)snprintf(name, sizeof(name), "task/%d/status", (int)tids[i]);
		if (pl_proc_read(process->pid, name, status, PL_PROC_STATUS_BYTES) < 0)
			continue; /* it ended meanwhile */
		pl_proc_parse_status(status, &thread);
		if (thread.tracer)
			ret_strictest->tracer = thread.tracer;
		if (thread.seccomp == 1 || (thread.seccomp && !ret_strictest->seccomp))
			ret_strictest->seccomp = thread.seccomp;
		ret_strictest->shadow_stack |= thread.shadow_stack;
	}
	return 0;
}

static int check_tracer(const struct pl_process *process, struct pl_error *err)
{
	struct pl_process threads;
	int r = read_threads(process, &threads, err);

	/* One that we have started ourselves we may hold already. */
	return r == 0 && threads.tracer && threads.tracer != getpid() ? fail_traced(process->pid, threads.tracer, err) : r;
}

static int check_owner(const struct pl_process *process, const struct credentials *its, struct pl_error *err)
{
	uid_t uid = getuid();
	gid_t gid = getgid();
	int pid = (int)process->pid;

	if (its->ids[0] != its->ids[1] || its->ids[0] != its->ids[2])
		return pl_fail_remedied(err, -EPERM, PL_REMEDY_ROOT,
			"process %d has changed its user (real %u, effective %u): run pyleak with sudo", pid,
			its->ids[0], its->ids[1]);
	if (its->ids[0] != uid)
		return uid == 0 ? pl_fail_remedied(err, -EPERM, PL_REMEDY_ITS_USER | PL_REMEDY_CAPABILITY,
					  "process %d belongs to user %u and you are root without CAP_SYS_PTRACE: run "
					  "pyleak as that user, or give the container the capability (" HOW_IN_CONTAINER
					  ")",
					  pid, its->ids[0])
				: pl_fail_remedied(err, -EPERM, PL_REMEDY_ITS_USER | PL_REMEDY_ROOT,
					  "process %d belongs to user %u and you are user %u: run pyleak as that user "
					  "or with sudo",
					  pid, its->ids[0], uid);
	for (int i = 0; i < 3; i++) {
		if (its->group_ids[i] != gid)
			return pl_fail_remedied(err, -EPERM, PL_REMEDY_ITS_USER | PL_REMEDY_ROOT,
				"process %d belongs to group %u and you are in group %u: run pyleak in that group "
				"(sudo -u '#%u' -g '#%u') or with sudo",
				pid, its->group_ids[i], gid, its->ids[0], its->group_ids[i]);
	}
	return 0;
}

static bool is_descendant(pid_t pid)
{
	for (int i = 0; i < MAX_ANCESTORS && pid > 1; i++) {
		struct pl_process process;
		int r;

		if (pid == getpid())
			return true;
		r = pl_process_read(pid, &process);
		pl_process_free(&process);
		if (r < 0)
			return false;
		pid = process.ppid;
	}
	return false;
}

static int check_yama(pid_t pid, bool privileged, struct pl_error *err)
{
	static const char file[] = "/proc/sys/kernel/yama/ptrace_scope";
	pl_autofclose FILE *stream = fopen(file, "re");
	int scope = 0;

	if (!stream || fscanf(stream, "%d", &scope) != 1 || scope == 0)
		return 0;
	if (scope >= 3)
		return pl_fail(err, -EPERM, "%s is %d, which forbids all tracing until the next boot", file, scope);
	if (privileged || (scope == 1 && is_descendant(pid)))
		return 0;
	return pl_fail_remedied(err, -EPERM, PL_REMEDY_ROOT | PL_REMEDY_YAMA | PL_REMEDY_CAPABILITY,
		"%s is %d, so process %d may be traced %s: run pyleak with sudo, or "
		"`sudo sysctl kernel.yama.ptrace_scope=0`, in a container " HOW_IN_CONTAINER,
		file, scope, (int)pid, scope == 1 ? "by its parents and by root only" : "by root only");
}

static int check_dumpable(const struct pl_process *process, const struct credentials *its, struct pl_error *err)
{
	char path[48];
	struct stat status;

	/* proc gives what is in the directory of a process that is not dumpable to root (task_dump_owner()). */
	(void)snprintf(path, sizeof(path), "/proc/%d/status", (int)process->pid);
	if (stat(path, &status) != 0 || status.st_uid == its->ids[1])
		return 0;
	return pl_fail_remedied(err, -EPERM, PL_REMEDY_ROOT | PL_REMEDY_CAPABILITY,
		"process %d is not dumpable (it said so with prctl, or its program is setuid, has capabilities, or may "
		"not be read): run pyleak with sudo",
		(int)process->pid);
}

static int read_label(pid_t pid, char *label, size_t size)
{
	ssize_t length = pl_proc_read(pid, "attr/current", label, size);

	if (length <= 0)
		return -ENOENT;
	label[strcspn(label, "\n")] = '\0';
	return label[0] && strcmp(label, "unconfined") != 0 ? 0 : -ENOENT;
}

static int fail_filtered(pid_t pid, struct pl_error *err)
{
	return pl_fail_remedied(err, -EPERM, PL_REMEDY_UNCONFINED | PL_REMEDY_HOST,
		"a seccomp filter around pyleak refuses to trace process %d: run pyleak on the host, or in a container "
		"with --cap-add=SYS_PTRACE --security-opt seccomp=unconfined",
		(int)pid);
}

static int explain(const struct pl_process *process, struct pl_error *err)
{
	struct credentials mine, its;
	pid_t pid = process->pid;
	char label[256], its_label[256];
	bool counts, privileged;
	int r;

	if (read_credentials(getpid(), &mine) < 0 || read_credentials(pid, &its) < 0)
		return pl_fail(err, -ESRCH, "process %d has ended", (int)pid);
	counts = capability_counts(pid, &mine);
	privileged = counts && has(mine.effective, CAP_SYS_PTRACE);
	if (!counts)
		return pl_fail_remedied(err, -EPERM, PL_REMEDY_HOST,
			"process %d is in a user namespace that pyleak has no power over: run pyleak outside of its "
			"own, on the host",
			(int)pid);
	r = privileged ? 0 : check_owner(process, &its, err);
	if (r == 0)
		r = check_yama(pid, privileged, err);
	if (r == 0 && !privileged)
		r = check_dumpable(process, &its, err);
	if (r < 0)
		return r;
	if (!privileged && (its.permitted & ~mine.permitted))
		return pl_fail_remedied(err, -EPERM, PL_REMEDY_ROOT | PL_REMEDY_CAPABILITY,
			"process %d has capabilities that pyleak has not (%#llx): run pyleak with sudo, in a "
			"container " HOW_IN_CONTAINER,
			(int)pid, (unsigned long long)(its.permitted & ~mine.permitted));
	if (mine.seccomp)
		return fail_filtered(pid, err);
	if (read_label(getpid(), label, sizeof(label)) == 0)
		return pl_fail_remedied(err, -EPERM, PL_REMEDY_UNCONFINED | PL_REMEDY_HOST,
			"a security module does not let pyleak (%s) trace process %d (%s): run pyleak unconfined, on "
			"the host, or with --security-opt apparmor=unconfined",
			label, (int)pid, read_label(pid, its_label, sizeof(its_label)) == 0 ? its_label : "no label");
	return pl_fail_remedied(err, -EPERM, PL_REMEDY_HOST,
		"the kernel does not let process %d be traced, and /proc does not show why: a tracer outside of this "
		"container, or a security module; run pyleak on the host as root",
		(int)pid);
}

int pl_process_explain_denied(const struct pl_process *process, struct pl_error *err)
{
	int r = check_tracer(process, err);

	return r < 0 ? r : explain(process, err);
}

int pl_proc_check_program(pid_t pid, const unsigned char *header, size_t length, struct pl_error *err)
{
	Elf64_Half machine;

	if (length < EI_NIDENT + 2 * sizeof(machine) || memcmp(header, ELFMAG, SELFMAG) != 0)
		return 0; /* not for this check to judge */

	memcpy(&machine, header + EI_NIDENT + sizeof(machine), sizeof(machine)); /* e_machine, in both classes */
	if (header[EI_CLASS] != ELFCLASS64)
		return pl_fail(err, -ENOEXEC, "process %d runs a 32-bit program: pyleak knows 64-bit ones only",
			(int)pid);
	if (machine != PL_ARCH_ELF_MACHINE)
		return pl_fail(err, -ENOEXEC,
			"process %d runs a program for another processor (ELF machine %u, not " PL_ARCH_NAME ")", (int)pid,
			machine);
	return 0;
}

static int check_program(pid_t pid, struct pl_error *err)
{
	unsigned char header[sizeof(Elf64_Ehdr)];
	char path[48];
	pl_autoclose int fd = -1;
	ssize_t length;

	if (pl_page_size() > PL_PAGE_MAX)
		return pl_fail(err, -ENOTSUP, "this kernel has pages of %lu bytes: pyleak knows those of up to %d only",
			(unsigned long)pl_page_size(), PL_PAGE_MAX);
	(void)snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	length = fd < 0 ? -1 : pread(fd, header, sizeof(header), 0);
	return length < 0 ? 0 : pl_proc_check_program(pid, header, (size_t)length, err);
}

bool pl_process_shares_memory(pid_t pid, pid_t other)
{
	long different = syscall(SYS_kcmp, pid, other, KCMP_VM, 0, 0);

	return different == 0 || (different < 0 && errno != ESRCH);
}

/* What is done to the memory of a child that vfork() made is done to its parent's. */
static int check_memory(const struct pl_process *process, struct pl_error *err)
{
	/* The kernel may refuse to say (no CONFIG_KCMP, a filter around us): then nothing speaks against it. */
	if (process->ppid <= 0 || syscall(SYS_kcmp, process->ppid, process->pid, KCMP_VM, 0, 0) != 0)
		return 0;
	return pl_fail(err, -EAGAIN,
		"process %d shares its memory with its parent %d, which waits until it starts a program of its own (vfork): "
		"attach to that one, or wait",
		(int)process->pid, (int)process->ppid);
}

static int check_alive(const struct pl_process *process, struct pl_error *err)
{
	struct pl_process now;
	int pid = (int)process->pid;
	int r = pl_process_read(process->pid, &now);

	pl_process_free(&now);
	if (r < 0)
		return pl_fail(err, -ESRCH, "there is no process %d", pid);
	if (now.start_time != process->start_time)
		return pl_fail(err, -ESRCH, "process %d has ended, and another one has its number now", pid);
	/* A leader that called pthread_exit() looks like a zombie too, but its threads live on. */
	if (now.state == 'X' || now.state == 'x' || (now.state == 'Z' && now.threads <= 1))
		return pl_fail(err, -ESRCH,
			"process %d (%s) is a zombie: it has ended, and its parent %d has not noticed", pid, now.comm,
			(int)now.ppid);
	if (process->pid == getpid())
		return pl_fail(err, -EINVAL, "process %d is pyleak itself", pid);
	return 0;
}

#define KERNEL_THREAD 0x00200000UL /* PF_KTHREAD of include/linux/sched.h */

static int check_kernel_thread(pid_t pid, char state, struct pl_error *err)
{
	char text[1024], *bracket;
	unsigned long flags = 0;

	if (state == 'Z' || pl_proc_read(pid, "statm", text, sizeof(text)) <= 0 || strncmp(text, "0 ", 2) != 0)
		return 0;
	/* Threads of the kernel have no address space; and a process that ends loses its own before it is a zombie. */
	if (pl_proc_read(pid, "stat", text, sizeof(text)) <= 0)
		return pl_fail(err, -ESRCH, "there is no process %d", (int)pid);
	bracket = strrchr(text, ')');
	if (bracket && sscanf(bracket + 1, " %*c %*d %*d %*d %*d %*d %lu", &flags) == 1 && flags & KERNEL_THREAD)
		return pl_fail(err, -ENOEXEC, "process %d is a thread of the kernel", (int)pid);
	return pl_fail(err, -ESRCH, "process %d has ended, or is about to", (int)pid);
}

static int check_permission(const struct pl_process *process, struct pl_error *err)
{
	switch (ask_kernel(process->pid)) {
	case DENIED:
		return explain(process, err);
	case CALL_FILTERED:
		return fail_filtered(process->pid, err);
	case ALLOWED:
		break;
	}
	return 0;
}

static int check_program_of(const struct pl_process *process, struct pl_error *err)
{
	int r = check_kernel_thread(process->pid, process->state, err);

	return r < 0 ? r : check_program(process->pid, err);
}

static int check_sandbox(const struct pl_process *process, struct pl_error *err)
{
	struct pl_process strictest;
	int r = read_threads(process, &strictest, err);

	return r < 0 ? r : pl_proc_check_sandbox(&strictest, err);
}

int pl_process_check(const struct pl_process *process, enum pl_process_check check, struct pl_error *err)
{
	static int (*const checks[PL_PROCESS_CHECKS])(const struct pl_process *, struct pl_error *) = {
		[PL_PROCESS_IS_ALIVE] = check_alive,
		[PL_PROCESS_HAS_PROGRAM] = check_program_of,
		[PL_PROCESS_HAS_NO_TRACER] = check_tracer,
		[PL_PROCESS_IS_PERMITTED] = check_permission,
		[PL_PROCESS_HAS_OWN_MEMORY] = check_memory,
		[PL_PROCESS_HAS_NO_SANDBOX] = check_sandbox,
	};

	return checks[check](process, err);
}

int pl_process_may_trace(const struct pl_process *process, struct pl_error *err)
{
	int r = 0;

	for (enum pl_process_check check = 0; r == 0 && check < PL_PROCESS_CHECKS; check++)
		r = pl_process_check(process, check, err);
	return r;
}
