/* SPDX-License-Identifier: MIT */
/*
 * Threads blocked in system calls: whoever stops them must not let them see it. The kernel restarts
 * all of these after a stop without a handler, except epoll_wait, which fails with EINTR (signal(7)).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "victim.h"

#define WAIT_MS 60
static int full_pipe[2], quiet_pipe[2];

static long long now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static void expect(const char *what, long result, long wanted, long long started, int least_ms)
{
	if (result != wanted)
		victim_break("%s returned %ld: %s", what, result, result < 0 ? strerror(errno) : "not what it should");
	else if (now_us() - started < least_ms * 1000LL - 1000)
		victim_break("%s came back after %lld us", what, now_us() - started);
	victim_round();
}

static void *in_read(void *argument)
{
	char byte;

	for (;;)
		expect("read", read(full_pipe[0], &byte, 1), 1, now_us(), 0);
	return NULL;
}

static void *in_write(void *argument)
{
	struct timespec wait = {.tv_nsec = WAIT_MS * 1000000L};

	for (;;) {
		long long started = now_us();

		expect("nanosleep", nanosleep(&wait, NULL), 0, started, WAIT_MS);
		expect("write", write(full_pipe[1], "x", 1), 1, started, 0);
	}
	return NULL;
}

static void *in_poll(void *argument)
{
	for (;;) {
		struct pollfd waited = {.fd = quiet_pipe[0], .events = POLLIN};
		long long started = now_us();

		expect("poll", poll(&waited, 1, WAIT_MS), 0, started, WAIT_MS);
	}
	return NULL;
}

static void *in_select(void *argument)
{
	for (;;) {
		struct timeval wait = {.tv_usec = WAIT_MS * 1000};
		long long started = now_us();

		expect("select", select(0, NULL, NULL, NULL, &wait), 0, started, WAIT_MS);
	}
	return NULL;
}

static void *in_futex(void *argument)
{
	int word = 1;

	for (;;) {
		struct timespec wait = {.tv_nsec = WAIT_MS * 1000000L};
		long long started = now_us();
		long result = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 1, &wait, NULL, 0);

		expect("futex", result < 0 && errno == ETIMEDOUT ? 0 : result, 0, started, WAIT_MS);
	}
	return NULL;
}

static void *in_epoll(void *argument)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC);

	for (;;) {
		struct epoll_event event;
		long long started = now_us();
		int result = epoll_wait(epoll, &event, 1, WAIT_MS);

		if (result < 0 && errno == EINTR)
			continue;
		expect("epoll_wait", result, 0, started, WAIT_MS);
	}
	return NULL;
}

static void *in_wait(void *argument)
{
	for (;;) {
		int status = 0;
		pid_t child = fork();

		if (child == 0) {
			struct timespec wait = {.tv_nsec = WAIT_MS * 1000000L};

			prctl(PR_SET_PDEATHSIG, SIGKILL);
			nanosleep(&wait, NULL);
			_exit(7);
		}
		expect("waitpid", waitpid(child, &status, 0), child, now_us(), 0);
		if (status != 7 << 8)
			victim_break("waitpid: status %x", status);
	}
	return NULL;
}

int victim_start(void)
{
	void *(*bodies[])(void *) = {in_read, in_write, in_poll, in_select, in_futex, in_epoll, in_wait};
	int r = 0;

	if (pipe2(full_pipe, O_CLOEXEC) || pipe2(quiet_pipe, O_CLOEXEC))
		return errno;
	for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]) && !r; i++)
		r = victim_thread(bodies[i], NULL);
	return r;
}
