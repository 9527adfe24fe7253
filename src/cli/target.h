/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_TARGET_H
#define PYLEAK_CLI_TARGET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "pyleak/account.h"
#include "pyleak/engine.h"
#include "pyleak/options.h"
#include "pyleak/places.h"

/* One process that is recorded: a session has one, or a whole family of them. */
struct pl_target {
	pid_t pid;
	uint64_t start_time; /* with the pid, its identity */
	struct pl_space *space;
	struct pl_python *python;
	struct pl_engine *engine; /* NULL: not yet */
	struct pl_facts facts;
	struct pl_account_reader *account; /* NULL: none can be taken */
	struct pl_places places; /* when its recording began; nothing: not known */
	struct pl_account began_with; /* what it had then, without what is ours */
	int64_t began_ns;
	int64_t took_ns; /* to see what it had */
	struct pl_engine_state state; /* as of the last snapshot */
	int64_t ended_ns; /* CLOCK_MONOTONIC */
	/* Of a member that came later: see apart.h. */
	int64_t settled_ns; /* when its start is over; 0: it was there before */
	bool settled;       /* what it has come with is known … */
	struct pl_account came_with;
	struct pl_places came_places;
	bool accounted, start_accounted, placed, start_placed; /* … and what of it and of these is counted */
	struct pl_account last;
	struct pl_places last_places;
	bool adopted; /* the probe was there before, and stays */
	bool ended;   /* the process did, while it was watched */
	bool retired; /* and so what was live in it is not counted any more */
};

/* Whether the process can be recorded, and what Python it is (by_force: see pl_python_open()); does not touch it.
 * Close it in any case. */
int pl_target_check(struct pl_target *target, pid_t pid, bool by_force, struct pl_error *err);

/* Adopts a probe that was planted to stay, or removes what a killed pyleak left behind or a fork
 * inherited; gives the process to the guardian; plants. On failure everything is as it was. */
int pl_target_start(struct pl_target *target, const struct pl_options *options, struct pl_sites *sites,
		    struct pl_error *err);

/* What its RSS consists of now. */
/* `by_site`: its member is added to; NULL: not wanted. */
void pl_target_account(const struct pl_target *target, const struct pl_touched *by_site, struct pl_account *ret);

/* The process has ended while others go on: all that is open for it is closed; what is kept is its state, and what its
 * engine needs to be retired. */
void pl_target_end(struct pl_target *target);

/* What is still planted is removed. */
void pl_target_close(struct pl_target *target);

/* One pyleak at a time plants or removes in a process: waits for a guardian that is at work, and
 * refuses beside a pyleak that records, which it names. Held until this process ends, or the target is closed. By force
 * (--force) it goes on beside whoever holds the lock and is no pyleak of this user's or root's. */
int pl_target_claim(pid_t pid, bool by_force, struct pl_error *err);

#endif
