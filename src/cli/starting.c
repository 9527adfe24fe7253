/* SPDX-License-Identifier: MIT */
#include "starting.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/process.h"
#include "pyleak/python.h"

/*
 * An interpreter makes some 150 system calls until its first frame runs (3.6 to 3.15), a third of them in the dynamic
 * linker. To look for one in the objects that are mapped takes milliseconds: it is done at the 8th, 16th, 32nd … call;
 * a program that has none by the last of these is no Python, or becomes one so late (an interpreter that is loaded as a
 * plugin) that nobody should wait.
 */
enum { FIRST_LOOK = 8, LAST_LOOK = 4096, MAX_PROGRAMS = 64 };
/* Beyond that something is wrong with it, or it is never initialised: each call costs it two stops. */
enum { LAST_CALL = 200000 };

/* A process as long as it runs one program. */
struct program {
	pid_t pid;
	unsigned int calls, next_look;
	struct pl_space *space;
	struct pl_python *python; /* NULL: none has been found yet */
	uint64_t thread;
};

struct starting {
	bool by_force;
	struct program programs[MAX_PROGRAMS];
	size_t count;
};

struct starting *starting_new(bool by_force)
{
	struct starting *starting = calloc(1, sizeof(*starting));

	if (starting)
		starting->by_force = by_force;
	return starting;
}

static void program_close(struct program *program)
{
	pl_python_close(program->python);
	pl_space_close(program->space);
}

void starting_free(struct starting *starting)
{
	for (size_t i = 0; starting && i < starting->count; i++)
		program_close(&starting->programs[i]);
	free(starting);
}

static void forget(struct starting *starting, struct program *program)
{
	program_close(program);
	*program = starting->programs[--starting->count];
}

static struct program *program_of(struct starting *starting, pid_t pid, bool anew)
{
	struct program *program = NULL;

	for (size_t i = 0; !program && i < starting->count; i++)
		if (starting->programs[i].pid == pid)
			program = &starting->programs[i];
	if (program && !anew)
		return program;
	if (program)
		forget(starting, program);
	/* The oldest has most probably ended. */
	if (starting->count == MAX_PROGRAMS)
		forget(starting, &starting->programs[0]);
	program = &starting->programs[starting->count++];
	*program = (struct program){.pid = pid, .next_look = FIRST_LOOK};
	return program;
}

static enum pl_launch_answer look(const struct starting *starting, struct program *program)
{
	struct pl_error ignored = {0};

	if (program->calls > LAST_LOOK)
		return PL_LAUNCH_NEVER;
	program->next_look = 2 * program->calls;
	if (!program->space && pl_space_of_process(program->pid, &program->space) < 0)
		return PL_LAUNCH_ASK_AGAIN;
	if (pl_python_open(program->space, starting->by_force, &program->python, &ignored) < 0)
		program->python = NULL;
	return PL_LAUNCH_ASK_AGAIN;
}

/* uv starts each Python that it does not know yet once before, to ask what it is. */
static bool is_questioned(pid_t pid)
{
	struct pl_process process = {0};
	bool is = pl_process_read(pid, &process) == 0 && strstr(process.command_line, "python.get_interpreter_info import main");

	pl_process_free(&process);
	return is;
}

enum pl_launch_answer starting_ask(void *context, pid_t pid, bool anew, const pl_registers *regs)
{
	struct starting *starting = context;
	struct program *program = program_of(starting, pid, anew);
	struct pl_frame_ref frame;
	enum pl_launch_answer answer = PL_LAUNCH_ASK_AGAIN;

	program->calls++;
	if (program->python) {
		if (pl_python_thread_stack(program->python, pl_registers_thread_pointer(regs), &program->thread, &frame, 1, NULL) > 0)
			answer = is_questioned(pid) ? PL_LAUNCH_NEVER : PL_LAUNCH_THIS;
		else if (program->calls > LAST_CALL)
			answer = PL_LAUNCH_NEVER;
	} else if (program->calls >= program->next_look) {
		answer = look(starting, program);
	}
	if (answer == PL_LAUNCH_NEVER)
		forget(starting, program);
	return answer;
}
