/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../src/proc/process_private.h"
#include "pyleak/arch.h"
#include "pyleak/cleanup.h"
#include "pyleak/process.h"
#include "pyleak/units.h"

static const uid_t nobody = 65534, somebody = 65533;

/* A child that prepares itself and then waits to be killed, or for the end of this process: a signal for that
 * (PR_SET_PDEATHSIG) would be sent with the credentials of this process, which some tests give away. */
static pid_t start(void (*prepare)(void))
{
	int ready[2], never[2];
	pid_t child;
	char byte = 0;

	cr_assert_eq(pipe2(ready, O_CLOEXEC), 0);
	cr_assert_eq(pipe2(never, O_CLOEXEC), 0);
	child = fork();
	if (child == 0) {
		(void)close(never[1]);
		if (prepare)
			prepare();
		(void)write(ready[1], "!", 1);
		(void)read(never[0], &byte, 1); /* the one call that strict seccomp allows to wait in */
		_exit(0);
	}
	(void)close(ready[1]);
	cr_assert_eq(read(ready[0], &byte, 1), 1);
	(void)close(ready[0]);
	(void)close(never[0]); /* the other end closes with this process */
	return child;
}

static void stop(pid_t child)
{
	cr_assert_eq(kill(child, SIGKILL), 0);
	cr_assert_eq(waitpid(child, NULL, 0), child);
}

static int may_trace(pid_t pid, struct pl_error *err)
{
	struct pl_process process;
	int r = pl_process_read(pid, &process);

	cr_assert_eq(r, 0);
	*err = (struct pl_error){0};
	r = pl_process_may_trace(&process, err);
	cr_assert_eq(err->code, r, "the number and the text go together: %s", err->text);
	pl_process_free(&process);
	return r;
}

static void expect_refusal(pid_t pid, int code, const char *part, const char *other_part)
{
	struct pl_error err;

	cr_assert_eq(may_trace(pid, &err), code, "%s", err.text);
	cr_assert_not_null(strstr(err.text, part), "%s", err.text);
	cr_assert_not_null(strstr(err.text, other_part), "%s", err.text);
}

static void need_root(void)
{
	if (getuid() != 0)
		cr_skip_test("only root can make this happen");
}

static void change_ids(gid_t group, uid_t real, uid_t effective)
{
	if (setresgid(group, group, group) != 0 || setresuid(real, effective, effective) != 0)
		abort();
}

static void become(uid_t uid)
{
	change_ids(uid, uid, uid);
	if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0)
		abort();
}

static void become_nobody(void)
{
	become(nobody);
}

static void become_somebody(void)
{
	become(somebody);
}

static void drop_capability(int capability)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data) != 0)
		abort();
	data[capability / 32].effective &= ~(1u << capability % 32);
	data[capability / 32].permitted &= ~(1u << capability % 32);
	if (syscall(SYS_capset, &header, data) != 0)
		abort();
}

Test(process, read_self)
{
	struct pl_process process;
	uint64_t start_time = 0;
	char name[4096];
	ssize_t length = readlink("/proc/self/exe", name, sizeof(name) - 1);
	sigset_t blocked;

	name[length] = '\0';
	(void)sigemptyset(&blocked);
	(void)sigaddset(&blocked, SIGUSR1);
	(void)sigprocmask(SIG_BLOCK, &blocked, NULL);
	(void)signal(SIGUSR2, SIG_IGN);
	cr_assert_eq(prctl(PR_SET_NAME, "a) (b\n1 2"), 0);
	cr_assert_eq(pl_process_read(getpid(), &process), 0);
	cr_assert_eq(process.pid, getpid());
	cr_assert_eq(process.ppid, getppid());
	cr_assert_eq(process.uid, getuid());
	cr_assert_eq(process.euid, geteuid());
	cr_assert_eq(process.gid, getgid());
	cr_assert_eq(process.egid, getegid());
	cr_assert_eq(process.state, 'R');
	cr_assert_geq(process.threads, 1);
	cr_assert_gt(process.rss, 1 << 20);
	cr_assert_lt(process.rss, UINT64_C(1) << 40);
	cr_assert(process.sig_blocked >> (SIGUSR1 - 1) & 1);
	cr_assert(process.sig_ignored >> (SIGUSR2 - 1) & 1);
	cr_assert(process.same_pid_namespace);
	cr_assert_str_eq(process.comm, "a) (b?1 2");
	cr_assert_str_eq(process.executable, name);
	cr_assert_gt(strlen(process.command_line), 0);
	cr_assert_eq(pl_process_start_time(getpid(), &start_time), 0);
	cr_assert_eq(start_time, process.start_time);
	pl_process_free(&process);
	pl_process_free(&process);
}

