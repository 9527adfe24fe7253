/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_RESIDENT_H
#define PYLEAK_RESIDENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "pyleak/page.h"

/*
 * Which pages of another process are in memory, from /proc/PID/pagemap. The kernel holds the process's memory map for
 * two megabytes at a time only, where smaps holds it for a whole mapping: mmap() in the process does not wait for us.
 * (30 ns for a page; smaps takes as long, for the same walk.) What is not in memory must not be read from outside
 * either: that would fetch it from swap, or make it.
 */

struct pl_range {
	uint64_t start, end; /* [start, end), multiples of PL_PAGE */
};

/* The descriptor to give to the other functions, to be closed with close(2). -ESRCH, -EPERM. */
int pl_resident_open(pid_t pid);

/* One byte for each page of the range. 0: never touched, or given back. 0 or -errno. */
enum { PL_RESIDENT = 1 /* it is in memory */, PL_SWAPPED = 2 };
int pl_resident_pages(int fd, struct pl_range range, uint8_t *pages);

/* Bytes of this range that are in memory or swapped out, in whole pages; 0 if that cannot be had. */
uint64_t pl_resident_or_swapped(pid_t pid, struct pl_range range);

/*
 * The next runs of pages of a range that are in memory, at most `max` of them; *ret_end is how far was looked: go on from
 * there until it is the end of the range. For large ranges of which little is in memory: where the kernel can (Linux 6.7,
 * PAGEMAP_SCAN) a reservation of a terabyte takes no time, before that 8 bytes for each of its pages are read, but never
 * kept. `own`: also those that were swapped out, and only those that are no file's. 0 or -errno.
 */
int pl_resident_runs(int fd, struct pl_range range, bool own, struct pl_range *runs, size_t max, size_t *ret_count,
		     uint64_t *ret_end);

#endif
