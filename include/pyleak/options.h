/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_OPTIONS_H
#define PYLEAK_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "pyleak/error.h"
#include "pyleak/report.h"

/*
 * The command line. One table (src/cli/table.c) names every command and every option with its
 * argument, its default and one line of help; the parser, --help and the shell completions are made
 * from it, and a test compares the man page with it.
 */

enum pl_exit { PL_EXIT_DONE = 0, PL_EXIT_FAILED = 1, PL_EXIT_USAGE = 2, PL_EXIT_GREW = 3,
	       PL_EXIT_NOT_EXECUTED = 126, PL_EXIT_NOT_FOUND = 127 /* run: as a shell has them */ };

enum pl_command { PL_COMMAND_PS, PL_COMMAND_ATTACH, PL_COMMAND_RUN, PL_COMMAND_DIFF, PL_COMMAND_WHY, PL_COMMAND_DETACH, PL_COMMAND_HEAP, PL_COMMAND_HOLDERS, PL_COMMAND_DOCTOR, PL_COMMAND_REPORT, PL_COMMAND_COUNT };
enum pl_engine_kind { PL_ENGINE_INLINE, PL_ENGINE_BREAKPOINT };
enum pl_color { PL_COLOR_AUTO, PL_COLOR_ALWAYS, PL_COLOR_NEVER };

struct pl_options {
	enum pl_command command;
	pid_t pid; /* 0: none given */
	pid_t pid_option; /* of --pid: with the operand it says the same, or it is an error */
	const char *process; /* a name instead; NULL: none given */
	char *const *program; /* `run`: the arguments of what is started, NULL-terminated */
	const char *files[2]; /* recordings, or core files; NULL: none given */
	bool info; /* `report`: what is in them, and no more */
	const char *save, *sysroot;
	int64_t from_ns, to_ns; /* which snapshots of them; -1: none given */
	int64_t interval_ns;
	bool interval_given;
	int64_t duration_ns; /* 0: attach: until ^C; diff: until --count; why: for eight windows */
	int64_t count;
	bool count_given;
	bool frames_given, sample_given, domain_given; /* else they are not missed in a probe that has others */
	bool against_first;
	size_t limit;
	int frames;
	int native_frames;
	enum pl_group group_by;
	enum pl_sort sort;
	const char **include, **exclude; /* NULL-terminated */
	bool python, native;
	enum pl_engine_kind engine;
	uint64_t sample;
	uint64_t tables; /* of the recorder in the process, in bytes; 0: a share */
	bool sort_given; /* without it, a difference is in the order of differences */
	bool limit_given; /* on the command line: without it, a format that is one document has all rows */
	enum pl_format format;
	bool format_given; /* without it, the name of the output decides */
	const char *output; /* NULL: stdout */
	const char *listen; /* NULL: nowhere */
	const char *listen_token; /* a file; NULL: anybody may ask */
	bool force;
	bool fail_above_set;
	uint64_t fail_above;
	bool park; /* --no-free-lists: blocks that CPython parks stay charged to who had them first */
	bool keep;
	const char *type; /* --type; NULL: none given */
	int64_t max_stop_ns;
	bool holders; /* who keeps the live blocks of each row of the last report */
	bool children; /* the family of the process too */
	bool per_process; /* rows of each process */
	enum pl_color color;
	bool quiet, verbose;
};

/*
 * Parses argv. Returns -1 to go on with *options, or an exit status: after --help, --version and
 * the hidden `completions SHELL` (printed on stdout, status 0), or after a wrong command line (one
 * line on stderr that names the option, the value and what is allowed; status 2).
 */
int pl_options_parse(int argc, char **argv, struct pl_options *options);
void pl_options_free(struct pl_options *options);

/* One file per subcommand; each returns an exit status and prints its own error. */
int pl_command_ps(const struct pl_options *options);
int pl_command_attach(const struct pl_options *options);
int pl_command_run(const struct pl_options *options);
int pl_command_diff(const struct pl_options *options);
int pl_command_why(const struct pl_options *options);
int pl_command_detach(const struct pl_options *options);
int pl_command_report(const struct pl_options *options);
int pl_command_heap(const struct pl_options *options);
int pl_command_holders(const struct pl_options *options);
int pl_command_doctor(const struct pl_options *options);

/* The process meant when no PID was given, or a name (see pyleak(1)): the one with a probe, else the one Python
 * that may be attached to, else an error that lists the candidates. */
int pl_choose_process(const struct pl_options *options, pid_t *ret_pid, struct pl_error *err);

#endif