Test(process, command_line_cannot_steer_a_terminal)
{
	struct pl_process process;
	pid_t child = fork();
	int status;

	if (child == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)execl("/bin/sh", "s\x1b[2Jh", "-c", "kill -STOP $$", "b\nc", "", (char *)NULL);
		_exit(127);
	}
	cr_assert_eq(waitpid(child, &status, WUNTRACED), child);
	cr_assert(WIFSTOPPED(status));
	cr_assert_eq(pl_process_read(child, &process), 0);
	cr_assert_str_eq(process.command_line, "s?[2Jh -c kill -STOP $$ b?c");
	cr_assert_eq(process.state, 'T');
	pl_process_free(&process);
	stop(child);
}

Test(process, gone)
{
	pid_t child = start(NULL);
	struct pl_process process;
	struct pl_error err = {0};
	uint64_t start_time;
	pid_t *tids;
	size_t count;

	cr_assert_eq(pl_process_read(child, &process), 0);
	stop(child);
	cr_assert_eq(pl_process_may_trace(&process, &err), -ESRCH);
	cr_assert_not_null(strstr(err.text, "no process"), "%s", err.text);
	pl_process_free(&process);
	cr_assert_eq(pl_process_read(child, &process), -ESRCH);
	pl_process_free(&process);
	cr_assert_eq(pl_process_read(-1, &process), -ESRCH);
	cr_assert_eq(pl_process_start_time(child, &start_time), -ESRCH);
	cr_assert_eq(pl_process_threads(child, &tids, &count), -ESRCH);
	cr_assert_eq(pl_process_rss(child), 0);
	cr_assert_eq(pl_process_open_file(child, "/etc/passwd"), -ESRCH);
}

Test(process, number_used_again)
{
	pid_t child = start(NULL);
	struct pl_process process;
	struct pl_error err = {0};

	cr_assert_eq(pl_process_read(child, &process), 0);
	process.start_time--;
	cr_assert_eq(pl_process_may_trace(&process, &err), -ESRCH);
	cr_assert_not_null(strstr(err.text, "another one has its number"), "%s", err.text);
	pl_process_free(&process);
	stop(child);
}

static void *wait_at_barrier(void *barrier)
{
	(void)pthread_barrier_wait(barrier);
	(void)pthread_barrier_wait(barrier);
	return NULL;
}

Test(process, threads_and_list)
{
	pthread_barrier_t barrier;
	pthread_t threads[5];
	pl_autofree pid_t *tids = NULL;
	pl_autofree pid_t *pids = NULL;
	size_t before, count, pid_count;
	bool found = false;

	cr_assert_eq(pl_process_threads(getpid(), &tids, &before), 0);
	free(PL_TAKE(tids));
	(void)pthread_barrier_init(&barrier, NULL, 6);
	for (size_t i = 0; i < 5; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, wait_at_barrier, &barrier), 0);
	(void)pthread_barrier_wait(&barrier);
	cr_assert_eq(pl_process_threads(getpid(), &tids, &count), 0);
	cr_assert_eq(count, before + 5);
	cr_assert_eq(tids[0], getpid());
	(void)pthread_barrier_wait(&barrier);
	for (size_t i = 0; i < 5; i++)
		(void)pthread_join(threads[i], NULL);
	cr_assert_eq(pl_process_list(&pids, &pid_count), 0);
	for (size_t i = 0; i < pid_count; i++) {
		cr_assert(i == 0 || pids[i - 1] < pids[i]);
		found |= pids[i] == getpid();
	}
	cr_assert(found);
}

static char root_directory[] = "/tmp/pyleak-root-XXXXXX";

static void enter_root(void)
{
	if (chroot(root_directory) != 0 || chdir("/") != 0)
		abort();
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	(void)close(fd);
}

