/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pyleak/hook.h"
#include "pyleak/process.h"
#include "pyleak/units.h"

#define DEATH_PATIENCE_NSEC PL_NSEC_PER_SEC
#define CLAIM_PATIENCE_NSEC (3 * PL_NSEC_PER_SEC)
#define CHARGES_MANY 64
#define LOOKS 4 /* after 20, 60, 180 and 540 ms more */
#define FAILURES 8 /* each half a second after the last; then every so often: */
#define FAILURE_PAUSE_MAX_SEC 20
#define LOOK_PAUSE_NSEC (20 * PL_NSEC_PER_MSEC)
#define FAILURE_PAUSE_NSEC (500 * PL_NSEC_PER_MSEC)
#define MANY_DESCRIPTORS 65536
#define REMOVE_PATIENCE_NSEC (10 * PL_NSEC_PER_SEC)

/* A process to watch; a negative pid: it need not be any more; without a pid: the dismissal. Shorter than PIPE_BUF, so it arrives whole or not at all. */
struct charge {
	pid_t pid;
	uint64_t start_time;
	bool by_force; /* whoever else has a claim on it is no pyleak */
};

static int alive_fd = -1;
static pid_t guardian_pid;

/* Those that it was given, on this side. */
static struct charge *given;
static size_t given_count;

/* A dying process closes its files before it lets go of what it traces (do_exit(): exit_files() comes
 * before exit_notify(), which detaches and then makes it a zombie). Until then nobody else can seize. */
static void wait_for_death(pid_t pyleak)
{
	const struct timespec pause = {.tv_nsec = PL_NSEC_PER_MSEC};
	int64_t give_up = pl_now_ns() + DEATH_PATIENCE_NSEC;
	bool dying = true;

	while (dying && pl_now_ns() < give_up) {
		struct pl_process process;

		dying = pl_process_read(pyleak, &process) == 0 && !strchr("ZX", process.state);
		pl_process_free(&process);
		if (dying)
			(void)nanosleep(&pause, NULL);
	}
}

static bool is_there(const struct charge *charge)
{
	uint64_t now;

	return pl_process_start_time(charge->pid, &now) == 0 && now == charge->start_time;
}

/* Whether something of ours is in the process that should not be. */
static bool is_left(const struct charge *charge)
{
	struct pl_probe probe = {0};
	bool left = is_there(charge) && pl_probe_find(charge->pid, &probe) == 0 && !pl_probe_is_kept(&probe);

	pl_probe_free(&probe);
	return left;
}

/* Held until the end. Whoever plants has found what was left, or will; whoever only reads a kept probe lets go of it soon. */
static bool claim(const struct charge *charge)
{
	if (pl_probe_claim(charge->pid) == 0 || charge->by_force)
		return true;
	return pl_probe_claim_within(charge->pid, CLAIM_PATIENCE_NSEC) == 0 && is_left(charge);
}

/* Removes what was left in one process. */
static void clean(const struct charge *charge)
{
	struct timespec pause = {.tv_nsec = LOOK_PAUSE_NSEC};
	pid_t pid = charge->pid;
	bool found;

	if (!claim(charge))
		return;
	/* A thread that carries a call of the dead pyleak's makes it when it is given a processor: a
	 * mapping may yet appear. And where a processor is rare, a dying pyleak takes its time to let go. */
	for (int looks = 0, failures = 0; looks < LOOKS;) {
		(void)nanosleep(&pause, NULL);
		if (!is_there(charge))
			return;
		int code = pl_probe_detach(pid, REMOVE_PATIENCE_NSEC, &found, NULL, NULL);

		if (code < 0) {
			/* A thread that stays inside will leave at some time, and nobody else may come to see to it. Another
			 * tool on top of us may stay for good. */
			if (++failures == FAILURES && code == -EBUSY)
				return;
			pause = (struct timespec){.tv_nsec = FAILURE_PAUSE_NSEC};
			if (failures > FAILURES)
				pause = (struct timespec){.tv_sec = FAILURE_PAUSE_MAX_SEC};
		} else {
			looks++;
			pause = (struct timespec){.tv_nsec = LOOK_PAUSE_NSEC};
			for (int i = 0; i < looks; i++)
				pause.tv_nsec *= 3;
		}
	}
}

static size_t drop_ended(struct charge *charges, size_t count)
{
	size_t kept = 0;

	for (size_t i = 0; i < count; i++)
		if (is_there(&charges[i]))
			charges[kept++] = charges[i];
	return kept;
}

/* The processes that pyleak names are watched until it dismisses the guardian, or ends otherwise: then
 * the pipe is closed, and what was written into it before is still read. */
static void guard(int pipe_fd, pid_t pyleak)
{
	struct charge *charges = NULL, charge;
	size_t count = 0;
	ssize_t got;

	while ((got = read(pipe_fd, &charge, sizeof(charge))) != 0) {
		struct charge *grown;

		/* A family may go through any number of processes. */
		if (count >= CHARGES_MANY && (count & (count - 1)) == 0)
			count = drop_ended(charges, count);
		if (got < 0 && errno == EINTR)
			continue;
		if (got != sizeof(charge) || !charge.pid)
			return;
		if (charge.pid < 0) {
			for (size_t i = 0; i < count; i++)
				if (charges[i].pid == -charge.pid && charges[i].start_time == charge.start_time)
					charges[i--] = charges[--count];
			continue;
		}
		grown = reallocarray(charges, count + 1, sizeof(*charges));
		if (!grown)
			continue; /* the others are still watched */
		charges = grown;
		charges[count++] = charge;
	}
	wait_for_death(pyleak);
	/* Side by side: none waits until another one can be stopped. */
	for (size_t i = 0; i < count; i++) {
		pid_t child;

		if (!is_there(&charges[i]))
			continue;
		child = i + 1 < count ? fork() : -1;

		if (child > 0)
			continue;
		clean(&charges[i]);
		if (child == 0)
			return;
	}
}

