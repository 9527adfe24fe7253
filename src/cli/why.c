/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "held.h"
#include "pyleak/cleanup.h"
#include "pyleak/log.h"
#include "pyleak/process.h"
#include "pyleak/python.h"
#include "pyleak/space.h"
#include "pyleak/units.h"
#include "render.h"
#include "session.h"
#include "stop.h"
#include "why_judge.h"

/* Whether a process leaks, where, and who holds it: what a person asks first. */

#define WIDTH 100 /* columns, where the terminal has no fewer */
#define WIDTH_LEAST 60
/* A row that is further down than that is not worth a stop. */
#define HELD_ROWS_MOST 64

struct holders {
	struct pl_held_row *rows;
	size_t count;
	struct pl_error err;
};

struct asking {
	struct pl_session *session;
	struct pl_error *err; /* of the session */
	struct pl_why_certainty certainty;
	bool sure;
};

static enum pl_why_holding kind_of_holder(const struct pl_held_row *held)
{
	const char *path = held->held_by_count ? held->held_by[0].path : NULL;

	if (!path)
		return PL_WHY_NOT_SEEN;
	if (strcmp(path, PL_HELD_BY_GARBAGE) == 0)
		return PL_WHY_CYCLES;
	return strcmp(path, PL_HELD_BY_NATIVE) == 0 || strcmp(path, PL_HELD_BY_NONE) == 0 ? PL_WHY_BY_NATIVE : PL_WHY_HELD;
}

/* The blocks of the row, as long as the recorder knows them, and the heap at that moment. */
static int stop_for_holders(struct asking *asking, const struct pl_why *why, struct pl_held **held, struct pl_error *err)
{
	struct pl_session *session = asking->session;
	int code = pl_held_prepare(&session->targets, held, err);

	if (code == 0)
		code = pl_held_stop(*held, why->report->rows, why->row + 1, session->options->max_stop_ns, err);
	return code;
}

/* The process is let go before the graph is made, which takes longer than all else. */
static void ask_who_holds(struct asking *asking, struct holders *holders, struct pl_why *why)
{
	struct pl_held *held = NULL;
	bool asked = why->kind == PL_WHY_LEAK && why->row < HELD_ROWS_MOST && !asking->session->ended && !*pl_stop_flag();
	int code = asked ? stop_for_holders(asking, why, &held, &holders->err) : 0;

	(void)pl_session_finish(asking->session, asking->err);
	if (asked && code == 0)
		code = pl_held_find(held, &holders->rows, &holders->count, &holders->err);
	if (held)
		why->held_stop_ns = pl_held_stop_ns(held);
	pl_held_free(held);
	if (asked && code < 0) {
		why->holding = PL_WHY_REFUSED;
		why->refusal = holders->err.text;
	} else if (asked) {
		why->held = &holders->rows[why->row];
		why->holding = kind_of_holder(why->held);
	}
}

static int print(struct asking *asking, const struct pl_why *why)
{
	struct pl_session *session = asking->session;
	const struct pl_report_options form = {
		.color = pl_output_color(session->options, &session->output),
		.source_pid = pl_targets_living(&session->targets),
	};
	size_t width = pl_output_width(&session->output), length = 0;
	pl_autofree char *text = NULL;
	FILE *stream = open_memstream(&text, &length);
	int code;

	if (!stream)
		return -ENOMEM;
	if (!width || width > WIDTH)
		width = WIDTH;
	code = session->options->format == PL_FORMAT_JSON ?
		       pl_why_json(stream, why) :
		       pl_why_text(stream, why, &form, width < WIDTH_LEAST ? WIDTH_LEAST : width);
	if (fclose(stream) != 0 && code == 0)
		code = -ENOMEM;
	return code < 0 ? code : pl_session_print(session, text, length);
}

/* Python processes that it started: a server's, which do its work. */
static size_t count_workers(pid_t pid)
{
	pl_autofree pid_t *pids = NULL;
	size_t count = 0, workers = 0;

	if (pl_process_family(pid, &pids, &count) < 0)
		return 0;
	for (size_t i = 1; i < count; i++) {
		char version[32];
		struct pl_space *space;

		if (pl_space_of_process(pids[i], &space) < 0)
			continue;
		workers += pl_python_identify(space, version) >= 0;
		pl_space_close(space);
	}
	return workers;
}

