/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "pyleak/log.h"
#include "pyleak/units.h"
#include "session.h"

/* A person looks at the screen from the first moment on. */
#define FIRST_VIEW_NSEC (150 * PL_NSEC_PER_MSEC)

static int report_now(struct pl_session *session, struct pl_error *err)
{
	struct pl_snapshot *now = pl_session_snapshot(session);
	int code = now ? pl_session_report(session, PL_REPORT_TOP, now, NULL) : -ENOMEM;

	pl_snapshot_free(now);
	return code < 0 ? pl_fail(err, code, "the report could not be written: %s", strerror(-code)) : 0;
}

/* On a terminal the report is printed anew after each interval, in the place of the last one. */
static bool is_live(const struct pl_session *session)
{
	return session->options->format == PL_FORMAT_TEXT && !session->output.path &&
	       pl_output_width(&session->output) > 0;
}

static int record(struct pl_session *session, struct pl_error *err)
{
	const struct pl_options *options = session->options;
	int64_t end = options->duration_ns ? session->started_ns + options->duration_ns : INT64_MAX;
	bool live = is_live(session);
	int64_t wait = FIRST_VIEW_NSEC;

	for (;; wait = options->interval_ns) {
		int64_t now = pl_now_ns();
		int64_t until = live && now < end - wait ? now + wait : end;
		int code = pl_session_record(session, until, err);

		if (code < 0 || until == end)
			return code;
		fputs("\033[H\033[J", session->output.stream);
		code = report_now(session, err);
		if (code < 0)
			return code;
	}
}

int pl_command_attach(const struct pl_options *options)
{
	struct pl_session session;
	struct pl_error err = {0};

	if (pl_session_open(&session, options, &err) == 0 && !options->keep) {
		int code = record(&session, &err);

		/* The process is let go before anything is printed. */
		if (code == 0 || code == -EINTR || code == -ESRCH || code == -ECANCELED) {
			(void)pl_session_finish(&session, &err);
			(void)report_now(&session, &err);
		}
	}
	if (options->keep && session.target.recording)
		pl_log_note("process %d is being recorded%s; 'pyleak diff %d' reads the probe, 'pyleak detach %d' removes it",
			(int)session.target.pid, session.target.adopted ? " since before" : "", (int)session.target.pid,
			(int)session.target.pid);
	return pl_session_close(&session, &err);
}
