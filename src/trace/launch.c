/* SPDX-License-Identifier: MIT */
#include "pyleak/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pyleak/cleanup.h"
#include "pyleak/process.h"
#include "ptrace.h"

#define LAUNCH_OPTIONS                                                                                                 \
	(PL_TRACE_OPTIONS | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC)
#define SYSCALL_STOP (SIGTRAP | 0x80)

/* A thread that is traced. */
struct follower {
	pid_t tid;
	bool asking;     /* it stops at its system calls */
	bool in_syscall; /* the stop that follows is that of its return */
	bool anew;       /* it has not yet been asked about since its exec */
};

struct pl_launch {
	pid_t pid;
	int status;
	bool ended;
	pid_t held;
	int untraced; /* -errno: it may not be traced (a seccomp filter), and runs by itself */
	struct follower *threads;
	size_t count;
};

static struct follower *find(struct pl_launch *launch, pid_t tid)
{
	for (size_t i = 0; i < launch->count; i++)
		if (launch->threads[i].tid == tid)
			return &launch->threads[i];
	return NULL;
}

static struct follower *add(struct pl_launch *launch, pid_t tid)
{
	struct follower *thread = find(launch, tid);
	struct follower *grown;

	if (thread)
		return thread;
	grown = reallocarray(launch->threads, launch->count + 1, sizeof(*grown));
	if (!grown)
		return NULL;
	launch->threads = grown;
	grown[launch->count] = (struct follower){.tid = tid};
	return &grown[launch->count++];
}

static void forget(struct pl_launch *launch, pid_t tid)
{
	struct follower *thread = find(launch, tid);

	if (thread)
		*thread = launch->threads[--launch->count];
}

/* In the child. Only what may be done between fork() and exec(); the parent has seized it when the byte comes. */
static void __attribute__((noreturn)) become(char *const argv[], pid_t tracer, int go_fd, int error_fd)
{
	char byte;
	int code;

	while (read(go_fd, &byte, 1) < 0 && errno == EINTR)
		;
	/* The guardian is no relative of the program, which Yama wants of a tracer. Without Yama there is no such call. */
	if (tracer)
		(void)prctl(PR_SET_PTRACER, tracer, 0, 0, 0);
	(void)execvp(argv[0], argv);
	code = errno;
	while (write(error_fd, &code, sizeof(code)) < 0 && errno == EINTR)
		;
	_exit(code == ENOENT ? 127 : 126);
}

static void note_end(struct pl_launch *launch, pid_t tid, int status)
{
	forget(launch, tid);
	if (tid != launch->pid)
		return;
	launch->ended = true;
	launch->status = status;
}

/* One that was killed meanwhile will say so. */
static void go_on(const struct follower *thread, int signal)
{
	(void)(thread->asking ? pl_ptrace_syscall(thread->tid, signal) : pl_ptrace_continue(thread->tid, signal));
}

static bool is_stop_signal(int signal)
{
	return signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU;
}

/* A stop other than that of a system call; the thread goes on. */
static void on_event(struct pl_launch *launch, struct follower *thread, int status)
{
	int event = status >> 16, signal = WSTOPSIG(status);
	pid_t tid = thread->tid, child = 0;

	switch (event) {
	case PTRACE_EVENT_FORK:
	case PTRACE_EVENT_VFORK:
	case PTRACE_EVENT_CLONE:
		/* It is known from here on, and stops by itself. */
		if (pl_ptrace_get_new_thread(tid, &child) == 0 && child > 0)
			(void)add(launch, child);
		thread = find(launch, tid);
		break;
	case PTRACE_EVENT_EXEC:
		/* The exec of another thread than the leader ends the leader, and takes its number. */
		if (pl_ptrace_get_new_thread(tid, &child) == 0 && child > 0 && child != tid)
			forget(launch, child);
		thread = add(launch, tid);
		if (!thread)
			return;
		thread->asking = thread->anew = true;
		thread->in_syscall = true; /* execve() has yet to return */
		break;
	case PTRACE_EVENT_STOP:
		if (is_stop_signal(signal)) {
			(void)pl_ptrace_listen(tid);
			return;
		}
		break;
	case 0:
		go_on(thread, signal);
		return;
	default:
		break;
	}
	go_on(thread, 0);
}

