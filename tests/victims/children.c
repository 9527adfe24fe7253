/* SPDX-License-Identifier: MIT */
/* fork, vfork and posix_spawn from a hooked process; the forked child goes through the hooks too. */
#include <errno.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "victim.h"

extern char **environ;
static struct victim_allocator allocator;

static void expect(pid_t pid, int code, const char *what)
{
	int status = -1;

	if (pid < 0) {
		victim_break("%s: %s", what, strerror(errno));
		return;
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR) {
			victim_break("%s: no child to wait for", what);
			return;
		}
	if (WIFSIGNALED(status))
		victim_break("%s: the child was killed by signal %d", what, WTERMSIG(status));
	else if (WEXITSTATUS(status) != code)
		victim_break("%s: the child ended with %d", what, WEXITSTATUS(status));
}

static void child(void)
{
	for (size_t i = 1; i <= 2000; i++) {
		unsigned char *block = allocator.allocate(i);

		if (!block)
			_exit(1);
		memset(block, 0x5a, i);
		block = allocator.reallocate(block, i + 700);
		if (!block || block[0] != 0x5a || block[i - 1] != 0x5a)
			_exit(2);
		allocator.release(block);
	}
	_exit(42);
}

static void *body(void *argument)
{
	struct timespec pause = {.tv_nsec = 20000000};
	char *arguments[] = {(char *)"true", NULL};

	for (;;) {
		pid_t pid = fork();

		if (pid == 0)
			child();
		expect(pid, 42, "fork");
		pid = vfork();
		if (pid == 0) {
			execve("/bin/true", arguments, environ);
			_exit(127);
		}
		expect(pid, 0, "vfork");
		if (posix_spawn(&pid, "/bin/true", NULL, NULL, arguments, environ))
			pid = -1;
		expect(pid, 0, "posix_spawn");
		victim_round();
		nanosleep(&pause, NULL);
	}
	return NULL;
}

int victim_start(void)
{
	if (!victim_allocator(&allocator))
		return ENOSYS;
	return victim_thread(body, NULL);
}
