/* SPDX-License-Identifier: MIT */
#include "session.h"

#include <errno.h>
#include <limits.h>
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
#include "stop.h"

#define WRITE_PAUSE_NSEC (20 * PL_NSEC_PER_MSEC)
/* As often as this, requests are answered. */
#define STEP_NSEC (20 * PL_NSEC_PER_MSEC)

static char *read_source(void *context, const char *filename, int line)
{
	struct pl_session *session = context;

	pid_t pid = pl_targets_living(&session->targets);

	return pid ? pl_source_line(pid, filename, line) : NULL;
}

static int start_writer(struct pl_session *session, struct pl_error *err)
{
	session->writer = pl_recording_writer_new(&session->targets.facts, read_source, session);
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

/* With a server, or where something is to be looked at, in steps. */
static int run(struct pl_session *session, int64_t until_ns, struct pl_error *err)
{
	bool steps = session->server || session->look;

	for (;;) {
		int64_t now = pl_now_ns(), step = steps && until_ns - now > STEP_NSEC ? now + STEP_NSEC : until_ns;
		int code = pl_targets_run(&session->targets, step, err);

		/* Whoever calls us may take steps that are shorter than ours: the live view does. */
		if (code == 0) {
			pl_serve(session->server);
			if (session->look)
				session->look(session->look_context);
		}
		if (code < 0 || step == until_ns)
			return code;
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
	return pl_targets_finish(&session->targets, session->options, err);
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
	if (code < 0)
		(void)pl_fail(&session->finish_error, code, "the recording could not be written: %s", strerror(-code));
}

struct pl_snapshot *pl_session_glance(struct pl_session *session)
{
	struct pl_engine_state state;
	struct pl_snapshot *snapshot;

	pl_targets_update(&session->targets, &state);
	snapshot = pl_snapshot_take(session->sites);
	if (!snapshot)
		return NULL;
	snapshot->rss = state.rss;
	snapshot->losses = state.losses;
	return snapshot;
}

struct pl_snapshot *pl_session_snapshot(struct pl_session *session)
{
	struct pl_snapshot *snapshot = pl_session_glance(session);

	if (!snapshot)
		return NULL;
	pl_targets_account(&session->targets, &snapshot->account);
	if (snapshot->account.taken)
		snapshot->rss = snapshot->account.rss;
	if (pl_history_add(session->history, snapshot) < 0) {
		pl_snapshot_free(snapshot);
		return NULL;
	}
	if (session->writer)
		write_down(session, snapshot);
	return snapshot;
}

/* The report in the format of `options`. */
static int make_document(struct pl_session *session, const struct pl_options *options, enum pl_report_kind kind,
	const struct pl_snapshot *now, const struct pl_snapshot *before, bool allocated, char **ret_text,
	size_t *ret_length, bool *ret_exceeded)
{
	struct pl_targets *targets = &session->targets;
	const struct pl_report_options form = {
		.limit = options->limit,
		.allocated = allocated,
		.color = pl_output_color(options, &session->output),
		.traceback = kind == PL_REPORT_TOP || options->group_by == PL_GROUP_TRACEBACK,
		.source_pid = pl_targets_living(targets),
	};
	char host[HOST_NAME_MAX + 1] = "";
	struct pl_report report = {
		.kind = kind,
		.facts = targets->facts,
		.stop_ns = pl_targets_stop_ns(targets),
		.per_process = options->per_process,
		.host = host,
	};
	pl_autofree pid_t *pids = pl_targets_since(targets, before ? before->taken_ns : 0, &report.pid_count);
	FILE *stream = open_memstream(ret_text, ret_length);

	if (gethostname(host, sizeof(host) - 1) < 0 || !*host)
		report.host = NULL;
	report.pids = pids;
	report.collector_before = session->collector;
	if (!targets->family && !targets->lead.ended)
		pl_collector_read(targets->lead.python, &report.collector);

	int code = stream && pids ?
			   pl_render(options, &report, &form, now, before, session->history, stream, ret_exceeded) :
			   -ENOMEM;

	if (stream && fclose(stream) != 0 && code == 0)
		code = -ENOMEM;
	return code;
}

int pl_session_report(struct pl_session *session, enum pl_report_kind kind, const struct pl_snapshot *now,
	const struct pl_snapshot *before)
{
	pl_autofree char *text = NULL;
	size_t length = 0;
	bool exceeded = false;
	int code = make_document(session, session->options, kind, now, before, false, &text, &length, &exceeded);

	session->exceeded |= exceeded;
	return code < 0 ? code : pl_output_write(&session->output, text, length, go_on_recording, session);
}

int pl_session_end(struct pl_session *session, struct pl_error *err)
{
	struct pl_snapshot *now = pl_session_snapshot(session);
	int code;

	(void)pl_session_finish(session, err);
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
	code = now ? make_document(session, &options, mark ? PL_REPORT_DIFF : PL_REPORT_TOP, now, mark,
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

	return session->options->listen ? pl_serve_open(session->options->listen, &source, &session->server, err) : 0;
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
	}
	if (code == 0)
		code = start_server(session, err);
	if (code == 0)
		code = pl_targets_start(&session->targets, options, session->sites, err);
	if (code == 0)
		pl_collector_read(session->targets.lead.python, &session->collector);
	if (code == 0 && options->format == PL_FORMAT_RECORDING)
		code = start_writer(session, err);
	if (code == 0) {
		session->started_ns = pl_now_ns();
		pl_log_debug("recording, after %.2f s of CPU time", (double)clock() / CLOCKS_PER_SEC);
	}
	return code;
}

int pl_session_open(struct pl_session *session, const struct pl_options *options, struct pl_error *err)
{
	pid_t pid;
	int code;

	*session = (struct pl_session){.options = options};
	pl_stop_catch_signals();
	code = pl_choose_process(options, &pid, err);
	return code == 0 ? open_at(session, options, pid, err) : code;
}

int pl_session_open_launched(struct pl_session *session, const struct pl_options *options, pid_t root, struct pl_error *err)
{
	*session = (struct pl_session){.options = options, .launched = true};
	return open_at(session, options, root, err);
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
	pl_history_free(session->history);
	pl_recording_writer_free(session->writer);
	pl_sites_free(session->sites);
	if (pl_output_close(&session->output, err) < 0)
		code = err->code;
	pl_log_debug("%u ptrace steps", pl_trace_steps());
	if (code < 0)
		pl_log_error("%s", err->text[0] ? err->text : strerror(-code));
	if (code < 0 || (session->ended && !session->launched))
		return PL_EXIT_FAILED;
	return session->exceeded ? PL_EXIT_GREW : PL_EXIT_DONE;
}
