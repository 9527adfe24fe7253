/* SPDX-License-Identifier: MIT */
#include "session.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "pyleak/cleanup.h"
#include "pyleak/hook.h"
#include "pyleak/log.h"
#include "pyleak/process.h"
#include "pyleak/trace.h"
#include "pyleak/units.h"

#define LEFTOVER_PATIENCE_NSEC (2 * PL_NSEC_PER_SEC)
#define CLAIM_PAUSE_NSEC (20 * PL_NSEC_PER_MSEC)
#define WRITE_PAUSE_NSEC (20 * PL_NSEC_PER_MSEC)

static volatile int stop_requested;

static void on_stop_signal(int signal)
{
	(void)signal;
	stop_requested = 1;
}

/* Without SA_RESTART: a wait must end. A reader of our output that goes away must not kill us while
 * hooks are planted. */
static void catch_signals(void)
{
	const struct sigaction stop = {.sa_handler = on_stop_signal};
	const struct sigaction ignore = {.sa_handler = SIG_IGN};
	struct sigaction before;
	sigset_t caught;

	(void)sigaction(SIGINT, &stop, NULL);
	(void)sigaction(SIGTERM, &stop, NULL);
	if (sigaction(SIGHUP, NULL, &before) == 0 && before.sa_handler != SIG_IGN) /* nohup */
		(void)sigaction(SIGHUP, &stop, NULL);
	(void)sigemptyset(&caught);
	(void)sigaddset(&caught, SIGINT);
	(void)sigaddset(&caught, SIGTERM);
	(void)sigaddset(&caught, SIGHUP);
	(void)sigprocmask(SIG_UNBLOCK, &caught, NULL);
	(void)sigaction(SIGPIPE, &ignore, NULL);
	/* While we are stopped, every thread that we have stopped, or that comes to a breakpoint, stands still. */
	(void)sigaction(SIGTSTP, &ignore, NULL);
	(void)sigaction(SIGTTIN, &ignore, NULL);
	(void)sigaction(SIGTTOU, &ignore, NULL);
}

static int check_process(pid_t pid, struct pl_process *process, struct pl_error *err)
{
	int code = pl_process_read(pid, process);

	if (code == -ESRCH)
		return pl_fail(err, code, "no process %d: see 'pyleak ps'", (int)pid);
	if (code < 0)
		return pl_fail(err, code, "process %d cannot be read: %s", (int)pid, strerror(-code));
	code = pl_process_may_trace(process, err);
	if (code == -EBUSY) {
		struct pl_error claimed = {0};

		/* Perhaps a guardian has it, which is done in a moment. */
		if (pl_session_claim(pid, &claimed) == 0) {
			*err = (struct pl_error){0};
			code = pl_process_may_trace(process, err);
		}
	}
	return code;
}

/* The guardian of a killed pyleak has it for a second. */
int pl_session_claim(pid_t pid, struct pl_error *err)
{
	const struct timespec pause = {.tv_nsec = CLAIM_PAUSE_NSEC};
	int64_t give_up = pl_now_ns() + LEFTOVER_PATIENCE_NSEC;
	int code;

	while ((code = pl_probe_claim(pid)) == -EBUSY && pl_now_ns() < give_up && !stop_requested)
		(void)nanosleep(&pause, NULL);
	if (code == -EBUSY)
		return pl_fail(err, code, "process %d is being recorded by another pyleak: end that one first", (int)pid);
	return code < 0 ? pl_fail(err, code, "process %d cannot be read: %s", (int)pid, strerror(-code)) : 0;
}

/* A probe that is there: one that was planted to stay is adopted (*ret_recording is set); what a
 * killed pyleak left behind, or a fork inherited, is in the way and goes. */
