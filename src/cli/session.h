/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_SESSION_H
#define PYLEAK_CLI_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "held.h"
#include "output.h"
#include "pyleak/engine.h"
#include "pyleak/options.h"
#include "pyleak/report.h"
#include "row_types.h"
#include "targets.h"

/*
 * What `attach` and `diff` share: from the command line to a process that is being recorded, and
 * back to one that nobody touched.
 */
struct pl_session {
	const struct pl_options *options;
	struct pl_output output;
	struct pl_sites *sites;
	struct pl_places *places; /* before anything was touched; NULL: not known */
	uint64_t full_seen;   /* collections of all generations by now, … */
	int64_t last_full_ns; /* … and when the last of them was noticed, CLOCK_MONOTONIC; 0: none was */
	struct pl_collector collector; /* of the process that was named, as it began */
	struct pl_history *history; /* of every snapshot that pl_session_snapshot() took */
	struct pl_row_types *types; /* of the last report's rows */
	size_t type_count;
	size_t window, windows; /* of the next report, as in it */
	bool last; /* it is the last one */
	struct pl_server *server; /* --listen; else NULL */
	struct pl_recording_writer *writer; /* --format recording; else NULL */
	struct pl_targets targets;
	int64_t started_ns; /* CLOCK_MONOTONIC: when this session began to wait */
	/* What a person who waits is told, with the time that is left: "window 1 of 2"; NULL: nothing. */
	const char *waits_for;
	int64_t waits_until; /* INT64_MAX: nobody knows; 0: for what is being recorded now */
	/* What is looked at every 20 ms while it records; NULL: nothing. */
	void (*look)(void *context);
	void *look_context;
	struct pl_held_row *held; /* --holders: of the rows of the last report, who keeps them; NULL: none */
	size_t held_count;
	int64_t held_stop_ns;
	bool held_failed;
	bool launched; /* the program is ours: its end is no error */
	bool ended;    /* the process did, while it was watched; of a family, all of them */
	bool exceeded; /* --fail-above */
	struct pl_error finish_error; /* of a finish within a report, or of a recording that cannot be written */
};

/* Chooses a process, checks it, opens the output, and starts to record. On failure everything is as it
 * was, and err has the line to print. Close it in any case. */
int pl_session_open(struct pl_session *session, const struct pl_options *options, struct pl_error *err);
/* The same, of a process that is held since it began, a descendant of `root` (itself without --children); the caller
 * has taken care of signals. */
int pl_session_open_launched(struct pl_session *session, const struct pl_options *options, pid_t root,
			     struct pl_error *err);

/* After -ESRCH, of one process, or where pl_session_open_launched() failed since that has begun another program meanwhile:
 * goes on with `pid`, which is held since its program began. Close it after an error. */
int pl_session_go_on(struct pl_session *session, pid_t pid, struct pl_error *err);

/* Records for a window. 0: it is over; -EINTR: ^C, SIGTERM or SIGHUP; -ESRCH: the process ended
 * (session->ended); -ECANCELED: see err. Of a family, who is born is taken in, and who ends is let go. */
int pl_session_record(struct pl_session *session, int64_t until_ns, struct pl_error *err);

/* The totals as they are now, which the session's history notes (take one at the end of each window, and the rows of
 * the reports get verdicts), and the account of the RSS, which takes longer: a glance does without either. --format
 * recording writes the snapshot down. NULL: out of memory. */
struct pl_snapshot *pl_session_snapshot(struct pl_session *session);
struct pl_snapshot *pl_session_glance(struct pl_session *session);

/* The last one, which the report shows against `before` (NULL: since the start): what its rows consist of is looked at, with
 * --holders who keeps it is found out, and the process is let go. NULL: out of memory. */
struct pl_snapshot *pl_session_last_snapshot(struct pl_session *session, const struct pl_snapshot *before, struct pl_error *err);

/* Takes the hooks out and lets the process go; what was recorded stays. Again is harmless. */
int pl_session_finish(struct pl_session *session, struct pl_error *err);

/* Prints `now` against `before` (NULL: since the start). 0 or -errno of the output. */
int pl_session_report(struct pl_session *session, enum pl_report_kind kind, const struct pl_snapshot *now,
		      const struct pl_snapshot *before);

/* What a report of `now` against `before` would say, for who does not print it. 0 or -errno. */
struct pl_render_use;
int pl_session_use_report(struct pl_session *session, const struct pl_snapshot *now, const struct pl_snapshot *before,
			  const struct pl_render_use *use);
/* Prints it: the process does not wait for who reads it. 0 or -errno of the output. */
int pl_session_print(struct pl_session *session, const char *text, size_t length);

/* The last report of `attach`: what is live now. What it says of the resident size is true of the moment before the
 * recorder's tables go; the process is let go before anything is printed. */
int pl_session_end(struct pl_session *session, struct pl_error *err);
/* Records until `end` and takes a snapshot at the start, which the others begin from, and one after each interval. */
int pl_session_take_snapshots(struct pl_session *session, int64_t end, struct pl_error *err);

/* Finishes, closes the output, and gives the exit status: an error that is in err is printed. */
int pl_session_close(struct pl_session *session, struct pl_error *err);

#endif
