/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_LIVE_H
#define PYLEAK_LIVE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "pyleak/error.h"
#include "pyleak/facts.h"
#include "pyleak/headroom.h"
#include "pyleak/row_types.h"
#include "pyleak/stats.h"
#include "pyleak/verdict.h"

/*
 * The live view of `pyleak attach`: what is recorded, on a whole terminal, with keys. It is fed snapshots and asks for
 * nothing by itself; who feeds it goes on recording in between.
 *
 * Inside (src/live) are two halves. The model (model.h) is what is on the screen as data: snapshots and keys go in,
 * lines of styled text come out (screen.h), and no terminal is needed to test it. The terminal (terminal.h) puts these
 * lines on a real one by ncurses, and gives that back whole however pyleak ends, but for SIGKILL.
 */
struct pl_live;

struct pl_live_facts {
	struct pl_facts recording;
	const char *command; /* of the process; borrowed */
	int64_t process_ns;  /* CLOCK_MONOTONIC: when the process started (perhaps below zero) */
	bool adopted;        /* the recording began before this view: there are sites older than it knows */
};

struct pl_live_options {
	/* What the live blocks of a row are, asked for a row that is opened, at each snapshot; NULL: nobody knows. */
	void (*look_at_row)(void *context, const struct pl_sites *sites, const struct pl_row *row, enum pl_group group_by,
			    struct pl_row_types *ret);
	void *look_context;
	struct pl_rows_options rows; /* what is shown, and how at first */
	int64_t interval_ns;         /* over how long changes are shown */
	bool color;
	bool holders;     /* who keeps a row can be asked: see pl_live_wants_held() */
	bool suspend;     /* ^Z stops pyleak; else it does nothing */
};

/* What is known at the moment of a snapshot, beside it. */
struct pl_live_state {
	int64_t stop_ns;  /* the longest that the process was stopped */
	uint64_t memory;  /* of the recorder's tables in it; 0: not known */
	size_t processes; /* that are recorded now */
	pid_t source_pid; /* whose file system source lines are read from; 0: no source lines */
	struct pl_headroom headroom; /* limit 0: not known */
	bool collector_off;      /* the collector of cycles is, or never runs by itself */
	bool collector_counted;
	uint64_t full;           /* full collections since the recording began, if they are counted */
};

/*
 * Takes the terminal over, which is both standard input and standard output. -ENOTTY (no text in err): there is no
 * terminal that this would work on (standard input or output is none, pyleak is in the background, TERM is unset,
 * unknown, dumb or a printer); nothing was changed.
 */
int pl_live_open(const struct pl_live_facts *facts, const struct pl_live_options *options, struct pl_live **ret,
		 struct pl_error *err);

/* A newer snapshot, which belongs to the view from then on, whatever comes back. 0 or -ENOMEM. Draws. */
int pl_live_update(struct pl_live *live, struct pl_snapshot *now, const struct pl_live_state *state);

/* To be called often, some fifty times a second: keys, a terminal of another size, ^Z. Draws what has changed by
 * them. False: the user wants to quit. */
bool pl_live_look(struct pl_live *live);

/* Whether the user has asked who keeps the opened row, since it was asked the last time; says which row that is. */
bool pl_live_wants_held(struct pl_live *live, const struct pl_sites **ret_sites, struct pl_row *ret_row, enum pl_group *ret_group_by);
/* What there is to say of it, in lines; shown as long as the row is opened. Draws. */
void pl_live_show_held(struct pl_live *live, const char *text);

/* How the rows are grouped and sorted now, for a report that follows. */
void pl_live_selection(const struct pl_live *live, enum pl_group *ret_group_by, enum pl_sort *ret_sort);

/* The windows that its verdicts rest on, for a report that follows: the caller's from then on. NULL: there are none. */
struct pl_history *pl_live_take_history(struct pl_live *live);

/* Gives the terminal back, and then says what was logged meanwhile. NULL is allowed. */
void pl_live_close(struct pl_live *live);

#endif