static void close_others(unsigned int first, unsigned int last)
{
	struct rlimit limit;

	if (first > last || syscall(SYS_close_range, first, last, 0) == 0)
		return;
	/* Before Linux 5.9. */
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur > MANY_DESCRIPTORS)
		limit.rlim_cur = MANY_DESCRIPTORS;
	for (unsigned int fd = first; fd <= last && fd < limit.rlim_cur; fd++)
		(void)close((int)fd);
}

/* Nothing of the terminal or of a pipeline may be held open by a process that outlives the command. */
static void leave_terminal(int keep_fd)
{
	int null_fd = open("/dev/null", O_RDWR);

	(void)setsid();
	(void)signal(SIGINT, SIG_IGN);
	(void)signal(SIGTERM, SIG_IGN);
	(void)signal(SIGHUP, SIG_IGN);
	(void)signal(SIGPIPE, SIG_IGN);
	for (int fd = 0; fd < 3; fd++)
		if (null_fd >= 0)
			(void)dup2(null_fd, fd);
	close_others(3, (unsigned int)keep_fd - 1);
	close_others((unsigned int)keep_fd + 1, UINT_MAX);
	(void)prctl(PR_SET_NAME, PL_GUARDIAN_NAME);
	if (chdir("/") < 0)
		return; /* its folder's file system stays busy meanwhile: no more */
}

static int start(void)
{
	pid_t pyleak = getpid();
	int pipe_fds[2], pid_fds[2] = {-1, -1};
	int code = pipe2(pipe_fds, O_CLOEXEC) < 0 ? -errno : 0;

	if (code < 0)
		return code;
	if (pipe2(pid_fds, O_CLOEXEC) < 0)
		code = -errno;

	pid_t child = code == 0 ? fork() : -1;

	if (child < 0) {
		code = code < 0 ? code : -errno;
		for (int i = 0; i < 2; i++) {
			(void)close(pipe_fds[i]);
			if (pid_fds[i] >= 0)
				(void)close(pid_fds[i]);
		}
		return code;
	}
	if (child == 0) {
		/* A second fork, so that the guardian is nobody's child here: waitpid(-1) stays the
		 * tracer's own. */
		(void)close(pipe_fds[1]);

		pid_t guardian = fork();

		if (guardian > 0 && write(pid_fds[1], &guardian, sizeof(guardian)) != sizeof(guardian))
			_exit(1);
		if (guardian == 0) {
			(void)close(pid_fds[1]);
			(void)unsetenv("PYLEAK_FAULT"); /* the step to die at is the tracer's */
			pl_probe_unclaim_all();         /* and so are the claims, until it dies */
			leave_terminal(pipe_fds[0]);
			guard(pipe_fds[0], pyleak);
		}
		_exit(0);
	}
	(void)close(pipe_fds[0]);
	(void)close(pid_fds[1]);
	while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
	if (read(pid_fds[0], &guardian_pid, sizeof(guardian_pid)) != sizeof(guardian_pid))
		guardian_pid = 0;
	(void)close(pid_fds[0]);
	alive_fd = pipe_fds[1];
	return 0;
}

static void note_given(const struct charge *charge)
{
	struct charge *grown = reallocarray(given, given_count + 1, sizeof(*grown));

	if (!grown)
		return;
	given = grown;
	given[given_count++] = *charge;
}

static bool is_off(void)
{
	const char *setting = getenv("PYLEAK_GUARDIAN");

	return setting && strcmp(setting, "off") == 0;
}

pid_t pl_guardian_start(void)
{
	if (alive_fd < 0 && !is_off() && start() < 0)
		return 0;
	return guardian_pid;
}

int pl_guardian_add(pid_t pid, uint64_t start_time)
{
	const struct charge charge = {pid, start_time, pl_probe_is_claimed_by_force(pid)};
	int code = 0;

	if (is_off())
		return 0;
	if (alive_fd < 0)
		code = start();
	if (code == 0 && write(alive_fd, &charge, sizeof(charge)) != sizeof(charge))
		code = -errno;
	if (code == 0)
		note_given(&charge);
	return code;
}

void pl_guardian_dismiss(void)
{
	const struct charge dismissal = {0};

	ssize_t written = 0;
	size_t left = 0;

	if (alive_fd < 0)
		return;
	for (size_t i = 0; i < given_count; i++) {
		const struct charge forget = {-given[i].pid, given[i].start_time};

		if (is_left(&given[i]))
			left++;
		else
			written = write(alive_fd, &forget, sizeof(forget));
	}
	free(given);
	given = NULL;
	given_count = 0;
	/* What could not be removed is the guardian's from now on: to it this process has died. */
	if (!left)
		written = write(alive_fd, &dismissal, sizeof(dismissal));
	(void)written; /* a guardian that is gone needs no dismissal */
	(void)close(alive_fd);
	alive_fd = -1;
}
