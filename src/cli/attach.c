/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "pyleak/live.h"
#include "pyleak/log.h"
#include "pyleak/process.h"
#include "pyleak/units.h"
#include "held_view.h"
#include "render.h"
#include "row_order.h"
#include "session.h"

/* A person looks at the screen from the first moment on. */
#define FIRST_VIEW_NSEC (150 * PL_NSEC_PER_MSEC)
#define REFRESH_NSEC PL_NSEC_PER_SEC
/* Keys are looked at as often as this. */
#define LOOK_NSEC (20 * PL_NSEC_PER_MSEC)
/* Of snapshots: to count the pages of the tables takes longer than to read what is in them. */
#define LOOK_AROUND_EVERY 10

/* When the process started, on the clock of pl_now_ns(). */
static int64_t started_ns(uint64_t start_time)
{
	uint64_t ticks_per_second = (uint64_t)sysconf(_SC_CLK_TCK);
	struct timespec boot;

	(void)clock_gettime(CLOCK_BOOTTIME, &boot);
	return pl_now_ns() - ((int64_t)boot.tv_sec * PL_NSEC_PER_SEC + boot.tv_nsec) +
	       (int64_t)(start_time * PL_NSEC_PER_SEC / ticks_per_second);
}

static void look_at_row(void *context, const struct pl_sites *sites, const struct pl_row *row, enum pl_group group_by,
	struct pl_row_types *ret)
{
	pl_row_types_of_row(context, sites, row, group_by, ret);
}

/* -ENOTTY: not on this output. */
static int open_view(struct pl_session *session, const char *command, struct pl_live **ret, struct pl_error *err)
{
	const struct pl_options *options = session->options;
	const struct pl_live_facts facts = {
		.recording = session->targets.facts,
		.command = command,
		.process_ns = started_ns(session->targets.lead.start_time),
		.adopted = session->targets.lead.adopted,
	};
	const struct pl_live_options view = {
		.rows = pl_rows_wanted(options),
		.look_at_row = look_at_row,
		.look_context = (void *)&session->targets,
		.interval_ns = options->interval_ns,
		.color = pl_output_color(options, &session->output),
		.holders = options->engine == PL_ENGINE_INLINE,
		/* A breakpoint waits for us. */
		.suspend = options->engine == PL_ENGINE_INLINE,
	};

	if (options->format != PL_FORMAT_TEXT || session->output.path)
		return -ENOTTY;
	return pl_live_open(&facts, &view, ret, err);
}

static void look_at_collector(const struct pl_session *session, struct pl_live_state *state)
{
	const struct pl_target *lead = &session->targets.lead;
	struct pl_collector now = {0};

	if (!session->targets.family && !lead->ended)
		pl_collector_read(lead->python, &now);
	state->collector_off = now.known && (!now.enabled || (now.limited && !now.thresholds[0]));
	state->collector_counted = now.counted && session->collector.counted;
	state->full = now.full - session->collector.full;
}

static void look_around(struct pl_session *session, struct pl_live_state *state, uint64_t round)
{
	struct pl_targets *targets = &session->targets;

	state->stop_ns = pl_targets_stop_ns(targets);
	state->source_pid = pl_targets_living(targets);
	look_at_collector(session, state);
	state->processes = 0;
	for (size_t i = 0; i < pl_targets_count(targets); i++)
		state->processes += !pl_targets_at(targets, i)->ended;
	if (round % LOOK_AROUND_EVERY != 0)
		return;
	state->memory = pl_targets_memory(targets);
	if (!state->source_pid || pl_headroom_read("", state->source_pid, &state->headroom) < 0)
		state->headroom = (struct pl_headroom){0};
}

static int update(struct pl_session *session, struct pl_live *live, struct pl_live_state *state, uint64_t round,
	struct pl_error *err)
{
	struct pl_snapshot *now = pl_session_glance(session);