Test(process, open_file_in_its_own_root)
{
	char path[64], text[16] = "";
	pid_t child;
	int fd;

	need_root();
	cr_assert_not_null(mkdtemp(root_directory));
	(void)snprintf(path, sizeof(path), "%s/passwd", root_directory);
	write_file(path, "inside");
	(void)snprintf(path, sizeof(path), "%s/link", root_directory);
	cr_assert_eq(symlink("/passwd", path), 0);
	(void)snprintf(path, sizeof(path), "%s/out", root_directory);
	cr_assert_eq(symlink("/../../../etc/passwd", path), 0);
	child = start(enter_root);
	fd = pl_process_open_file(child, "/passwd");
	cr_assert_geq(fd, 0);
	(void)close(fd);
	fd = pl_process_open_file(child, "/link");
	cr_assert_geq(fd, 0, "an absolute link leads from its root, not from ours");
	cr_assert_eq(read(fd, text, sizeof(text)), 6);
	cr_assert_str_eq(text, "inside");
	(void)close(fd);
	cr_assert_eq(pl_process_open_file(child, "/out"), -ENOENT);
	cr_assert_eq(pl_process_open_file(child, "/etc/passwd"), -ENOENT);
	stop(child);
	(void)unlink(path);
	(void)snprintf(path, sizeof(path), "%s/link", root_directory);
	(void)unlink(path);
	(void)snprintf(path, sizeof(path), "%s/passwd", root_directory);
	(void)unlink(path);
	cr_assert_eq(rmdir(root_directory), 0);
}

/* Nothing but a regular file is opened: not a FIFO, which could block, nor a device, which could act. */
Test(process, open_file_of_another_kind)
{
	static char name[] = "/tmp/pyleak-kinds-XXXXXX";
	char fifo[64], link[64];
	int fd;

	cr_assert_not_null(mkdtemp(name));
	(void)snprintf(fifo, sizeof(fifo), "%s/fifo", name);
	(void)snprintf(link, sizeof(link), "%s/link", name);
	cr_assert_eq(mkfifo(fifo, 0600), 0);
	cr_assert_eq(symlink("/dev/null", link), 0);
	cr_assert_eq(pl_process_open_file(getpid(), fifo), -EINVAL);
	cr_assert_eq(pl_process_open_file(getpid(), link), -EINVAL);
	cr_assert_eq(pl_process_open_file(getpid(), "/dev/null"), -EINVAL);
	cr_assert_eq(pl_process_open_file(getpid(), name), -EINVAL);
	cr_assert_eq(pl_process_open_file(getpid(), ""), -ENOENT);
	fd = pl_process_open_file(getpid(), "/proc/version");
	cr_assert_geq(fd, 0);
	(void)close(fd);
	(void)unlink(fifo);
	(void)unlink(link);
	cr_assert_eq(rmdir(name), 0);
}

Test(permission, child_of_ours)
{
	pid_t child = start(NULL);
	struct pl_error err;

	cr_assert_eq(may_trace(child, &err), 0, "%s", err.text);
	stop(child);
}

Test(permission, ourselves)
{
	expect_refusal(getpid(), -EINVAL, "is pyleak itself", "");
}

Test(permission, zombie)
{
	pid_t child = start(NULL);
	siginfo_t info;

	cr_assert_eq(kill(child, SIGKILL), 0);
	cr_assert_eq(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
	expect_refusal(child, -ESRCH, "is a zombie", "parent");
	cr_assert_eq(waitpid(child, NULL, 0), child);
}

static void *sleep_for_ever(void *argument)
{
	for (;;)
		(void)pause();
	return argument;
}

static void start_thread(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, sleep_for_ever, NULL) != 0)
		abort();
}

/* The leader is a zombie, the process is not. */
Test(permission, leader_that_left)
{
	struct pl_process process = {0};
	struct pl_error err;
	pid_t child = fork();

	if (child == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		start_thread();
		(void)syscall(SYS_exit, 0);
	}
	for (int i = 0; i < 2000 && process.state != 'Z'; i++) {
		(void)usleep(1000);
		pl_process_free(&process);
		cr_assert_eq(pl_process_read(child, &process), 0);
	}
	cr_assert_eq(process.state, 'Z');
	cr_assert_eq(process.threads, 2);
	pl_process_free(&process);
	cr_assert_eq(may_trace(child, &err), 0, "%s", err.text);
	stop(child);
}

Test(permission, kernel_thread)
{
	struct pl_process process;
	bool is_kernel_thread = pl_process_read(2, &process) == 0 && strcmp(process.comm, "kthreadd") == 0;

	pl_process_free(&process);
	if (!is_kernel_thread)
		cr_skip_test("no threads of the kernel in this PID namespace");
	expect_refusal(2, -ENOEXEC, "thread of the kernel", "");
}

