/* SPDX-License-Identifier: MIT */
#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#include <jansson.h>

#include "pyleak/arch.h"
#include "pyleak/memory.h"
#include "pyleak/process.h"
#include "pyleak/python.h"

/*
 * stack_dump PID [ROUNDS [--force]]: what pyleak sees of a Python process, as JSON lines. First the
 * interpreter, then every OS thread with its Python stack, innermost frame first. Each thread is
 * held while its stack is read. With ROUNDS every stack is read that many times, for its cost.
 */
enum { FRAMES_MAX = 4096 };

static double seconds(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static json_t *frame_to_json(const struct pl_python *python, const struct pl_frame_ref *frame)
{
	struct pl_code code;
	json_t *result;
	int r = pl_python_code_read(python, frame->code, &code);

	if (r < 0)
		return json_pack("{s:s}", "error", strerror(-r));
	result = json_pack("[s,s,i]", code.filename, code.name,
		pl_line_lookup(python->minor, code.line_table, code.line_table_size, code.first_line, frame->offset));
	pl_code_free(&code);
	return result;
}

static int hold(pid_t tid, pl_registers *regs)
{
	struct iovec iov = { regs, sizeof(*regs) };
	int status;

	if (ptrace(PTRACE_SEIZE, tid, NULL, NULL) < 0 || ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) < 0 ||
			waitpid(tid, &status, __WALL) != tid || !WIFSTOPPED(status) ||
			ptrace(PTRACE_GETREGSET, tid, (void *)NT_PRSTATUS, &iov) < 0)
		return -errno;
	return 0;
}

static void dump_thread(const struct pl_python *python, pid_t tid, int rounds)
{
	static struct pl_frame_ref frames[FRAMES_MAX];
	json_t *list = json_array(), *line;
	double search, hinted, stack;
	uint64_t pointer, tstate = 0;
	pl_registers regs = { 0 };
	bool more = false;
	size_t count = 0;
	int r = hold(tid, &regs);

	if (r < 0) {
		(void)fprintf(stderr, "stack_dump: cannot hold thread %d: %s\n", (int)tid, strerror(-r));
		exit(1);
	}
	pointer = pl_registers_thread_pointer(&regs);
	search = seconds();
	for (int i = 0; i < rounds; i++)
		tstate = pl_python_thread(python, pointer, 0);
	hinted = seconds();
	for (int i = 0; i < rounds; i++)
		tstate = pl_python_thread(python, pointer, tstate);
	stack = seconds();
	for (int i = 0; i < rounds; i++)
		count = pl_python_thread_stack(python, pointer, &tstate, frames, rounds > 1 ? 16 : FRAMES_MAX, &more);
	if (rounds > 1)
		(void)fprintf(stderr, "thread %d: search %.2f us, hinted %.2f us, stack of %zu %.2f us\n", (int)tid,
			(hinted - search) / rounds * 1e6, (stack - hinted) / rounds * 1e6, count,
			(seconds() - stack) / rounds * 1e6);
	for (size_t i = 0; i < count; i++)
		(void)json_array_append_new(list, frame_to_json(python, &frames[i]));
	line = json_pack("{s:i,s:I,s:b,s:b,s:o}", "tid", (int)tid, "ident", (json_int_t)pointer, "python", tstate != 0,
		"more", more, "frames", list);
	(void)json_dumpf(line, stdout, JSON_COMPACT);
	(void)putchar('\n');
	json_decref(line);
	(void)ptrace(PTRACE_DETACH, tid, NULL, NULL);
}

static void dump_interpreter(const struct pl_python *python)
{
	static const char *const names[PL_PYMEM_COUNT] = { "raw", "mem", "obj" };
	json_t *tables = json_object(), *line;

	for (int domain = 0; domain < PL_PYMEM_COUNT; domain++) {
		json_t *words = json_array();

		for (uint64_t i = 0; i < 5; i++) {
			uint64_t word = 0;

			(void)pl_memory_read_u64(python->pid, python->allocators[domain] + 8 * i, &word);
			(void)json_array_append_new(words, json_integer((json_int_t)word));
		}
		(void)json_object_set_new(tables, names[domain], json_pack("{s:I,s:o}", "address",
			(json_int_t)python->allocators[domain], "words", words));
	}
	line = json_pack("{s:s,s:s,s:s,s:I,s:o}", "version", python->version, "object", python->object_path, "kind",
		python->executable_kind, "start", (json_int_t)python->object_start, "tables", tables);
	(void)json_dumpf(line, stdout, JSON_COMPACT);
	(void)putchar('\n');
	json_decref(line);
}

int main(int argc, char **argv)
{
	struct pl_space *space;
	struct pl_python *python;
	struct pl_error err = { 0 };
	pid_t pid = argc > 1 ? (pid_t)atoi(argv[1]) : 0, *tids;
	int rounds = argc > 2 ? atoi(argv[2]) : 1;
	bool by_force = argc > 3 && strcmp(argv[3], "--force") == 0;
	char version[32];
	double start = seconds(), opened;
	size_t count;

	if (pl_space_of_process(pid, &space) < 0)
		return 1;
	if (pl_python_identify(space, version) < 0)
		(void)snprintf(version, sizeof(version), "none");
	opened = seconds();
	if (pl_python_open(space, by_force, &python, &err) < 0) {
		(void)fprintf(stderr, "stack_dump: %s\n", err.text);
		return 1;
	}
	if (rounds > 1)
		(void)fprintf(stderr, "identify %.0f us (%s), open %.0f us\n", (opened - start) * 1e6, version,
			(seconds() - opened) * 1e6);
	if (strcmp(version, python->version) != 0) {
		(void)fprintf(stderr, "stack_dump: identified as %s, opened as %s\n", version, python->version);
		return 1;
	}
	dump_interpreter(python);
	if (pl_process_threads(pid, &tids, &count) < 0)
		return 1;
	for (size_t i = 0; i < count; i++)
		dump_thread(python, tids[i], rounds);
	free(tids);
	pl_python_close(python);
	pl_space_close(space);
	return 0;
}
