/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "pyleak/log.h"
#include "pyleak/units.h"
#include "session.h"

/* Before the first window has begun there is nothing to compare with: "+0 B" would read as if nothing had grown. */
static int report(struct pl_session *session, const struct pl_snapshot *now, const struct pl_snapshot *before,
	struct pl_error *err)
{
	int code = now ? pl_session_report(session, before ? PL_REPORT_DIFF : PL_REPORT_TOP, now, before) : -ENOMEM;

	if (!before)
		pl_log_warning("this ended before the first window began: the report is of what is live, without a difference");

	return code < 0 ? pl_fail(err, code, "the report could not be written: %s", strerror(-code)) : 0;
}

static int64_t end_of(const struct pl_session *session)
{
	int64_t duration = session->options->duration_ns;

	return duration ? session->started_ns + duration : INT64_MAX;
}

/* Whether --duration leaves no time for another window, or for less than half of one. */
static bool time_is_over(const struct pl_session *session)
{
	return pl_now_ns() > end_of(session) - session->options->interval_ns / 2;
}

static int record_window(struct pl_session *session, int64_t number, struct pl_error *err)
{
	int64_t until = pl_now_ns() + session->options->interval_ns, end = end_of(session), count = session->options->count;
	char text[80];
	int code;

	if (session->options->duration_ns)
		(void)snprintf(text, sizeof(text), "window %" PRId64, number);
	else
		(void)snprintf(text, sizeof(text), count == 1 ? "second of two windows" : "window %" PRId64 " of %" PRId64, number, count);
	session->waits_for = text;
	code = pl_session_record(session, until < end ? until : end, err);
	session->waits_for = NULL;
	return code;
}

/* A window that was cut short, by ^C or because the process ended, is still a window. */
static bool window_counts(int code)
{
	return code == 0 || code == -EINTR || code == -ESRCH || code == -ECANCELED;
}

static int record(struct pl_session *session, struct pl_error *err)
{
	const struct pl_options *options = session->options;
	/* A format that is one document has all windows in it: the last snapshot against the first. */
	bool whole = !pl_report_format(options->format)->repeats;
	struct pl_snapshot *before = NULL;
	int code;

	session->waits_for = options->count == 1 && !options->duration_ns ? "first of two windows" : "the window before the first";
	code = pl_session_record(session, session->started_ns + options->interval_ns, err);
	session->waits_for = NULL;
	if (code == 0) {
		before = pl_session_snapshot(session);
		if (!before)
			return pl_fail(err, -ENOMEM, "out of memory");
	}
	for (int64_t i = 0; code == 0 || (i == 0 && window_counts(code)); i++) {
		struct pl_snapshot *now;
		bool last;

		if (code == 0)
			code = record_window(session, i + 1, err);
		if (!window_counts(code))
			break;
		last = code != 0 || i + 1 == options->count || time_is_over(session);
		/* The process is let go before the last difference is printed. */
		now = last ? pl_session_last_snapshot(session, before, err) : pl_session_snapshot(session);

		/* Where there is one only, it needs no number. */
		if (!whole && (!last || i > 0)) {
			session->window = (size_t)i + 1;
			session->windows = options->duration_ns ? 0 : (size_t)options->count;
		}
		session->last = last && !whole;
		/* One text from the next; JSON is one document a line as it is. */
		if (i > 0 && options->format == PL_FORMAT_TEXT)
			(void)fputc('\n', session->output.stream);

		int printed = whole && !last ? 0 : report(session, now, before, err);

		if (options->against_first || whole) {
			pl_snapshot_free(now);
		} else {
			pl_snapshot_free(before);
			before = now;
		}
		if (printed < 0 || last) {
			code = printed < 0 ? printed : code;
			break;
		}
	}
	pl_snapshot_free(before);
	return code;
}

int pl_command_diff(const struct pl_options *options)
{
	struct pl_session session;
	struct pl_error err = {0};

	if (pl_session_open(&session, options, &err) == 0)
		(void)record(&session, &err);
	return pl_session_close(&session, &err);
}