static int answer(void *context, const struct pl_report *report)
{
	struct asking *asking = context;
	struct holders holders = {0};
	struct pl_why why;
	int code;

	pl_why_judge(report, &why);
	why.interval_ns = asking->session->options->interval_ns;
	why.children = asking->session->options->children;
	if (!why.children)
		why.workers = count_workers(report->facts.pid);
	if (why.kind == PL_WHY_LEAK)
		pl_why_find_cause(report, pl_targets_living(&asking->session->targets), &why);
	ask_who_holds(asking, &holders, &why);
	code = print(asking, &why);
	pl_held_rows_free(holders.rows, holders.count);
	return code;
}

static int is_it_sure(void *context, const struct pl_report *report)
{
	struct asking *asking = context;
	struct pl_why why;

	pl_why_judge(report, &why);
	asking->sure = pl_why_is_sure(&asking->certainty, &why);
	return 0;
}

static int use(struct asking *asking, const struct pl_snapshot *now, const struct pl_snapshot *before,
	int (*what)(void *context, const struct pl_report *report))
{
	const struct pl_render_use with = {what, asking, what == answer};

	return pl_session_use_report(asking->session, now, before, &with);
}

/* The windows, from the end of the first one on. *ret_now: the last snapshot; NULL: out of memory. */
static int record_windows(struct asking *asking, int64_t end, const struct pl_snapshot *before, struct pl_snapshot **ret_now,
	struct pl_error *err)
{
	struct pl_session *session = asking->session;
	int64_t interval = session->options->interval_ns;
	int code = 0;
	int64_t windows = 0;

	*ret_now = NULL;
	while (code == 0) {
		int64_t until = pl_now_ns() + interval;
		/* By number, or as time is left, none shorter than half of one. */
		bool counted = session->options->count < INT_MAX;
		bool last = counted ? ++windows == session->options->count : until > end - interval / 2;

		code = pl_session_record(session, last && !counted && until > end ? end : until, err);
		pl_snapshot_free(*ret_now);
		*ret_now = pl_session_snapshot(session);
		if (!*ret_now || last)
			break;
		if (code == 0)
			code = use(asking, *ret_now, before, is_it_sure);
		if (asking->sure)
			break;
	}
	return code;
}

/* What ends it early is no error: what is known by then is said. */
static bool is_end(int code)
{
	return code == 0 || code == -EINTR || code == -ESRCH || code == -ECANCELED;
}

static int record(struct asking *asking, struct pl_error *err)
{
	struct pl_session *session = asking->session;
	int64_t end = session->started_ns + session->options->duration_ns;
	struct pl_snapshot *before, *now = NULL;
	int code = pl_session_record(session, session->started_ns + session->options->interval_ns, err), printed;

	if (!is_end(code))
		return code;
	before = pl_session_snapshot(session);
	if (before && code == 0)
		code = record_windows(asking, end, before, &now, err);
	session->waits_for = NULL;
	if (is_end(code)) {
		printed = before ? use(asking, now ? now : before, before, answer) : -ENOMEM;
		if (printed < 0)
			code = pl_fail(err, printed, "the answer could not be written: %s", strerror(-printed));
	}
	pl_snapshot_free(now);
	pl_snapshot_free(before);
	return code;
}

static void announce(struct asking *asking)
{
	const struct pl_options *options = asking->session->options;
	char time[PL_SIZE_TEXT], window[PL_SIZE_TEXT];

	pl_format_duration(options->duration_ns, time);
	pl_format_duration(options->interval_ns, window);
	pl_log_note("process %d is watched for %s, in windows of %s, or until the answer is sure",
		(int)asking->session->targets.named, time, window);
	asking->session->waits_for = "watching";
	asking->session->waits_until = asking->session->started_ns + options->duration_ns;
}

int pl_command_why(const struct pl_options *given)
{
	struct pl_options options = *given;
	struct pl_session session;
	struct pl_error err = {0};
	struct asking asking = {.session = &session, .err = &err};

	options.group_by = PL_GROUP_CALLER;
	options.sort = PL_SORT_SIZE_DIFF;
	options.limit = 10; /* those that are judged are more */
	if (pl_session_open(&session, &options, &err) == 0) {
		announce(&asking);
		(void)record(&asking, &err);
	}
	return pl_session_close(&session, &err);
}
