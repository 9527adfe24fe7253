/* SPDX-License-Identifier: MIT */
#include "session.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "pyleak/cleanup.h"
#include "pyleak/hook.h"
#include "pyleak/log.h"
#include "pyleak/process.h"
#include "pyleak/recording_file.h"
#include "pyleak/serve.h"
#include "pyleak/trace.h"
#include "pyleak/units.h"
#include "render.h"
#include "row_order.h"
#include "session_private.h"
#include "stop.h"

#define WRITE_PAUSE_NSEC (20 * PL_NSEC_PER_MSEC)
/* As often as this, requests are answered. */
#define STEP_NSEC (20 * PL_NSEC_PER_MSEC)

/* Of formats that have all rows: so many are asked about. */
enum { HELD_ROWS_MAX = 100 };

static char *read_source(void *context, const char *filename, int line)
{
	struct pl_session *session = context;

	pid_t pid = pl_targets_living(&session->targets);

	return pid ? pl_source_line(pid, filename, line) : NULL;
}

static int find_definition(void *context, const char *filename, const char *function, int line)
{
	struct pl_session *session = context;

	pid_t pid = pl_targets_living(&session->targets);

	return pid ? pl_source_definition(pid, filename, function, line) : 0;
}

static int start_writer(struct pl_session *session, struct pl_error *err)
{
	session->writer = pl_recording_writer_new(&session->targets.facts, read_source, session);
	if (session->writer)
		pl_recording_writer_set_definitions(session->writer, find_definition);
	return session->writer ? 0 : pl_fail(err, -ENOMEM, "out of memory");
}

static void explain_end(const struct pl_session *session)
{
	const struct pl_target *lead = &session->targets.lead;

	if (session->launched)
		return;
	if (session->targets.family)
		pl_log_error("process %d and its children ended while they were watched; what was recorded until then follows",
			(int)session->targets.named);
	else if (pl_process_is_alive(lead->pid, lead->start_time))
		pl_log_error("process %d runs another program now, or its probe was removed; what was recorded until then "
			     "follows",
			(int)lead->pid);
	else
		pl_log_error("process %d ended while it was watched; what was recorded until then follows", (int)lead->pid);
}

/* Once for each second. *shown: what was said last; 0: nothing yet. */
static void count_down(const struct pl_session *session, int64_t until_ns, int64_t *shown)
{
	int64_t now = pl_now_ns(), ns = until_ns == INT64_MAX ? now - session->started_ns : until_ns - now;
	int64_t seconds = ns / PL_NSEC_PER_SEC + (until_ns != INT64_MAX) + 1;
	char time[PL_SIZE_TEXT], text[120];

	if (!session->waits_for || seconds == *shown)
		return;
	*shown = seconds;
	seconds--;
	if (seconds < 60)
		(void)snprintf(time, sizeof(time), "%" PRId64 " s", seconds);
	else
		pl_format_duration(seconds * PL_NSEC_PER_SEC, time);
	(void)snprintf(text, sizeof(text), "%s: %s %s; ^C ends it", session->waits_for, time,
		until_ns == INT64_MAX ? "so far" : "left");
	pl_log_progress(text);
}

/* With a server, or where something is to be looked at, in steps. */
static int run(struct pl_session *session, int64_t until_ns, struct pl_error *err)
{
	bool steps = session->server || session->look || session->waits_for;
	int64_t shown = 0;

	for (;;) {
		int64_t now = pl_now_ns(), step = steps && until_ns - now > STEP_NSEC ? now + STEP_NSEC : until_ns;
		int code = pl_targets_run(&session->targets, step, err);

		/* Whoever calls us may take steps that are shorter than ours: the live view does. */
		if (code == 0) {
			count_down(session, session->waits_until ? session->waits_until : until_ns, &shown);
			pl_serve(session->server);
			if (session->look)
				session->look(session->look_context);
		}
		if (code < 0 || step == until_ns) {
			pl_log_progress(NULL);
			return code;
		}
	}
}

int pl_session_record(struct pl_session *session, int64_t until_ns, struct pl_error *err)
{
	/* What could not be written down cannot be made up for. */
	int code = session->finish_error.code ? session->finish_error.code : run(session, until_ns, err);

	if (code == -ESRCH) {
		session->ended = true;
		explain_end(session);
	}
	return code;
}