static int fail_start(const char *program, int code, struct pl_error *err)
{
	if (code == -ENOENT)
		return pl_fail(err, code, "'%s' is not to be found: give a program of PATH, or its path", program);
	return pl_fail(err, code, "'%s' cannot be started: %s", program, strerror(-code));
}

/* Until the program has begun, or could not: 0 or -errno. A signal that comes meanwhile is the child's. */
static int await_exec(struct pl_launch *launch, int error_fd)
{
	int code = 0, status;
	ssize_t got;

	while (launch->count && pl_ptrace_wait(launch->pid, &status) == launch->pid) {
		if (!WIFSTOPPED(status)) {
			note_end(launch, launch->pid, status);
		} else if (status >> 16 == PTRACE_EVENT_EXEC) {
			on_event(launch, &launch->threads[0], status);
			return 0;
		} else {
			on_event(launch, &launch->threads[0], status);
		}
	}
	/* The pipe closes by itself at the exec. */
	while ((got = read(error_fd, &code, sizeof(code))) < 0 && errno == EINTR)
		;
	if (got != sizeof(code))
		return 0;
	if (!launch->ended)
		(void)pl_ptrace_wait(launch->pid, &status);
	return -code;
}

int pl_launch_start(char *const argv[], pid_t tracer, struct pl_launch **ret, struct pl_error *err)
{
	struct pl_launch *launch = calloc(1, sizeof(*launch));
	int go[2] = {-1, -1}, failed[2] = {-1, -1};
	int code = launch ? 0 : -ENOMEM;

	if (code == 0 && (pipe2(go, O_CLOEXEC) < 0 || pipe2(failed, O_CLOEXEC) < 0))
		code = -errno;
	if (code == 0) {
		launch->pid = fork();
		if (launch->pid == 0) {
			/* Else it would wait for ever where this process is killed now. */
			(void)close(go[1]);
			become(argv, tracer, go[0], failed[1]);
		}
		code = launch->pid < 0 ? -errno : 0;
	}
	if (code == 0) {
		pl_ptrace_started(launch->pid);
		(void)close(failed[1]);
		failed[1] = -1;
		launch->untraced = pl_ptrace_seize(launch->pid, LAUNCH_OPTIONS);
		if (launch->untraced == 0 && !add(launch, launch->pid))
			abort(); /* out of memory, for one row: the kernel lets the child go on */
		(void)close(go[1]);
		go[1] = -1;
		code = await_exec(launch, failed[0]);
	}
	for (int i = 0; i < 2; i++) {
		if (go[i] >= 0)
			(void)close(go[i]);
		if (failed[i] >= 0)
			(void)close(failed[i]);
	}
	if (code < 0) {
		pl_launch_free(launch);
		return fail_start(argv[0], code, err);
	}
	*ret = launch;
	return 0;
}

pid_t pl_launch_pid(const struct pl_launch *launch)
{
	return launch->pid;
}

/* Lets a thread go that is running: it has to stop for that. */
static void let_go(struct pl_launch *launch, pid_t tid)
{
	int status;

	(void)pl_ptrace_interrupt(tid);
	while (pl_ptrace_wait(tid, &status) == tid) {
		pid_t child = 0;
		int event;

		if (!WIFSTOPPED(status)) {
			note_end(launch, tid, status);
			return;
		}
		event = status >> 16;
		if ((event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK || event == PTRACE_EVENT_CLONE) &&
			pl_ptrace_get_new_thread(tid, &child) == 0 && child > 0)
			(void)add(launch, child);
		/* A signal that it was about to get it gets. */
		if (pl_ptrace_detach(tid, event == 0 && WSTOPSIG(status) != SYSCALL_STOP ? WSTOPSIG(status) : 0) != -ESRCH)
			break;
	}
	forget(launch, tid);
}

static void let_others_go(struct pl_launch *launch)
{
	for (size_t i = 0; i < launch->count;) {
		if (launch->threads[i].tid == launch->held)
			i++;
		else
			let_go(launch, launch->threads[i].tid);
	}
}