static int take_over(const struct pl_session *session, struct pl_recording **ret_recording, struct pl_error *err)
{
	pid_t pid = session->python->pid;
	struct pl_probe probe;
	bool found;
	int code = pl_probe_find(pid, &probe);

	if (code == 0 && pl_probe_is_kept(&probe) && session->options->engine == PL_ENGINE_INLINE) {
		/* If the pyleak that planted it was killed, its guardian may be about to remove it. */
		code = pl_session_claim(pid, err);
		if (code < 0)
			return code;
		code = pl_probe_find(pid, &probe);
		if (code == 0 && pl_probe_is_kept(&probe)) {
			code = pl_recording_adopt(session->python, &probe, ret_recording, err);
			pl_probe_unclaim(); /* there may be any number of readers */
			return code;
		}
	} else if (code == 0 && pl_probe_is_kept(&probe)) {
		return pl_fail(err, -EBUSY,
			"process %d is being recorded by a probe that was left in it: give --engine inline to read it, or "
			"remove it with 'pyleak detach %d'",
			(int)pid, (int)pid);
	}
	code = pl_session_claim(pid, err);
	if (code < 0)
		return code;
	code = pl_probe_detach(pid, LEFTOVER_PATIENCE_NSEC, &found, NULL, err);
	if (code == 0 && found)
		pl_log_note("removed a probe that was left behind in process %d", (int)pid);
	return code;
}

/* Hooks the process itself; the guardian is there first. */
static int plant(struct pl_session *session, uint64_t start_time, struct pl_error *err)
{
	const struct pl_options *options = session->options;
	const struct pl_recording_options recording = {
		.frames = options->frames,
		.sample = options->sample,
		.park = options->park,
		.keep = options->keep,
		.rss = pl_process_rss(session->python->pid),
	};
	int code = pl_guardian_start(session->python->pid, start_time);

	if (code < 0)
		return pl_fail(err, code, "the guardian process cannot be started: %s", strerror(-code));
	return options->engine == PL_ENGINE_INLINE ?
		       pl_recording_start_inline(session->python, &recording, &session->recording, err) :
		       pl_recording_start_breakpoint(session->python, &recording, &session->recording, err);
}

int pl_session_open(struct pl_session *session, const struct pl_options *options, struct pl_error *err)
{
	struct pl_process process = {0};
	pid_t pid;

	*session = (struct pl_session){.options = options};
	catch_signals();

	int code = pl_choose_process(options, &pid, err);

	if (code == 0)
		code = check_process(pid, &process, err);
	if (code == 0)
		code = pl_python_open(pid, &session->python, err);
	if (code == 0)
		code = pl_output_open(options, &session->output, err);
	if (code == 0)
		code = take_over(session, &session->recording, err);
	if (code == 0) {
		pl_log_note("process %d, Python %s: %s", (int)pid, session->python->version, process.command_line);
		session->adopted = session->recording != NULL;
		session->start_time = process.start_time;
		if (!session->adopted)
			code = plant(session, process.start_time, err);
	}
	if (code == 0) {
		pl_recording_facts(session->recording, &session->facts);
		session->started_ns = pl_now_ns();
	}
	/* Whatever failed failed for that. */
	if (code < 0 && process.start_time && !pl_process_is_alive(pid, process.start_time)) {
		*err = (struct pl_error){0};
		code = pl_fail(err, -ESRCH, "process %d ended before anything was recorded", (int)pid);
	}
	pl_process_free(&process);
	return code;
}

int pl_session_record(struct pl_session *session, int64_t until_ns, struct pl_error *err)
{
	int code = pl_recording_run(session->recording, until_ns, &stop_requested, err);

	if (code == -ESRCH) {
		pid_t pid = session->python->pid;

		session->ended = true;
		if (pl_process_is_alive(pid, session->start_time))
			pl_log_error("process %d runs another program now, or its probe was removed; what was recorded until "
				     "then follows",
				(int)pid);
		else
			pl_log_error("process %d ended while it was watched; what was recorded until then follows", (int)pid);
	}
	return code;
}

int pl_session_finish(struct pl_session *session, struct pl_error *err)
{
	session->finished = true;
	return session->recording ? pl_recording_finish(session->recording, err) : 0;
}

