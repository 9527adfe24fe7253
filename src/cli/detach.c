/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include "pyleak/cleanup.h"
#include "pyleak/engine.h"
#include "pyleak/hook.h"
#include "pyleak/landing.h"
#include "pyleak/log.h"
#include "pyleak/options.h"
#include "pyleak/process.h"
#include "pyleak/trace.h"
#include "pyleak/units.h"
#include "target.h"

#define REMOVE_PATIENCE_NSEC (2 * PL_NSEC_PER_SEC)

static int check(pid_t pid, struct pl_error *err)
{
	struct pl_process process;
	int code = pl_process_read(pid, &process);

	if (code < 0)
		code = pl_fail(err, code, "no process %d: see 'pyleak ps'", (int)pid);
	if (code == 0)
		code = pl_process_may_trace(&process, err);
	pl_process_free(&process);
	return code;
}

/* On which line of Python somebody keeps it there. */
static void explain(pid_t pid, bool by_force, int code, const char *why, struct pl_error *err)
{
	struct pl_space *space = NULL;
	struct pl_python *python = NULL;

	if (code == -EAGAIN && pl_space_of_process(pid, &space) == 0 && pl_python_open(space, by_force, &python, NULL) < 0)
		python = NULL;
	(void)pl_engine_pass_on(python, code, why, err);
	pl_python_close(python);
	pl_space_close(space);
}

static int detach(pid_t pid, bool by_force, struct pl_error *err)
{
	struct pl_error claimed = {0}, failure = {0};
	bool found = false;
	int code = check(pid, err);

	/* Perhaps the guardian of a killed pyleak has it, which is done in a moment. */
	if (code == -EBUSY && pl_target_claim(pid, by_force, &claimed) == 0) {
		*err = (struct pl_error){0};
		code = check(pid, err);
	}
	if (code == 0)
		code = pl_target_claim(pid, by_force, err);
	if (code == 0)
		code = pl_probe_detach(pid, REMOVE_PATIENCE_NSEC, &found, NULL, &failure);
	if (failure.text[0])
		explain(pid, by_force, code, failure.text, err);
	if (code == 0)
		pl_log_note(found ? "the probe in process %d was removed" : "there is no probe in process %d", (int)pid);
	if (code == 0 && pl_landing_present(pid))
		pl_log_debug("a landing page stays in process %d, 8 KiB that lead to the allocators' own functions: the program "
			     "may have kept a pointer to it",
			(int)pid);
	return code;
}

/* One that keeps its probe does not keep the others theirs. */
static int detach_family(pid_t pid, bool by_force, struct pl_error *err)
{
	pl_autofree pid_t *pids = NULL;
	size_t count = 0;
	int code = pl_process_family(pid, &pids, &count);

	if (code < 0)
		return pl_fail(err, code, "no process %d: see 'pyleak ps'", (int)pid);
	for (size_t i = 0; i < count; i++)
		if (i == 0 || pl_probe_present(pids[i]))
			(void)detach(pids[i], by_force, err);
	return err->code;
}

int pl_command_detach(const struct pl_options *options)
{
	struct pl_error err = {0};
	pid_t pid;
	int code;

	pl_trace_pace_begin();
	code = pl_choose_process(options, &pid, &err);
	if (code == 0)
		code = (options->children ? detach_family : detach)(pid, options->force, &err);
	pl_trace_pace_end();
	pl_log_debug("%u ptrace steps", pl_trace_steps());
	if (code < 0)
		pl_log_error("%s", err.text[0] ? err.text : strerror(-code));
	return code < 0 ? PL_EXIT_FAILED : PL_EXIT_DONE;
}