static pid_t quarry;

static void trace_quarry(void)
{
	(void)prctl(PR_SET_NAME, "othertracer");
	if (ptrace(PTRACE_SEIZE, quarry, NULL, NULL) != 0)
		abort();
}

Test(permission, traced_by_another)
{
	pid_t tracer;
	char part[64];

	need_root();
	quarry = start(NULL);
	tracer = start(trace_quarry);
	(void)snprintf(
		part, sizeof(part), "already traced by process %d (othertracer): detach that first", (int)tracer);
	expect_refusal(quarry, -EBUSY, part, "");
	stop(tracer);
	stop(quarry);
}

Test(permission, of_another_user)
{
	pid_t child;

	need_root();
	child = start(become_nobody);
	become_somebody();
	expect_refusal(
		child, -EPERM, "belongs to user 65534 and you are user 65533", "run pyleak as that user or with sudo");
}

Test(permission, of_root)
{
	pid_t child;

	need_root();
	child = start(NULL);
	become_nobody();
	expect_refusal(child, -EPERM, "belongs to user 0 and you are user 65534", "with sudo");
}

static void change_group_only(void)
{
	change_ids(somebody, nobody, nobody);
	if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0)
		abort();
}

Test(permission, of_another_group)
{
	pid_t child;

	need_root();
	child = start(change_group_only);
	become_nobody();
	expect_refusal(
		child, -EPERM, "belongs to group 65533 and you are in group 65534", "sudo -u '#65534' -g '#65533'");
}

static void change_effective_user(void)
{
	change_ids(nobody, nobody, somebody);
}

Test(permission, setuid)
{
	pid_t child;

	need_root();
	child = start(change_effective_user);
	become_nobody();
	expect_refusal(child, -EPERM, "has changed its user (real 65534, effective 65533)", "with sudo");
}

static void forbid_dumps(void)
{
	become_nobody();
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
		abort();
}

Test(permission, not_dumpable)
{
	pid_t child;

	need_root();
	child = start(forbid_dumps);
	become_nobody();
	expect_refusal(child, -EPERM, "is not dumpable", "with sudo");
}

/* Root in a container: uid 0, but the process has a capability that pyleak lacks. */
Test(permission, fewer_capabilities)
{
	pid_t child;

	need_root();
	child = start(NULL);
	drop_capability(CAP_SYS_PTRACE);
	expect_refusal(child, -EPERM, "has capabilities that pyleak has not (0x80000)", "--cap-add=SYS_PTRACE");
}

Test(permission, root_without_the_capability)
{
	pid_t child;

	need_root();
	child = start(become_nobody);
	drop_capability(CAP_SYS_PTRACE);
	expect_refusal(
		child, -EPERM, "belongs to user 65534 and you are root without CAP_SYS_PTRACE", "--cap-add=SYS_PTRACE");
}

Test(permission, outside_of_our_user_namespace)
{
	struct pl_process process;
	struct pl_error err = {0};
	pid_t child = start(NULL), other;
	int ends[2], status;

	cr_assert_eq(pl_process_read(child, &process), 0);
	cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
	other = fork(); /* only a process with one thread may change its user namespace */
	if (other == 0) {
		if (unshare(CLONE_NEWUSER) != 0)
			_exit(77);
		(void)pl_process_may_trace(&process, &err);
		_exit(write(ends[1], &err, sizeof(err)) != sizeof(err));
	}
	cr_assert_eq(waitpid(other, &status, 0), other);
	stop(child);
	pl_process_free(&process);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		cr_skip_test("no user namespaces here");
	cr_assert_eq(status, 0);
	cr_assert_eq(read(ends[0], &err, sizeof(err)), (ssize_t)sizeof(err));
	cr_assert_eq(err.code, -EPERM);
	cr_assert_not_null(strstr(err.text, "user namespace that pyleak has no power over"), "%s", err.text);
}

/* Takes CAP_SYS_ADMIN. */
static void allow_everything_with_power(void)
{
	struct sock_filter filter = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = {1, &filter};

	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
		abort();
}

static void allow_everything(void)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		abort();
	allow_everything_with_power();
}

static void become_strict(void)
{
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0)
		abort();
}

