/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HEADROOM_H
#define PYLEAK_HEADROOM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* How much memory a process can still take before it, or the machine, runs out. */
struct pl_headroom {
	uint64_t limit; /* of the cgroup, or all memory of the machine */
	uint64_t left;  /* of that; page cache which can be dropped counts as free */
	bool cgroup;    /* it is a cgroup's limit that is reached first */
	uint64_t kills; /* of processes in its cgroup, for want of memory, since the cgroup was made; 0: none, or not known */
	uint64_t floor; /* with less than this left nothing more is recorded: the memory is the program's */
};

/*
 * What is left is the least over the cgroup of the process, those around it, and the machine, each compared with its
 * own floor: as the kernel's files below `root` say ("" in earnest; tests have a tree of their own). cgroup v2
 * (memory.max, and memory.high, above which a process is slowed down until it hardly runs) and the memory controller of
 * v1. A cgroup that cannot be seen from here is left out. 0 or -errno: the files of the machine cannot be read, or the
 * process is gone. Measured: 0.14 ms (v1, on a quiet machine).
 */
int pl_headroom_read(const char *root, pid_t pid, struct pl_headroom *ret);

#endif