static void check_growth(struct pl_session *session, const struct pl_rows *rows, enum pl_report_kind kind)
{
	const struct pl_options *options = session->options;

	for (size_t i = 0; options->fail_above_set && i < rows->count; i++) {
		int64_t growth = kind == PL_REPORT_DIFF ? rows->items[i].size_diff : rows->items[i].size;

		if (growth > 0 && (uint64_t)growth > options->fail_above)
			session->exceeded = true;
	}
}

/* While a report waits for its reader (a pager, ^S on the terminal), the process must not wait for us at its
 * breakpoints. Once recording is over it is let go first. */
static bool go_on_recording(void *context)
{
	struct pl_session *session = context;

	if (!session->finished && pl_recording_run(session->recording, pl_now_ns() + WRITE_PAUSE_NSEC, &stop_requested,
					  &session->finish_error) == 0)
		return true;
	(void)pl_session_finish(session, &session->finish_error);
	return false;
}

int pl_session_report(struct pl_session *session, enum pl_report_kind kind, const struct pl_snapshot *now,
	const struct pl_snapshot *before)
{
	const struct pl_options *options = session->options;
	const struct pl_rows_options selection = {
		.group_by = options->group_by,
		.sort = options->sort,
		.include = options->include,
		.exclude = options->exclude,
		.python = options->python,
		.native = options->native,
	};
	const struct pl_report_options form = {
		.limit = options->limit,
		.color = pl_output_color(options, &session->output),
		.traceback = kind == PL_REPORT_TOP || options->group_by == PL_GROUP_TRACEBACK,
		.source_pid = session->ended ? 0 : session->python->pid,
	};
	struct pl_rows rows = {0};
	int code = pl_rows_make(now, before, &selection, &rows);

	if (code < 0)
		return code;
	check_growth(session, &rows, kind);

	const struct pl_report report = {
		.kind = kind,
		.pid = session->python->pid,
		.python = session->python->version,
		.engine = session->facts.engine,
		.started = session->facts.since,
		.window_ns = now->taken_ns - (before ? before->taken_ns : session->facts.since_ns),
		.stop_ns = pl_recording_stop_ns(session->recording),
		.frames = session->facts.frames,
		.group_by = options->group_by,
		.sort = options->sort,
		.sample = session->facts.sample,
		.rss_before = before ? before->rss : session->facts.rss,
		.rss_after = now->rss,
		.lost_events = now->lost_events - (before ? before->lost_events : 0),
		.lost_sites = now->lost_sites - (before ? before->lost_sites : 0),
		.sites = pl_recording_sites(session->recording),
		.rows = &rows,
	};

	pl_autofree char *text = NULL;
	size_t length = 0;
	FILE *stream = open_memstream(&text, &length);

	code = !stream ? -ENOMEM :
	       options->format == PL_FORMAT_JSON ? pl_report_json(stream, &report, &form) :
						   pl_report_text(stream, &report, &form);
	if (stream && fclose(stream) != 0 && code == 0)
		code = -ENOMEM;
	pl_rows_free(&rows);
	return code < 0 ? code : pl_output_write(&session->output, text, length, go_on_recording, session);
}

int pl_session_close(struct pl_session *session, struct pl_error *err)
{
	if (!err->code)
		*err = session->finish_error;

	int code = err->code;

	if (pl_session_finish(session, err) < 0)
		code = err->code;
	pl_guardian_dismiss();
	pl_recording_free(session->recording);
	pl_python_close(session->python);
	if (pl_output_close(&session->output, err) < 0)
		code = err->code;
	pl_log_debug("%u ptrace steps", pl_trace_steps());
	if (code < 0)
		pl_log_error("%s", err->text[0] ? err->text : strerror(-code));
	if (code < 0 || session->ended)
		return PL_EXIT_FAILED;
	return session->exceeded ? PL_EXIT_GREW : PL_EXIT_DONE;
}
