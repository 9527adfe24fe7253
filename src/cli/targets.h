/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_TARGETS_H
#define PYLEAK_CLI_TARGETS_H

#include "family.h"
#include "pyleak/account.h"
#include "pyleak/report.h"
#include "target.h"

/* The processes of a session: one, or with --children a family, whose figures are summed up. */
struct pl_targets {
	pid_t named;              /* by the user; with --children it need not be recorded itself */
	struct pl_target lead;    /* the one process, or the first of the family */
	struct pl_family *family; /* the others; NULL without --children */
	struct pl_facts facts;    /* the lead's, and of all that were recorded from the start the memory */
	bool finished;
	/* Members of the family that ended long ago, and what is left to say of them. */
	struct pl_departed {
		pid_t pid;
		int64_t ended_ns;
	} *departed;
	size_t departed_count;
	struct pl_losses departed_losses;
	int64_t departed_stop_ns;
	int64_t next_headroom_look;
	/* What came with members of the family, less what went: see apart.h. Of places the other way round. */
	int64_t apart[PL_ACCOUNT_APARTS];
	struct pl_places apart_places;
	int64_t apart_heap;
};

/* Those that are or were recorded: at least one. */
size_t pl_targets_count(const struct pl_targets *targets);
struct pl_target *pl_targets_at(struct pl_targets *targets, size_t i);

/* Of the loaded objects of all of them, each named once, those whose allocators are not all recorded. *ret is the caller's to
 * free; what it points to is the engines' own, until they are next called. -ENOMEM. */
int pl_targets_unrecorded(struct pl_targets *targets, struct pl_unrecorded **ret, size_t *ret_count);

/* Whether there is one that can be recorded; touches nobody. Close them in any case. */
int pl_targets_check(struct pl_targets *targets, const struct pl_options *options, pid_t pid, struct pl_error *err);
/* Hooks all that are there. */
int pl_targets_start(struct pl_targets *targets, const struct pl_options *options, struct pl_sites *sites,
		     struct pl_error *err);

/* Instead of the one process, whose program has ended, `pid`: what was live in it is live no more. The errors of both of the
 * above; close them then. Not of a family. */
int pl_targets_go_on(struct pl_targets *targets, const struct pl_options *options, pid_t pid, struct pl_sites *sites,
		     struct pl_error *err);

/* Records until then. Of a family, who is born is taken in, and who ends is let go. 0; -EINTR; -ESRCH:
 * nobody is left; -ECANCELED: see err: an engine cannot go on safely, or so little memory is left in a process's cgroup,
 * or in the machine, that the recorders may not take more of it. They are all off then, and finishing removes them,
 * kept ones too. */
int pl_targets_run(struct pl_targets *targets, int64_t until_ns, struct pl_error *err);

/* Brings the sites up to date; what belonged to processes that ended is taken out of them. *ret sums up. */
void pl_targets_update(struct pl_targets *targets, struct pl_engine_state *ret);
/* Of all that live. */
void pl_targets_account(struct pl_targets *targets, const struct pl_touched *by_site, struct pl_account *ret);
/* What of it lies where, of all that live: the caller's. NULL: not known. */
struct pl_places *pl_targets_places(struct pl_targets *targets, const struct pl_account *account);
/* The same of before they were recorded. */
struct pl_places *pl_targets_places_before(struct pl_targets *targets);
/* The longest time that one of them was held stopped. */
int64_t pl_targets_stop_ns(struct pl_targets *targets);
/* What the recorders' tables take in all of them. */
uint64_t pl_targets_memory(struct pl_targets *targets);

/* Whose file system source lines are read from; 0: nobody's is left. */
pid_t pl_targets_living(struct pl_targets *targets);
/* Those that had not ended before; the caller frees. NULL: out of memory. */
pid_t *pl_targets_since(struct pl_targets *targets, int64_t since_ns, size_t *ret_count);

/* Takes the hooks out of all of them; again is harmless. */
int pl_targets_finish(struct pl_targets *targets, const struct pl_options *options, struct pl_error *err);
void pl_targets_close(struct pl_targets *targets);

#endif