int pl_session_finish(struct pl_session *session, struct pl_error *err)
{
	int code;

	pl_trace_pace_begin();
	code = pl_targets_finish(&session->targets, session->options, err);
	pl_trace_pace_end();
	return code;
}

/* While a report waits for its reader (a pager, ^S on the terminal), the process must not wait for us at its
 * breakpoints. Once recording is over it is let go first. */
static bool go_on_recording(void *context)
{
	struct pl_session *session = context;

	if (!session->targets.finished &&
		pl_targets_run(&session->targets, pl_now_ns() + WRITE_PAUSE_NSEC, &session->finish_error) == 0)
		return true;
	(void)pl_session_finish(session, &session->finish_error);
	return false;
}

/* One write, so that no other than the last snapshot can be cut. */
static void write_down(struct pl_session *session, struct pl_snapshot *snapshot)
{
	pl_autofree void *bytes = NULL;
	size_t size = 0;
	int code;

	if (session->finish_error.code)
		return;
	code = pl_recording_writer_add(
		session->writer, snapshot, pl_targets_stop_ns(&session->targets), &bytes, &size);
	if (code == 0)
		code = pl_output_write(&session->output, bytes, size, go_on_recording, session);
	session->output.snapshots += code == 0;
	session->output.length_ns = snapshot->taken_ns - session->targets.facts.since_ns;
	if (code < 0)
		(void)pl_fail(&session->finish_error, code, "the recording could not be written: %s", strerror(-code));
}

/* It is known how often, not when: what was noticed from one snapshot to the next. */
static void look_at_collector(struct pl_session *session)
{
	struct pl_collector now = {0};

	if (!session->targets.family && !session->targets.lead.ended && session->targets.lead.python)
		pl_collector_read(session->targets.lead.python, &now);
	if (!now.counted)
		return;
	if (now.full != session->full_seen && now.full != session->collector.full)
		session->last_full_ns = pl_now_ns();
	session->full_seen = now.full;
}

static struct pl_snapshot *take(struct pl_session *session, bool whole)
{
	struct pl_engine_state state;
	struct pl_account account = {0};
	struct pl_touched touched = {0};
	struct pl_snapshot *snapshot;

	pl_targets_update(&session->targets, &state);
	look_at_collector(session);
	touched.site_count = whole && !session->targets.facts.sample && !state.losses.sampling ? pl_sites_count(session->sites) : 0;
	if (touched.site_count)
		touched.by_site = calloc(touched.site_count, sizeof(*touched.by_site));
	/* Before the totals are copied: of some sites it makes them. */
	if (whole)
		pl_targets_account(&session->targets, &touched, &account);
	snapshot = pl_snapshot_take(session->sites);
	if (!snapshot) {
		free(touched.by_site);
		return NULL;
	}
	snapshot->untouched = touched.by_site;
	snapshot->untouched_count = touched.site_count;
	snapshot->rss = account.taken ? account.rss : state.rss;
	snapshot->losses = state.losses;
	snapshot->account = account;
	if (account.taken)
		snapshot->places = pl_targets_places(&session->targets, &account);
	return snapshot;
}

struct pl_snapshot *pl_session_glance(struct pl_session *session)
{
	return take(session, false);
}

struct pl_snapshot *pl_session_snapshot(struct pl_session *session)
{
	struct pl_snapshot *snapshot = take(session, true);

	if (!snapshot)
		return NULL;
	if (pl_history_add(session->history, snapshot) < 0) {
		pl_snapshot_free(snapshot);
		return NULL;
	}
	if (session->writer)
		write_down(session, snapshot);
	return snapshot;
}

static void keep_types(struct pl_session *session, const struct pl_snapshot *now, const struct pl_snapshot *before)
{
	if (!now || session->targets.finished)
		return;
	free(session->types);
	session->types =
		pl_row_types_of_snapshots(&session->targets, session->options, session->history, now, before, &session->type_count);
}