Test(permission, strict_seccomp)
{
	pid_t child = start(become_strict);

	expect_refusal(child, -EPERM, "runs under strict seccomp", "would kill it");
	stop(child);
}

Test(permission, seccomp_filter)
{
	pid_t child = start(allow_everything);
	struct pl_error err;

	if (getuid() == 0) {
		struct stat namespace;

		cr_assert_eq(stat("/proc/self/ns/user", &namespace), 0);
		if (namespace.st_ino == 0xEFFFFFFD)
			cr_assert_eq(may_trace(child, &err), 0, "%s", err.text);
		drop_capability(CAP_SYS_ADMIN);
	}
	expect_refusal(child, -EPERM, "runs under a seccomp filter that could kill it", "--profile=sysadmin");
	stop(child);
}

#define FILTERED "Name:\tpython3\nPPid:\t1\nNSpid:\t700\t7\n"
#define CAPS_DOCKER "CapBnd:\t00000000a80425fb\n"
#define CAPS_ALL "CapBnd:\t000001ffffffffff\n"

Test(sandbox, whose_filter)
{
	static const struct {
		const char *what, *status, *first; /* first NULL: it is itself the first process */
		bool containers;
	} cases[] = {
		{"Docker's default", FILTERED CAPS_DOCKER "NoNewPrivs:\t0\nSeccomp:\t2\nSeccomp_filters:\t1\n",
			"NoNewPrivs:\t0\nSeccomp:\t2\nSeccomp_filters:\t1\n", true},
		{"its first process", FILTERED CAPS_DOCKER "NoNewPrivs:\t0\nSeccomp:\t2\nSeccomp_filters:\t1\n", NULL, true},
		{"a filter around the runtime too", FILTERED CAPS_DOCKER "NoNewPrivs:\t0\nSeccomp:\t2\nSeccomp_filters:\t3\n",
			NULL, true},
		{"before Linux 5.9", FILTERED CAPS_DOCKER "NoNewPrivs:\t0\nSeccomp:\t2\n", "Seccomp:\t2\n", true},
		{"before Linux 5.9, no-new-privileges", FILTERED CAPS_DOCKER "NoNewPrivs:\t1\nSeccomp:\t2\n",
			"NoNewPrivs:\t1\nSeccomp:\t2\n", false},
		{"before Linux 4.10", FILTERED CAPS_DOCKER "Seccomp:\t2\n", "Seccomp:\t2\n", false},
		{"no-new-privileges", FILTERED CAPS_DOCKER "NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n",
			"NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n", true},
		{"no-new-privileges, first", FILTERED CAPS_DOCKER "NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n", NULL, true},
		{"its own on top", FILTERED CAPS_DOCKER "NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t2\n",
			"NoNewPrivs:\t0\nSeccomp:\t2\nSeccomp_filters:\t1\n", false},
		{"its own on top, first", FILTERED CAPS_DOCKER "NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t2\n", NULL, false},
		{"its own in an open container", FILTERED CAPS_DOCKER "NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n",
			"NoNewPrivs:\t0\nSeccomp:\t0\nSeccomp_filters:\t0\n", false},
		{"it could have done it itself", FILTERED CAPS_ALL "NoNewPrivs:\t0\nSeccomp:\t2\nSeccomp_filters:\t2\n",
			"NoNewPrivs:\t0\nSeccomp:\t2\nSeccomp_filters:\t1\n", false},
		{"nothing is said", "", "", false},
		{"nothing is said of the first", FILTERED CAPS_ALL "NoNewPrivs:\t0\nSeccomp:\t2\nSeccomp_filters:\t1\n", "", false},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		cr_assert_eq(pl_proc_filter_is_containers(cases[i].status,
				     cases[i].first ? cases[i].first : cases[i].status),
			cases[i].containers, "%s", cases[i].what);
}

/* What the two processes of a container do to themselves: the first before and after it starts the second. */
struct container {
	const char *what;
	void (*first_begins)(void), (*first_goes_on)(void), (*second)(void);
	bool first_is_fine, second_is_fine;
};

static void wait_for_the_end(int ready)
{
	(void)write(ready, "!", 1);
	for (;;)
		(void)pause();
}

static void run_container(const struct container *container, int ready)
{
	if (container->first_begins)
		container->first_begins();
	if (fork() == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (container->second)
			container->second();
		wait_for_the_end(ready);
	}
	if (container->first_goes_on)
		container->first_goes_on();
	wait_for_the_end(ready);
}

static pid_t only_child(pid_t pid)
{
	char path[64], text[32] = "";
	FILE *children;

	(void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
	children = fopen(path, "re");
	cr_assert_not_null(children);
	cr_assert_not_null(fgets(text, sizeof(text), children));
	(void)fclose(children);
	return (pid_t)strtol(text, NULL, 10);
}

/* Returns its first process, whose parent, the runtime, is left outside of the PID namespace. */
static pid_t start_container(const struct container *container, pid_t *ret_runtime)
{
	int ready[2];
	char bytes[2];

	cr_assert_eq(pipe2(ready, O_CLOEXEC), 0);
	*ret_runtime = fork();
	if (*ret_runtime == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (unshare(CLONE_NEWPID) != 0)
			abort();
		if (fork() == 0) {
			(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
			run_container(container, ready[1]);
		}
		for (;;)
			(void)pause();
	}
	for (size_t got = 0; got < sizeof(bytes);) {
		ssize_t length = read(ready[0], bytes, sizeof(bytes) - got);

		cr_assert_gt(length, 0);
		got += (size_t)length;
	}
	(void)close(ready[0]);
	(void)close(ready[1]);
	return only_child(*ret_runtime);
}

static void allow_everything_and_lose_power(void)
{
	allow_everything_with_power();
	drop_capability(CAP_SYS_ADMIN);
	if (prctl(PR_CAPBSET_DROP, CAP_SYS_ADMIN, 0, 0, 0) != 0)
		abort();
}

static void expect_filter(const char *what, pid_t pid, bool is_fine)
{
	struct pl_error err;
	int r = may_trace(pid, &err);

	cr_expect_eq(r, is_fine ? 0 : -EPERM, "%s: %s", what, err.text);
	cr_expect(is_fine || strstr(err.text, "it is not just its container's"), "%s: %s", what, err.text);
}

static const struct container containers[] = {
	{"of the runtime only", allow_everything_with_power, NULL, NULL, true, true},
	{"of the runtime only, no new privileges", allow_everything, NULL, NULL, true, true},
	{"of the second alone", NULL, NULL, allow_everything, true, false},
	{"of the second on top", allow_everything_with_power, NULL, allow_everything, true, false},
	{"of the first, later", allow_everything_with_power, allow_everything, NULL, false, false},
	{"of each, as many", NULL, allow_everything, allow_everything, true, true},
	{"by power that is gone", allow_everything_and_lose_power, NULL, NULL, true, true},
	{"by power that is gone, one on top", allow_everything_and_lose_power, NULL, allow_everything, true, false},
};

TestSuite(sandbox, .timeout = 60);

Test(sandbox, filters_of_containers)
{
	enum { COUNT = sizeof(containers) / sizeof(containers[0]) };
	pid_t runtimes[COUNT], firsts[COUNT];

	need_root();
	for (size_t i = 0; i < COUNT; i++)
		firsts[i] = start_container(&containers[i], &runtimes[i]);
	drop_capability(CAP_SYS_ADMIN);
	for (size_t i = 0; i < COUNT; i++) {
		expect_filter(containers[i].what, firsts[i], containers[i].first_is_fine);
		expect_filter(containers[i].what, only_child(firsts[i]), containers[i].second_is_fine);
		cr_assert_eq(kill(firsts[i], SIGKILL), 0);
		stop(runtimes[i]);
	}
}

/* A container's profile that knows neither call, as Docker's before Linux 4.8. */
Test(permission, filter_around_us)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};
	pid_t child = start(NULL);

	cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
	expect_refusal(child, -EPERM, "a seccomp filter around pyleak", "seccomp=unconfined");
	stop(child);
}

Test(permission, denied_all_the_same)
{
	pid_t child = start(NULL);
	struct pl_process process;
	struct pl_error err = {0};

	cr_assert_eq(pl_process_read(child, &process), 0);
	cr_assert_eq(pl_process_explain_denied(&process, &err), -EPERM);
	cr_assert_gt(strlen(err.text), 40);
	pl_process_free(&process);
	stop(child);
}

Test(permission, program_of_another_kind)
{
	static const struct {
		unsigned char class;
		uint16_t machine;
		int result;
		const char *part;
	} rows[] = {
		{ELFCLASS64, PL_ARCH_ELF_MACHINE, 0, ""},
		{ELFCLASS32, EM_386, -ENOEXEC, "32-bit"},
		{ELFCLASS32, PL_ARCH_ELF_MACHINE, -ENOEXEC, "32-bit"}, /* x32 */
		{ELFCLASS64, EM_RISCV, -ENOEXEC, "machine 243"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		Elf64_Ehdr header = {.e_ident = {0x7f, 'E', 'L', 'F', rows[i].class, ELFDATA2LSB, EV_CURRENT},
			.e_type = ET_DYN,
			.e_machine = rows[i].machine};
		struct pl_error err = {0};

		cr_assert_eq(
			pl_proc_check_program(1, (const unsigned char *)&header, sizeof(header), &err), rows[i].result);
		cr_assert_not_null(strstr(err.text, rows[i].part), "%s", err.text);
		cr_assert_eq(pl_proc_check_program(1, (const unsigned char *)&header, 19, NULL), 0, "too short to say");
	}
}

/* The smallest 32-bit program there is: it pauses. */
Test(permission, runs_32_bit_code)
{
	static const unsigned char code[] = {0xb8, 29, 0, 0, 0, 0xcd, 0x80, 0xeb, 0xf7}; /* pause() for ever */
	struct {
		Elf32_Ehdr header;
		Elf32_Phdr segment;
		unsigned char code[sizeof(code)];
	} program = {
		.header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT},
			.e_type = ET_EXEC,
			.e_machine = EM_386,
			.e_version = EV_CURRENT,
			.e_entry = 0x8048000 + sizeof(Elf32_Ehdr) + sizeof(Elf32_Phdr),
			.e_phoff = sizeof(Elf32_Ehdr),
			.e_ehsize = sizeof(Elf32_Ehdr),
			.e_phentsize = sizeof(Elf32_Phdr),
			.e_phnum = 1},
		.segment = {.p_type = PT_LOAD,
			.p_vaddr = 0x8048000,
			.p_filesz = sizeof(program),
			.p_memsz = sizeof(program),
			.p_flags = PF_R | PF_X,
			.p_align = 4096},
	};
	char path[] = "/tmp/pyleak-elf32-XXXXXX";
	int fd = mkstemp(path), ends[2], status = 0;
	char byte;
	pid_t child;

	memcpy(program.code, code, sizeof(code));
	cr_assert_eq(write(fd, &program, sizeof(program)), (ssize_t)sizeof(program));
	cr_assert_eq(fchmod(fd, 0755), 0);
	(void)close(fd);
	cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
	child = fork();
	if (child == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)execl(path, path, (char *)NULL);
		_exit(127);
	}
	(void)close(ends[1]);
	cr_assert_eq(read(ends[0], &byte, 1), 0); /* closed by the exec, or by the exit */
	(void)close(ends[0]);
	(void)usleep(20000);
	cr_assert_eq(unlink(path), 0);
	if (waitpid(child, &status, WNOHANG) == child)
		cr_skip_test("this kernel runs no 32-bit programs");
	expect_refusal(child, -ENOEXEC, "runs a 32-bit program", "64-bit");
	stop(child);
}

