/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_CHECKS_H
#define PYLEAK_CLI_CHECKS_H

#include <stdbool.h>
#include <sys/types.h>

#include "pyleak/error.h"
#include "pyleak/headroom.h"
#include "pyleak/process.h"
#include "pyleak/python.h"

/*
 * What must hold before a process is touched. The commands that attach go through the list and stop at
 * the first thing that is wrong; `doctor` asks for all of it.
 */

struct pl_subject {
	struct pl_process process;
	bool by_force;            /* see pl_python_open() */
	struct pl_space *space;
	struct pl_python *python; /* set by the check of that name */
};

enum { PL_CHECK_NOTE = 768 };

struct pl_check {
	const char *name;
	/* 0, and what was found in a few words; or -errno with *err filled. The process is not touched. */
	int (*run)(struct pl_subject *subject, char note[PL_CHECK_NOTE], struct pl_error *err);
	unsigned int needs; /* checks, by bit, without which this one means nothing */
	bool planting;      /* planting finds out by itself, by the same means */
};
extern const struct pl_check pl_checks[];
extern const size_t pl_check_count;

/* -ESRCH and *err filled: there is no such process. Release in any case. */
int pl_subject_open(struct pl_subject *subject, pid_t pid, bool by_force, struct pl_error *err);
void pl_subject_close(struct pl_subject *subject);

/* All that planting does not ask by itself, up to the first that fails. */
int pl_checks_before_planting(struct pl_subject *subject, struct pl_error *err);
/* What it takes to read its memory, and no more. */
int pl_checks_before_reading(struct pl_subject *subject, struct pl_error *err);

/* Whether a process is a pyleak of this user's or root's: nothing else has a right to keep us out. */
bool pl_check_is_pyleak(const struct pl_process *process);
/* -EBUSY and *err filled with who it is: another pyleak plants in the process or records it. */
int pl_check_claimed(pid_t pid, struct pl_error *err);

/* What planting takes: 0.4 to 1.3 MiB on Pythons 3.6, 3.11 and 3.12, the files' pages that it touches among them; and the
 * first pages of each table. */
#define PL_PLANT_BYTES (UINT64_C(4) << 20)
/* -ENOMEM: even that would not fit into the process's cgroup, or the machine. ret->limit is 0 if it is not known. */
int pl_check_headroom(pid_t pid, struct pl_headroom *ret, struct pl_error *err);

#endif