/* Rows as the report will have them. */
static int stop_and_copy(struct pl_session *session, struct pl_held *held, const struct pl_snapshot *now,
	const struct pl_snapshot *before, struct pl_error *err)
{
	size_t most = session->options->limit && session->options->limit < HELD_ROWS_MAX ? session->options->limit : HELD_ROWS_MAX;
	struct pl_rows rows = {0};
	int code = pl_rows_in_order(session->options, session->history, now, before, &rows);

	if (code < 0)
		(void)pl_fail(err, code, "out of memory");
	else
		code = pl_held_stop(held, &rows, most, session->options->max_stop_ns, err);
	pl_rows_free(&rows);
	return code;
}

struct pl_snapshot *pl_session_last_snapshot(struct pl_session *session, const struct pl_snapshot *before, struct pl_error *err)
{
	struct pl_held *held = NULL;
	struct pl_snapshot *now;
	struct pl_error failure = {0};
	bool wanted = session->options->holders && !session->ended;
	int code = wanted ? pl_held_prepare(&session->targets, &held, &failure) : 0;

	now = pl_session_snapshot(session);
	if (held && now)
		code = stop_and_copy(session, held, now, before, &failure);
	keep_types(session, now, before);
	(void)pl_session_finish(session, err);
	if (held && now && code == 0)
		code = pl_held_find(held, &session->held, &session->held_count, &failure);
	session->held_stop_ns = pl_held_stop_ns(held);
	pl_held_free(held);
	session->held_failed = code < 0;
	if (code < 0)
		pl_log_error("%s", failure.text);
	else if (session->options->holders && session->ended && session->launched)
		pl_log_warning("the program has ended: who kept its blocks is not known any more; --duration shows it while it runs");
	return now;
}

int pl_session_print(struct pl_session *session, const char *text, size_t length)
{
	return pl_output_write(&session->output, text, length, go_on_recording, session);
}

int pl_session_report(struct pl_session *session, enum pl_report_kind kind, const struct pl_snapshot *now,
	const struct pl_snapshot *before)
{
	pl_autofree char *text = NULL;
	size_t length = 0;
	bool exceeded = false;
	int code;

	pl_trace_pace_begin();
	code = session_document(session, session->options, kind, now, before, false, &text, &length, &exceeded);
	pl_trace_pace_end();
	session->exceeded |= exceeded;
	return code < 0 ? code : pl_session_print(session, text, length);
}

int pl_session_end(struct pl_session *session, struct pl_error *err)
{
	struct pl_snapshot *now = pl_session_last_snapshot(session, NULL, err);
	int code;

	session->last = true;
	code = now ? pl_session_report(session, PL_REPORT_TOP, now, NULL) : -ENOMEM;
	pl_snapshot_free(now);
	return code < 0 ? pl_fail(err, code, "the report could not be written: %s", strerror(-code)) : 0;
}

int pl_session_take_snapshots(struct pl_session *session, int64_t end, struct pl_error *err)
{
	int64_t interval = session->options->interval_ns, until = pl_now_ns();

	for (;;) {
		int code = pl_session_record(session, until, err);

		if (code < 0 || until == end)
			return code;
		pl_snapshot_free(pl_session_snapshot(session));
		until = pl_now_ns();
		until = until < end - interval ? until + interval : end;
	}
}

static const enum pl_format page_formats[PL_PAGES] = {
	[PL_PAGE_METRICS] = PL_FORMAT_OPENMETRICS,
	[PL_PAGE_HEAP] = PL_FORMAT_PPROF,
	[PL_PAGE_ALLOCS] = PL_FORMAT_PPROF,
	[PL_PAGE_HTML] = PL_FORMAT_HTML,
	[PL_PAGE_JSON] = PL_FORMAT_JSON,
};

/* For who asks over HTTP. A document that is the whole has all rows, whatever those of the metrics are. */
static char *make_page(void *context, enum pl_page page, const void *mark, size_t *ret_length)
{
	struct pl_session *session = context;
	struct pl_options options = *session->options;
	struct pl_snapshot *now = pl_session_glance(session);
	char *text = NULL;
	bool exceeded;
	int code;

	options.format = page_formats[page];
	if (page != PL_PAGE_METRICS)
		options.limit = 0;
	if (options.sort == PL_SORT_SIZE_DIFF || options.sort == PL_SORT_COUNT_DIFF)
		options.sort = PL_SORT_SIZE;
	code = now ? session_document(session, &options, mark ? PL_REPORT_DIFF : PL_REPORT_TOP, now, mark,
			     page == PL_PAGE_ALLOCS, &text, ret_length, &exceeded)
		   : -ENOMEM;
	pl_snapshot_free(now);
	if (code == 0)
		return text;
	free(text);
	return NULL;
}

