/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pyleak/headroom.h"
#include "pyleak/hook.h"
#include "pyleak/launch.h"
#include "pyleak/log.h"
#include "pyleak/maps.h"
#include "pyleak/units.h"
#include "session.h"
#include "starting.h"
#include "stop.h"

#define LOOK_PAUSE_NSEC (20 * PL_NSEC_PER_MSEC)

/* The program that was started, as its parent sees it. */
struct program {
	struct pl_launch *launch;
	bool ended;
	int status; /* of waitpid() */
	struct pl_headroom before; /* of our own cgroup, which is the program's */
	uint64_t stack; /* of the Python that is recorded: where it ends, by chance, while it runs this program; 0: not known */
};

/* ^Z stops us with it: the shell waits for us. Whoever continues us continues all of the terminal's group. */
static void look_at_program(void *context)
{
	struct program *program = context;
	int stop_signal;

	if (program->ended)
		return;
	program->ended = pl_launch_ended(program->launch, &program->status, &stop_signal);
	if (program->ended)
		pl_stop_program_ended();
	else if (stop_signal == SIGTSTP)
		(void)raise(SIGSTOP);
}

static void wait_for(struct program *program)
{
	const struct timespec pause = {.tv_nsec = LOOK_PAUSE_NSEC};

	for (look_at_program(program); !program->ended; look_at_program(program))
		(void)nanosleep(&pause, NULL);
}

/* Else it looks as if somebody had ended it. */
static void explain_kill(const struct program *program)
{
	struct pl_headroom now;
	char limit[PL_SIZE_TEXT];

	if (!WIFSIGNALED(program->status) || WTERMSIG(program->status) != SIGKILL || pl_headroom_read("", getpid(), &now) < 0 ||
		now.kills <= program->before.kills)
		return;
	pl_format_size((int64_t)now.limit, false, limit);
	pl_log_error("the kernel has killed process %d for want of memory (oom_kill): %s limit is %s", (int)pl_launch_pid(program->launch),
		now.cgroup ? "its cgroup's" : "the machine's", limit);
}

static int status_of(const struct program *program)
{
	return WIFSIGNALED(program->status) ? 128 + WTERMSIG(program->status) : WEXITSTATUS(program->status);
}

static uint64_t stack_of(pid_t pid)
{
	struct pl_maps maps;
	uint64_t end = 0;

	if (pl_maps_read(pid, &maps) == 0)
		for (size_t i = 0; i < maps.count; i++)
			if (strcmp(maps.items[i].path, "[stack]") == 0)
				end = maps.items[i].end;
	pl_maps_free(&maps);
	return end;
}

/* The next Python of a process that has begun another program, held; 0 or -errno: it goes on by itself. */
static int follow_again(struct program *program, bool force, pid_t *pid)
{
	struct starting *starting = starting_new(force);
	int code = starting ? pl_launch_again(program->launch, *pid) : -ENOMEM;

	if (code == 0)
		code = pl_launch_follow(program->launch, starting_ask, starting, pid);
	starting_free(starting);
	/* While it is held: it may begin the next one as soon as it is not. */
	if (code == 0)
		program->stack = stack_of(*pid);
	return code;
}

/* A Python that has begun another program is one that prepares it (ddtrace-run, poetry run): if that is a Python too, it is
 * the one that is meant. It may have begun it before the first was hooked. False, without an error: it is none, or the
 * process has ended. */
static bool goes_on(struct pl_session *session, struct program *program, struct pl_error *err)
{
	pid_t pid = session->targets.lead.pid;
	uint64_t stack;
	int code = -ESRCH;

	/* Else somebody has taken the probe away, or it never came to hooking. */
	while (code < 0 && session->sites && !session->options->children && !program->ended && (stack = stack_of(pid)) && stack != program->stack) {
		/* What could not be hooked is an error still, and there is nothing to report on. */
		if (follow_again(program, session->options->force, &pid) < 0) {
			if (!session->started_ns) {
				*err = (struct pl_error){0};
				(void)pl_fail(err, -ESRCH,
					"process %d has begun another program, which is no Python, before it could be hooked: nothing was "
					"recorded", (int)pid);
			}
			return false;
		}
		*err = (struct pl_error){0};
		code = pl_session_go_on(session, pid, err);
		pl_launch_release(program->launch);
		if (code == 0)
			pl_log_note("process %d has begun another program, which is recorded instead", (int)pid);
	}
	return code == 0;
}

