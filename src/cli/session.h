/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_SESSION_H
#define PYLEAK_CLI_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "output.h"
#include "pyleak/engine.h"
#include "pyleak/options.h"
#include "pyleak/report.h"
#include "targets.h"

/*
 * What `attach` and `diff` share: from the command line to a process that is being recorded, and
 * back to one that nobody touched.
 */
struct pl_session {
	const struct pl_options *options;
	struct pl_output output;
	struct pl_sites *sites;
	struct pl_collector collector; /* of the process that was named, as it began */
	struct pl_history *history; /* of every snapshot that pl_session_snapshot() took */
	struct pl_server *server; /* --listen; else NULL */
	struct pl_recording_writer *writer; /* --format recording; else NULL */
	struct pl_targets targets;
	int64_t started_ns; /* CLOCK_MONOTONIC: when this session began to wait */
	/* What is looked at every 20 ms while it records; NULL: nothing. */
	void (*look)(void *context);
	void *look_context;
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

/* Records for a window. 0: it is over; -EINTR: ^C, SIGTERM or SIGHUP; -ESRCH: the process ended
 * (session->ended); -ECANCELED: see err. Of a family, who is born is taken in, and who ends is let go. */
int pl_session_record(struct pl_session *session, int64_t until_ns, struct pl_error *err);

/* The totals as they are now, which the session's history notes (take one at the end of each window, and the rows of
 * the reports get verdicts), and the account of the RSS, which takes longer: a glance does without either. --format
 * recording writes the snapshot down. NULL: out of memory. */
struct pl_snapshot *pl_session_snapshot(struct pl_session *session);
struct pl_snapshot *pl_session_glance(struct pl_session *session);

/* Takes the hooks out and lets the process go; what was recorded stays. Again is harmless. */
int pl_session_finish(struct pl_session *session, struct pl_error *err);

/* Prints `now` against `before` (NULL: since the start). 0 or -errno of the output. */
int pl_session_report(struct pl_session *session, enum pl_report_kind kind, const struct pl_snapshot *now,
		      const struct pl_snapshot *before);

/* The last report of `attach`: what is live now. What it says of the resident size is true of the moment before the
 * recorder's tables go; the process is let go before anything is printed. */
int pl_session_end(struct pl_session *session, struct pl_error *err);
/* Records until `end` and takes a snapshot at the start, which the others begin from, and one after each interval. */
int pl_session_take_snapshots(struct pl_session *session, int64_t end, struct pl_error *err);

/* Finishes, closes the output, and gives the exit status: an error that is in err is printed. */
int pl_session_close(struct pl_session *session, struct pl_error *err);

#endif
