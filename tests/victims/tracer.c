/* SPDX-License-Identifier: MIT */
/* tracer PID: holds a process traced, says so on stdout, and lets go when stdin ends. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	pid_t pid = argc == 2 ? (pid_t)strtol(argv[1], NULL, 10) : 0;
	char byte;

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