static void have_child(void)
{
	int ready[2];
	char byte;

	if (pipe2(ready, O_CLOEXEC) != 0)
		abort();
	if (fork() == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		wait_for_the_end(ready[1]);
	}
	(void)read(ready[0], &byte, 1);
}

static void have_grandchild(void)
{
	int ready[2];
	char byte;

	if (pipe2(ready, O_CLOEXEC) != 0)
		abort();
	if (fork() == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		have_child();
		wait_for_the_end(ready[1]);
	}
	(void)read(ready[0], &byte, 1);
}

Test(process, family)
{
	pid_t child = start(have_grandchild), *pids = NULL;
	size_t count;

	cr_assert_eq(pl_process_family(child, &pids, &count), 0);
	cr_assert_eq(count, 3);
	cr_assert_eq(pids[0], child);
	cr_assert_eq(pids[1], only_child(child));
	cr_assert_eq(pids[2], only_child(pids[1]));
	free(pids);
	stop(child);
	cr_assert_eq(pl_process_family(child, &pids, &count), -ESRCH);
}

/* It ends with its parent from then on: the parent may be ended. */
static _Atomic bool child_is_bound;

/* The child of a thread that is not the leader is one of the process too. */
static void *fork_in_thread(void *unused)
{
	(void)unused;
	have_child();
	child_is_bound = true;
	return pause() == 0 ? NULL : unused; /* were it to end, the leader would inherit the child */
}

