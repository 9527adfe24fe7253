/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CORE_H
#define PYLEAK_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pyleak/error.h"
#include "pyleak/maps.h"
#include "pyleak/space.h"

/*
 * Core files as address spaces: those that the kernel writes, gdb's gcore, and our own (pl_core_write()); as they are, or
 * packed by zstd or gzip. All of a file is hostile: forged, cut, or endless ones end in an error, soon.
 *
 * A kernel leaves out of a core what it can be had elsewhere: the code and constants of files. These are read from the
 * files, below `sysroot`, if they are the very ones that were mapped: the build ID says so, or where there is none the
 * first page. Where a file is missing that is noted, and reading there fails.
 */

/* *ret is closed with pl_space_close(). -ENOEXEC: it is no core file; -EBADMSG: it is cut or damaged; -ENOTSUP: of another
 * kind of machine; -E2BIG; what open(2) says. `sysroot` NULL: "/". */
int pl_space_of_core(const char *path, const char *sysroot, struct pl_space **ret, struct pl_error *err);

/* Files that were wanted, and why they could not be had; it lasts as long as the space. */
struct pl_core_missing {
	const char *path; /* as the process named it */
	char why[160];    /* "is not there", "is another one (build ID …, not …)" */
};
size_t pl_core_missing(const struct pl_space *core, const struct pl_core_missing **ret);

/* What is known of the process beside its memory. */
struct pl_core_facts {
	uint64_t rss, free, files; /* 0: not known. free, files: see struct pl_holders_report; our own cores alone say it */
	double stop_ms;
	bool saved;                /* it is one of our own */
	uint64_t bytes;            /* of memory that is in the core */
};
void pl_core_facts(const struct pl_space *core, struct pl_core_facts *ret);

/*
 * A space that is read through another one, which it does not own, and that notes which pages were read: what a core of the
 * process needs beside its own memory. It has no files: what is found in it is found by memory alone.
 */
int pl_space_noting(struct pl_space *below, struct pl_space **ret);

/* A core file with these runs of whole pages, in ascending order; with the pages that `noting` has noted beside them; and
 * with what is mapped. It is written from the current position of `fd` on. 0, -ENOMEM, or what write(2) says. */
int pl_core_write(int fd, struct pl_space *noting, const struct pl_memory_piece *runs, size_t count,
	const struct pl_core_facts *facts, struct pl_error *err);

#endif
