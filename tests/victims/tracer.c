/* SPDX-License-Identifier: MIT */
/*
 * tracer PID: holds a process traced, says so on stdout, and lets go when stdin ends.
 * tracer PID HAZARD: does to the running threads once what a careless tracer does. The victims are
 * tested with it: each must notice its own hazard.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __x86_64__
static void put(pid_t tid, uint64_t address)
{
	ptrace(PTRACE_POKEDATA, tid, address, 0xbadc0de5badc0de5);
}

/* The thread is stopped; *regs are its registers. In a system call, orig_rax says which. */
static void harm(pid_t tid, struct user_regs_struct *regs, const char *hazard)
{
	int native = (long)regs->orig_rax < 0;

	if (strcmp(hazard, "redzone") == 0 && native) {
		put(tid, regs->rsp - 64);
	} else if (strcmp(hazard, "tinystack") == 0 && native) {
		put(tid, regs->rsp - 136);
	} else if (strcmp(hazard, "registers") == 0 && native) {
		regs->r13 ^= 1;
		ptrace(PTRACE_SETREGS, tid, 0, regs);
	} else if (strcmp(hazard, "vectors") == 0 && native) {
		struct user_fpregs_struct vectors;

		ptrace(PTRACE_GETFPREGS, tid, 0, &vectors);
		vectors.xmm_space[4 * 9] ^= 1;
		vectors.mxcsr = 0x1f80;
		ptrace(PTRACE_SETFPREGS, tid, 0, &vectors);
	} else if (strcmp(hazard, "sigmask") == 0) {
		uint64_t all = ~0ULL;

		ptrace(PTRACE_SETSIGMASK, tid, sizeof(all), &all);
	} else if (strcmp(hazard, "blocked") == 0 && !native && (long)regs->rax < -500) {
		regs->rax = (uint64_t)-EINTR;
		regs->orig_rax = (uint64_t)-1;
		ptrace(PTRACE_SETREGS, tid, 0, regs);
	}
}

static int harm_all(pid_t pid, const char *hazard)
{
	char path[64];
	struct dirent *entry;
	DIR *tasks;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	tasks = opendir(path);
	if (!tasks)
		return 1;
	while ((entry = readdir(tasks))) {
		pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);
		struct user_regs_struct regs;
		int status;

		/* The main thread only answers questions. */
		if (tid <= 0 || tid == pid || ptrace(PTRACE_SEIZE, tid, 0, 0))
			continue;
		ptrace(PTRACE_INTERRUPT, tid, 0, 0);
		if (waitpid(tid, &status, __WALL) == tid && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP &&
			!ptrace(PTRACE_GETREGS, tid, 0, &regs))
			harm(tid, &regs, hazard);
		ptrace(PTRACE_DETACH, tid, 0, 0);
	}
	closedir(tasks);
	return 0;
}
#else
static int harm_all(pid_t pid, const char *hazard)
{
	fprintf(stderr, "tracer: no harm is known for this processor (%s, process %d)\n", hazard, (int)pid);
	return 2;
}
#endif

int main(int argc, char **argv)
{
	pid_t pid = argc > 1 ? (pid_t)strtol(argv[1], NULL, 10) : 0;
	char byte;

	if (pid > 0 && argc == 3)
		return harm_all(pid, argv[2]);
	if (pid <= 0 || ptrace(PTRACE_SEIZE, pid, 0, 0)) {
		fprintf(stderr, "tracer: %s\n", strerror(errno));
		return 1;
	}
	puts("traced");
	fflush(stdout);
	while (read(0, &byte, 1) > 0)
		continue;
	return 0; /* the kernel lets go of what a dead tracer held */
}