static void have_child_of_thread(void)
{
	pthread_t thread;
	pid_t *pids = NULL;
	size_t count = 0;

	if (pthread_create(&thread, NULL, fork_in_thread, NULL) != 0)
		abort();
	while (count < 2 || !child_is_bound) {
		free(pids);
		if (pl_process_family(getpid(), &pids, &count) < 0)
			abort();
	}
	free(pids);
}

Test(process, family_of_threads)
{
	pid_t child = start(have_child_of_thread), *pids = NULL;
	size_t count;

	cr_assert_eq(pl_process_family(child, &pids, &count), 0);
	cr_assert_eq(count, 2);
	free(pids);
	stop(child);
}

/* Between vfork() and exec() the child has its parent's memory, and is refused for it. */
static int wait_with_memory_of_the_parent(void *ready)
{
	wait_for_the_end(*(int *)ready);
	return 0;
}

static void vfork_and_wait(void)
{
	int ready[2];
	char byte;

	if (pipe2(ready, O_CLOEXEC) != 0)
		abort();
	/* The flags of vfork(), but the child tells when it is there. */
	if (fork() == 0) {
		static char stack[65536] __attribute__((aligned(16)));

		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)clone(wait_with_memory_of_the_parent, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | SIGCHLD, &ready[1]);
		_exit(0);
	}
	(void)read(ready[0], &byte, 1);
}