/* Until it has ended, or for as long as was wanted. */
static void record(struct pl_session *session, struct program *program, struct pl_error *err)
{
	const struct pl_options *options = session->options;
	int64_t end = options->duration_ns ? session->started_ns + options->duration_ns : INT64_MAX;
	int code;

	do
		code = pl_report_format(options->format)->snapshots ? pl_session_take_snapshots(session, end, err)
								   : pl_session_record(session, end, err);
	while (code == -ESRCH && goes_on(session, program, err));
	/* It could not be hooked: there is no process to report on. */
	if (code == -ESRCH && err->code)
		return;
	if (code == 0 || code == -EINTR || code == -ESRCH || code == -ECANCELED)
		(void)pl_session_end(session, err);
}

static void note_before(const struct pl_session *session)
{
	const struct pl_target *lead = &session->targets.lead;
	char rss[PL_SIZE_TEXT];

	pl_format_size((int64_t)lead->facts.rss, false, rss);
	pl_log_note("process %d is recorded from its first frame on; what the interpreter had allocated before (its RSS was %s) is "
		    "not in the rows",
		(int)lead->pid, rss);
}

/* The exit status, or -1: that of the program. */
static int record_program(struct program *program, const struct pl_options *given, pid_t pid)
{
	struct pl_options options = *given;
	struct pl_session session;
	struct pl_error err = {0};
	int code, status;

	options.pid = options.children ? pl_launch_pid(program->launch) : pid;
	program->stack = stack_of(pid);
	code = pl_session_open_launched(&session, &options, options.pid, &err);
	/* Where it could not be hooked. */
	pl_launch_release(program->launch);
	session.look = look_at_program;
	session.look_context = program;
	if (code == 0)
		note_before(&session);
	if (code == 0 || goes_on(&session, program, &err))
		record(&session, program, &err);
	status = pl_session_close(&session, &err);
	/* For want of memory, or since the program has ended meanwhile: that is said, what there is is reported, and the recording
	 * has not failed. */
	if (status == PL_EXIT_DONE || (status == PL_EXIT_FAILED && (err.code == -ECANCELED || err.code == -ESRCH)))
		return -1;
	return status;
}

int pl_command_run(const struct pl_options *options)
{
	struct program program = {0};
	struct starting *starting = starting_new(options->force);
	struct pl_error err = {0};
	pid_t pid;
	int status = -1;

	if (pl_headroom_read("", getpid(), &program.before) < 0)
		program.before = (struct pl_headroom){0};

	int code = starting ? pl_launch_start(options->program, pl_guardian_start(), &program.launch, &err)
			    : pl_fail(&err, -ENOMEM, "out of memory");

	if (code < 0) {
		pl_log_error("%s", err.text);
		starting_free(starting);
		pl_guardian_dismiss();
		return code == -ENOENT ? PL_EXIT_NOT_FOUND : code == -ENOMEM ? PL_EXIT_FAILED : PL_EXIT_NOT_EXECUTED;
	}
	pl_stop_forward_signals(pl_launch_pid(program.launch));
	code = pl_launch_follow(program.launch, starting_ask, starting, &pid);
	starting_free(starting);
	if (code == 0)
		status = record_program(&program, options, pid);
	else if (code == -ESRCH)
		pl_log_error("'%s' has started no Python: nothing was recorded", options->program[0]);
	else
		pl_log_error("'%s' may not be traced (%s): nothing is recorded", options->program[0], strerror(-code));
	wait_for(&program);
	explain_kill(&program);
	pl_guardian_dismiss();
	pl_launch_free(program.launch);
	return status >= 0 ? status : status_of(&program);
}