static void *take_mark(void *context)
{
	return pl_session_glance(context);
}

static void free_mark(void *mark)
{
	pl_snapshot_free(mark);
}

static int start_server(struct pl_session *session, struct pl_error *err)
{
	const struct pl_serve_source source = {session, make_page, take_mark, free_mark};

	const struct pl_options *options = session->options;

	return options->listen ? pl_serve_open(options->listen, options->listen_token, &source, &session->server, err) : 0;
}

/* Once the lead is hooked. */
static int begin(struct pl_session *session, struct pl_error *err)
{
	int code = 0;

	pl_collector_read(session->targets.lead.python, &session->collector);
	session->places = pl_targets_places_before(&session->targets);
	if (session->options->format == PL_FORMAT_RECORDING)
		code = start_writer(session, err);
	if (code == 0) {
		session->started_ns = pl_now_ns();
		pl_log_debug("recording, after %.2f s of CPU time", (double)clock() / CLOCKS_PER_SEC);
	}
	return code;
}

/* From the process that is meant on. */
static int open_at(struct pl_session *session, const struct pl_options *options, pid_t pid, struct pl_error *err)
{
	int code = pl_targets_check(&session->targets, options, pid, err);

	if (code == 0)
		code = pl_output_open(options, &session->output, err);
	if (code == 0) {
		session->sites = pl_sites_new();
		session->history = pl_history_new();
		if (!session->sites || !session->history)
			code = pl_fail(err, -ENOMEM, "out of memory");
		else
			pl_sites_set_libraries(session->sites, options->exclude);
	}
	if (code == 0)
		code = start_server(session, err);
	if (code == 0)
		code = pl_targets_start(&session->targets, options, session->sites, err);
	return code == 0 ? begin(session, err) : code;
}

int pl_session_open(struct pl_session *session, const struct pl_options *options, struct pl_error *err)
{
	pid_t pid;
	int code;

	*session = (struct pl_session){.options = options};
	pl_stop_catch_signals();
	pl_trace_pace_begin();
	code = pl_choose_process(options, &pid, err);
	code = code == 0 ? open_at(session, options, pid, err) : code;
	pl_trace_pace_end();
	return code;
}

int pl_session_open_launched(struct pl_session *session, const struct pl_options *options, pid_t root, struct pl_error *err)
{
	*session = (struct pl_session){.options = options, .launched = true};
	return open_at(session, options, root, err);
}

int pl_session_go_on(struct pl_session *session, pid_t pid, struct pl_error *err)
{
	int code;

	session->ended = false;
	code = pl_targets_go_on(&session->targets, session->options, pid, session->sites, err);
	return code == 0 && !session->started_ns ? begin(session, err) : code;
}

int pl_session_close(struct pl_session *session, struct pl_error *err)
{
	if (!err->code)
		*err = session->finish_error;

	int code = err->code;

	if (pl_session_finish(session, err) < 0)
		code = err->code;
	pl_serve_close(session->server);
	pl_guardian_dismiss();
	pl_targets_close(&session->targets);
	pl_held_rows_free(session->held, session->held_count);
	pl_history_free(session->history);
	pl_recording_writer_free(session->writer);
	pl_sites_free(session->sites);
	free(session->types);
	if (session->places)
		pl_places_free(session->places);
	free(session->places);
	if (pl_output_close(&session->output, err) < 0)
		code = err->code;
	pl_log_debug("%u ptrace steps", pl_trace_steps());
	if (code < 0)
		pl_log_error("%s", err->text[0] ? err->text : strerror(-code));
	if (code < 0 || session->held_failed || (session->ended && !session->launched))
		return PL_EXIT_FAILED;
	return session->exceeded ? PL_EXIT_GREW : PL_EXIT_DONE;
}