Test(process, memory_of_the_parent)
{
	pid_t child = start(vfork_and_wait), *pids = NULL;
	size_t count;

	cr_assert_eq(pl_process_family(child, &pids, &count), 0);
	cr_assert_eq(count, 3);
	expect_refusal(pids[2], -EAGAIN, "shares its memory with its parent", "vfork");
	cr_assert_eq(kill(pids[2], SIGKILL), 0);
	free(pids);
	stop(child);
}

/* -- threads that come and go ------------------------------------------------------------------------------ */

enum { BUSY_THREADS = 1500 };
static volatile pid_t *living; /* shared with the child: [BUSY_THREADS], while it lives */

static void *live_for_a_while(void *argument)
{
	volatile pid_t *place = argument;
	unsigned int seed = (unsigned int)(uintptr_t)argument ^ (unsigned int)gettid();

	*place = gettid();
	(void)usleep(1000 + (unsigned int)rand_r(&seed) % 500000);
	*place = 0;
	return NULL;
}

static void come_and_go(void)
{
	pthread_attr_t attributes;
	pthread_t thread;

	(void)pthread_attr_init(&attributes);
	(void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	(void)pthread_attr_setstacksize(&attributes, 65536);
	for (;;) {
		for (int i = 0; i < BUSY_THREADS; i++) {
			if (living[i])
				continue;
			living[i] = -1;
			if (pthread_create(&thread, &attributes, live_for_a_while, (void *)&living[i]) != 0)
				living[i] = 0;
		}
		(void)usleep(200);
	}
}

static int compare_tids(const void *a, const void *b)
{
	return *(const pid_t *)a - *(const pid_t *)b;
}

/* A list that the kernel gives lacks some of the living when one ends at which it stands: one list in a hundred, of so many. */
Test(process, no_thread_is_left_out)
{
	pid_t before[BUSY_THREADS], child;
	int left_out = 0;

	living = mmap(NULL, sizeof(before), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	child = fork();
	if (child == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		come_and_go();
	}
	(void)usleep(500000);
	for (const int64_t end = pl_now_ns() + 4 * PL_NSEC_PER_SEC; pl_now_ns() < end;) {
		pid_t *tids = NULL;
		size_t count = 0;

		memcpy(before, (const void *)living, sizeof(before));
		cr_assert_eq(pl_process_threads(child, &tids, &count), 0);
		qsort(tids, count, sizeof(*tids), compare_tids);
		for (int i = 0; i < BUSY_THREADS; i++)
			left_out += before[i] > 0 && living[i] == before[i] &&
				    !bsearch(&before[i], tids, count, sizeof(*tids), compare_tids);
		free(tids);
	}
	stop(child);
	cr_assert_eq(left_out, 0, "%d times", left_out);
}