	look_around(session, state, round);
	if (!now || pl_live_update(live, now, state) < 0)
		return pl_fail(err, -ENOMEM, "out of memory");
	return 0;
}

/* Until the end, or until the user has seen enough. */
static int show(struct pl_session *session, struct pl_live *live, struct held_view *held, int64_t end, struct pl_error *err)
{
	int64_t refresh = session->options->interval_ns < REFRESH_NSEC ? session->options->interval_ns : REFRESH_NSEC;
	int64_t now = pl_now_ns(), next = now + FIRST_VIEW_NSEC;
	struct pl_live_state state = {0};
	uint64_t round = 0;
	int code = 0;

	while (code == 0 && now < end) {
		int64_t until = now + LOOK_NSEC < end ? now + LOOK_NSEC : end;

		code = pl_session_record(session, until, err);
		if (code == 0 && !pl_live_look(live))
			break;
		if (code == 0 && held)
			held_view_look(held, live);
		now = pl_now_ns();
		if (code == 0 && now >= next) {
			code = update(session, live, &state, round++, err);
			next = now + refresh;
		}
	}
	return code;
}

/* The report that follows is about what was looked at last; it has no differences. */
static void take_selection(const struct pl_live *live, struct pl_options *options)
{
	enum pl_sort sort;

	pl_live_selection(live, &options->group_by, &sort);
	if (sort == PL_SORT_SIZE || sort == PL_SORT_COUNT || sort == PL_SORT_AVERAGE || sort == PL_SORT_CHURN)
		options->sort = sort;
}

/* What was judged on the screen is judged so in the report. */
static void take_history(struct pl_session *session, struct pl_live *live)
{
	struct pl_history *history = pl_live_take_history(live);

	if (!history)
		return;
	pl_history_free(session->history);
	session->history = history;
}

static int record(struct pl_session *session, struct pl_options *options, struct held_view *held, struct pl_error *err)
{
	int64_t end = options->duration_ns ? session->started_ns + options->duration_ns : INT64_MAX;
	struct pl_process process = {0};
	struct pl_live *live = NULL;
	int code;

	session->waits_for = "recording";
	session->waits_until = end;
	if (pl_report_format(options->format)->snapshots)
		return pl_session_take_snapshots(session, end, err);
	code = pl_process_read(session->targets.lead.pid, &process);
	if (code == 0)
		code = open_view(session, process.command_line, &live, err);
	if (code == -ENOTTY || code == -ESRCH)
		code = pl_session_record(session, end, err);
	else if (code == 0 && !(session->waits_for = NULL))
		code = show(session, live, held, end, err);
	if (live) {
		take_selection(live, options);
		take_history(session, live);
	}
	pl_live_close(live);
	pl_process_free(&process);
	return code;
}

static void note_kept(const struct pl_targets *targets, bool children)
{
	int pid = (int)targets->named;

	if (children)
		pl_log_note("%zu processes are being recorded; 'pyleak diff %d --children' reads their probes, 'pyleak detach %d "
			    "--children' removes them",
			pl_targets_count(targets), pid, pid);
	else
		pl_log_note("process %d is being recorded%s; 'pyleak diff %d' reads the probe, 'pyleak detach %d' removes it", pid,
			targets->lead.adopted ? " since before" : "", pid, pid);
}

int pl_command_attach(const struct pl_options *given)
{
	struct pl_options options = *given;
	struct held_view *held = NULL;
	struct pl_session session;
	struct pl_error err = {0};

	if (pl_session_open(&session, &options, &err) == 0 && !options.keep) {
		int code;

		held = held_view_new(&session.targets, options.max_stop_ns);
		code = record(&session, &options, held, &err);
		if (code == 0 || code == -EINTR || code == -ESRCH || code == -ECANCELED)
			(void)pl_session_end(&session, &err);
	}
	if (options.keep && session.targets.lead.engine)
		note_kept(&session.targets, options.children);
	held_view_free(held);
	return pl_session_close(&session, &err);
}