/* True: it is the one. */
static bool on_syscall(struct pl_launch *launch, struct follower *thread, pl_launch_question *ask, void *context)
{
	pl_registers regs;

	thread->in_syscall = !thread->in_syscall;
	if (thread->in_syscall && pl_ptrace_get_registers(thread->tid, &regs) == 0) {
		bool anew = thread->anew;

		thread->anew = false;
		switch (ask(context, thread->tid, anew, &regs)) {
		case PL_LAUNCH_THIS: return true;
		case PL_LAUNCH_NEVER: thread->asking = false; break;
		case PL_LAUNCH_ASK_AGAIN: break;
		}
	}
	go_on(thread, 0);
	return false;
}

int pl_launch_follow(struct pl_launch *launch, pl_launch_question *ask, void *context, pid_t *ret_pid)
{
	if (launch->untraced < 0)
		return launch->untraced;
	while (launch->count) {
		struct follower *thread;
		int status;
		pid_t tid = pl_ptrace_wait(-1, &status);

		if (tid < 0 && errno == EINTR)
			continue;
		if (tid < 0)
			return -ESRCH;
		if (!WIFSTOPPED(status)) {
			note_end(launch, tid, status);
			continue;
		}
		thread = add(launch, tid);
		if (!thread) {
			(void)pl_ptrace_detach(tid, 0);
		} else if (status >> 16 == 0 && WSTOPSIG(status) == SYSCALL_STOP) {
			if (!on_syscall(launch, thread, ask, context))
				continue;
			launch->held = tid;
			let_others_go(launch);
			pl_ptrace_hold(tid);
			*ret_pid = tid;
			return 0;
		} else {
			on_event(launch, thread, status);
		}
	}
	return -ESRCH;
}

int pl_launch_again(struct pl_launch *launch, pid_t pid)
{
	pl_autofree pid_t *tids = NULL;
	size_t count = 0, seized = 0;
	int code = pl_process_threads(pid, &tids, &count);

	for (size_t i = 0; code == 0 && i < count; i++) {
		struct follower *thread;

		code = pl_ptrace_seize(tids[i], LAUNCH_OPTIONS);
		/* One that has ended meanwhile is no hindrance. */
		if (code < 0) {
			code = code == -ESRCH ? 0 : code;
			continue;
		}
		thread = add(launch, tids[i]);
		if (!thread) {
			code = -ENOMEM;
			break;
		}
		thread->asking = thread->anew = true;
		seized++;
		/* From the stop that this makes on it stops at its system calls. */
		(void)pl_ptrace_interrupt(tids[i]);
	}
	if (code == 0 && !seized)
		code = -ESRCH;
	while (code < 0 && launch->count)
		let_go(launch, launch->threads[0].tid);
	return code;
}

void pl_launch_release(struct pl_launch *launch)
{
	if (launch->held && pl_ptrace_is_held(launch->held)) {
		pl_ptrace_hold(0);
		(void)pl_ptrace_detach(launch->held, 0);
	}
	launch->held = 0;
}

/* Of a thread that is traced too, its end alone: its stops are for those who trace it. */
bool pl_launch_ended(struct pl_launch *launch, int *ret_status, int *ret_stop_signal)
{
	siginfo_t info = {0};
	int status;

	*ret_stop_signal = 0;
	if (!launch->ended && pl_ptrace_ended(launch->pid, &status))
		note_end(launch, launch->pid, status);
	while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid &&
		waitpid(info.si_pid, &status, WNOHANG) == info.si_pid) {
		note_end(launch, info.si_pid, status);
		info.si_pid = 0;
	}
	info.si_pid = 0;
	if (!launch->ended && waitid(P_PID, (id_t)launch->pid, &info, WSTOPPED | WNOHANG) == 0 && info.si_pid)
		*ret_stop_signal = info.si_status;
	*ret_status = launch->status;
	return launch->ended;
}

void pl_launch_free(struct pl_launch *launch)
{
	if (!launch)
		return;
	free(launch->threads);
	free(launch);
}
