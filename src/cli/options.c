/* SPDX-License-Identifier: MIT */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "pyleak-version.h"
#include "pyleak/log.h"
#include "pyleak/units.h"
#include "table.h"

enum { MAX_OPERANDS = 3 }; /* COMMAND and PID (or SHELL), or FILE and FILE */

struct command_line {
	const char *operands[MAX_OPERANDS];
	int operand_count;
	const char *extra; /* the first operand too many */
	int program;       /* `run`: where in argv the command line of the program begins; 0: nowhere */
	bool help, version;
};

/* What getopt_long() works from, made from the table. */
struct spelling {
	struct option *longs;
	char *shorts;
};

static int spelling_make(struct spelling *spelling)
{
	char *at;

	spelling->longs = calloc(pl_option_count + 1, sizeof(*spelling->longs));
	/* "-": operands come as options numbered 1, in place, whatever POSIXLY_CORRECT says. ":": no
	 * messages from libc, and a missing value is told apart. */
	spelling->shorts = at = calloc(2 + 2 * pl_option_count + 1, 1);
	if (!spelling->longs || !spelling->shorts)
		return -ENOMEM;
	*at++ = '-';
	*at++ = ':';
	for (size_t i = 0; i < pl_option_count; i++) {
		const struct pl_option *option = &pl_option_table[i];

		spelling->longs[i] = (struct option){option->name,
			pl_option_takes_value(option) ? required_argument : no_argument, NULL, option->id};
		if (option->id > UCHAR_MAX)
			continue;
		*at++ = (char)option->id;
		if (pl_option_takes_value(option))
			*at++ = ':';
	}
	return 0;
}

static void spelling_free(struct spelling *spelling)
{
	free(spelling->longs);
	free(spelling->shorts);
}

/* getopt_long() answered '?' or ':'. */
static int explain(int answer, const char *word, struct pl_error *err)
{
	const struct pl_option *option = pl_option_by_id(optopt);
	char matches[256] = "";
	size_t used = 0, count = 0;

	if (answer == ':' && option)
		return pl_fail(err, -EINVAL, "--%s needs a value", option->name);
	if (option)
		return pl_fail(err, -EINVAL, "--%s takes no value", option->name);
	if (optopt != 0 && isgraph((unsigned char)optopt))
		return pl_fail(err, -EINVAL, "unknown option '-%c', see 'pyleak --help'", optopt);

	/* getopt_long() does not say whether a long option is unknown or ambiguous. */
	size_t length = strcspn(word, "=");
	for (size_t i = 0; length > 2 && i < pl_option_count; i++) {
		if (strncmp(word + 2, pl_option_table[i].name, length - 2) != 0 || used >= sizeof(matches))
			continue;
		used += (size_t)snprintf(matches + used, sizeof(matches) - used, "%s--%s", count++ ? ", " : "",
			pl_option_table[i].name);
	}
	if (count > 1)
		return pl_fail(err, -EINVAL, "'%s' can mean %s: give more of it", word, matches);
	return pl_fail(err, -EINVAL, "unknown option '%s', see 'pyleak --help'", word);
}

/* What follows `run` is the program's from its first word on, and so are the options among it. */
static bool begins_program(const struct command_line *line)
{
	enum pl_command command = line->operand_count == 1 ? pl_command_by_name(line->operands[0]) : PL_COMMAND_COUNT;

	return command != PL_COMMAND_COUNT && pl_command_table[command].takes_program;
}

static void add_operand(struct command_line *line, const char *word)
{
	if (line->operand_count < MAX_OPERANDS)
		line->operands[line->operand_count++] = word;
	else if (!line->extra)
		line->extra = word;
}

/*
 * Runs through argv. Without options: collects the operands. With options (whose command is set
 * then): takes the values. Two runs, because the command may follow an option.
 */
static int walk(int argc, char **argv, const struct spelling *spelling, struct command_line *line,
		struct pl_options *options, struct pl_error *err)
{
	int answer, r = 0;

	optind = 0; /* glibc and musl: start anew */
	while (r == 0 && (answer = getopt_long(argc, argv, spelling->shorts, spelling->longs, NULL)) != -1) {
		const struct pl_option *option;

		if (answer == '?' || answer == ':')
			return explain(answer, argv[optind - 1], err);
		if (answer == 1) {
			if (!options && begins_program(line)) {
				line->program = optind - 1;
				return 0;
			}
			if (!options)
				add_operand(line, optarg);
			continue;
		}
		option = pl_option_by_id(answer);
		if (!options) {
			line->help |= answer == 'h';
			line->version |= answer == 'V';
		} else if (!pl_option_is_for(option, options->command)) {
			r = pl_fail(err, -EINVAL, "'pyleak %s' does not take --%s, see 'pyleak %s --help'",
				pl_command_table[options->command].name, option->name,
				pl_command_table[options->command].name);
		} else {
			r = pl_option_apply(option, optarg, options, err);
		}
	}
	if (r == 0 && !options && optind < argc && begins_program(line)) {
		line->program = optind;
		return 0;
	}
	/* After "--" everything is an operand. */
	for (int i = optind; r == 0 && !options && i < argc; i++)
		add_operand(line, argv[i]);
	return r;
}

static int find_command(const struct command_line *line, enum pl_command *ret, struct pl_error *err)
{
	const char *name = line->operands[0];
	const char *second = line->operand_count > 1 ? line->operands[1] : NULL;
	enum pl_command command = pl_command_by_name(name);

	if (command == PL_COMMAND_COUNT) {
		const char *meant = pl_command_suggest(name);

		return meant ? pl_fail(err, -EINVAL, "unknown command '%s': did you mean '%s'?", name, meant) :
			       pl_fail(err, -EINVAL, "unknown command '%s', see 'pyleak --help'", name);
	}
	if (pl_command_table[command].takes_files && line->extra)
		return pl_fail(err, -E2BIG, "'%s' is one recording too many: one, or two to compare", line->extra);
	if (pl_command_table[command].takes_files) {
		*ret = command;
		return 0;
	}
	if (line->operand_count > 2 && !pl_command_table[command].takes_cores)
		return pl_fail(err, -E2BIG, "'%s' is one argument too many, see 'pyleak --help'", line->operands[2]);
	if (second && !pl_command_table[command].takes_pid)
		return pl_fail(err, -E2BIG, "'pyleak %s' takes no argument: '%s'", name, second);
	if (line->extra)
		return pl_fail(err, -E2BIG, "'%s' is one argument too many, see 'pyleak --help'", line->extra);
	*ret = command;
	return 0;
}

/* A number is a process, whatever there is of that name; else what has a folder in its name is a file, and what is one. */
static bool is_file(const char *word)
{
	struct stat status;

	if (!word[strspn(word, "0123456789")])
		return false;
	return strchr(word, '/') || (stat(word, &status) == 0 && S_ISREG(status.st_mode));
}

/* What does not look like a number is the name of a process. */
static int find_process(const char *word, struct pl_options *options, struct pl_error *err)
{
	int64_t pid;

	if (*word && !isdigit((unsigned char)*word) && !strchr("+-", *word)) {
		options->process = word;
		return 0;
	}
	if (pl_parse_number(word, 1, INT_MAX, &pid) < 0)
		return pl_fail(err, -EINVAL, "'%s' is not a process id: give a number, see 'pyleak ps'", word);
	options->pid = (pid_t)pid;
	return 0;
}

/* "pyleak help attach" is "pyleak attach --help", "pyleak 4711" is "pyleak attach 4711". */
static void take_short_forms(struct command_line *line)
{
	static const char attach[] = "attach";

	if (line->operand_count > 0 && strcmp(line->operands[0], "help") == 0) {
		line->help = true;
		line->operand_count--;
		memmove(line->operands, line->operands + 1, (size_t)line->operand_count * sizeof(line->operands[0]));
	} else if (line->operand_count == 1 && line->operands[0][strspn(line->operands[0], "0123456789")] == '\0' &&
		   *line->operands[0]) {
		line->operands[1] = line->operands[0];
		line->operands[0] = attach;
		line->operand_count = 2;
	}
}

/* Where the command line leaves it open: the name of the output says the format, and a document that is
 * the whole has all rows, but for metrics, of which each row is one. */
static void complete(struct pl_options *options)
{
	const struct pl_option *format = pl_option_by_id(PL_OPTION_FORMAT);

	if (!options->format_given && options->output) {
		enum pl_format named = pl_report_format_of_file(options->output);

		for (const struct pl_choice *choice = format->choices; choice->name; choice++)
			if (choice->value == (int)named && pl_choice_is_for(choice, options->command))
				options->format = named;
	}
	if (!options->limit_given && !pl_report_format(options->format)->repeats &&
		options->format != PL_FORMAT_OPENMETRICS)
		options->limit = 0;
}

/* A recording can be shown either way. */
static int complete_report(struct pl_options *options, struct pl_error *err)
{
	bool difference = options->files[1] || options->from_ns >= 0;

	if (options->info && options->format != PL_FORMAT_TEXT && options->format != PL_FORMAT_JSON)
		return pl_fail(err, -EINVAL, "--info: the format is text or json");
	if (difference && !options->sort_given)
		options->sort = PL_SORT_SIZE_DIFF;
	if (!difference && (options->sort == PL_SORT_SIZE_DIFF || options->sort == PL_SORT_COUNT_DIFF))
		return pl_fail(err, -EINVAL, "--sort: a difference needs two snapshots: give --from, or two recordings");
	if (!options->files[1] && options->from_ns >= 0 && options->to_ns >= 0 && options->from_ns >= options->to_ns)
		return pl_fail(err, -EINVAL, "--from must be before --to");
	return 0;
}

static int check_holders(const struct pl_options *options, struct pl_error *err)
{
	if (options->engine == PL_ENGINE_BREAKPOINT)
		return pl_fail(err, -EINVAL, "--holders needs --engine inline: with breakpoints the process would wait for the graph");
	if (options->keep)
		return pl_fail(err, -EINVAL, "--keep returns at once, without a report: give --holders to 'pyleak diff' later");
	if (options->format != PL_FORMAT_TEXT && options->format != PL_FORMAT_JSON && options->format != PL_FORMAT_HTML)
		return pl_fail(err, -EINVAL, "--format %s has no room for --holders: text, json and html have",
			pl_report_format(options->format)->name);
	return 0;
}

/* What is for a process, and what for a file. */
static int complete_holders(const struct pl_options *options, struct pl_error *err)
{
	if (options->files[0] && options->pid)
		return pl_fail(err, -EINVAL, "'%s' and a process: give one of them", options->files[0]);
	if (options->files[0] && options->save)
		return pl_fail(err, -EINVAL, "--save is for a process: '%s' is a file already", options->files[0]);
	if (options->files[0] && options->interval_ns)
		return pl_fail(err, -EINVAL, "--interval is for a process: what grew between two files is asked with both");
	if (options->save && options->interval_ns)
		return pl_fail(err, -EINVAL, "--save keeps one moment, --interval looks at two: give one of them");
	if (options->files[1] && options->type)
		return pl_fail(err, -EINVAL, "--type says who leads to objects, not what grows: give one file");
	return 0;
}

/* Pictures are of one moment. */
static int check_picture(const struct pl_options *options, struct pl_error *err)
{
	if (options->format == PL_FORMAT_TEXT || options->format == PL_FORMAT_JSON ||
		(!options->interval_ns && !options->type && !options->files[1]))
		return 0;
	return pl_fail(err, -EINVAL, "--format %s shows one moment, and all types: leave out %s", pl_report_format(options->format)->name,
		options->interval_ns ? "--interval" : options->type ? "--type" : "the second file");
}

/* The first window is not looked at: what a process has on its way it has at any time, and it would count as growth. */
static int complete_why(struct pl_options *options, struct pl_error *err)
{
	enum { WINDOWS = 9, LEAST_WINDOWS = 5 };

	if (!options->duration_ns) {
		options->duration_ns = options->interval_ns < INT64_MAX / WINDOWS ? options->interval_ns * WINDOWS : INT64_MAX;
		options->count = WINDOWS - 1;
		return 0;
	}
	options->count = INT_MAX;
	if (!options->interval_given)
		options->interval_ns = options->duration_ns / WINDOWS;
	if (options->interval_ns <= 0 || options->duration_ns / options->interval_ns < LEAST_WINDOWS)
		return pl_fail(err, -EINVAL, "--duration has no room for five windows of --interval: make it five times as long at "
					     "least, or leave --interval out");
	return 0;
}

/* Defaults, then what was given, then what only the whole can tell. */
static int fill(int argc, char **argv, const struct spelling *spelling, struct command_line *line,
		struct pl_options *options, struct pl_error *err)
{
	for (size_t i = 0; i < pl_option_count; i++) {
		const struct pl_option *option = &pl_option_table[i];
		const char *preset = pl_option_preset(option, options->command);
		int r = preset && pl_option_is_for(option, options->command) ? pl_option_apply(option, preset, options, err) : 0;

		if (r < 0)
			return r;
	}
	if (pl_command_table[options->command].takes_files) {
		if (line->operand_count < 2)
			return pl_fail(err, -EINVAL, "'pyleak %s' needs a recording, or two to compare",
				pl_command_table[options->command].name);
		options->files[0] = line->operands[1];
		options->files[1] = line->operand_count > 2 ? line->operands[2] : NULL;
	} else if (pl_command_table[options->command].takes_cores &&
		   (line->operand_count > 2 || (line->operand_count > 1 && is_file(line->operands[1])))) {
		options->files[0] = line->operands[1];
		options->files[1] = line->operand_count > 2 ? line->operands[2] : NULL;
	} else if (line->operand_count > 1) {
		int r = find_process(line->operands[1], options, err);

		if (r < 0)
			return r;
	}

	if (pl_command_table[options->command].takes_program) {
		if (!line->program)
			return pl_fail(err, -EINVAL, "'pyleak run' needs a program: pyleak run [OPTION...] -- COMMAND [ARGUMENT...]");
		options->program = argv + line->program;
		argc = line->program;
	}
	options->interval_given = false;
	options->count_given = options->limit_given = options->format_given = options->sort_given = false;
	options->frames_given = options->sample_given = options->domain_given = false;
	options->from_ns = options->to_ns = -1;

	int r = walk(argc, argv, spelling, line, options, err);

	complete(options);
	if (r == 0 && options->pid_option && (options->process || (options->pid && options->pid != options->pid_option)))
		r = pl_fail(err, -EINVAL, "--pid %d and another process: give one", (int)options->pid_option);
	if (options->pid_option)
		options->pid = options->pid_option;
	if (r == 0 && options->command == PL_COMMAND_HOLDERS)
		r = complete_holders(options, err);
	if (r == 0 && options->command == PL_COMMAND_REPORT)
		r = complete_report(options, err);
	/* A probe whose breakpoints nobody serves would only slow the process down. */
	if (r == 0 && options->keep && options->listen)
		return pl_fail(err, -EINVAL, "--listen needs a pyleak that stays: leave out --keep");
	if (r == 0 && options->listen_token && !options->listen)
		return pl_fail(err, -EINVAL, "--listen-token needs --listen: without it nobody is answered");
	if (r == 0 && options->keep && options->engine == PL_ENGINE_BREAKPOINT)
		return pl_fail(err, -EINVAL, "--keep needs --engine inline: breakpoints must be served");
	if (r == 0 && options->keep && (options->duration_ns || options->fail_above_set))
		return pl_fail(err, -EINVAL, "--keep returns at once and leaves no time for --%s: give it to 'pyleak diff' later",
			options->duration_ns ? "duration" : "fail-above");
	if (r == 0 && options->command == PL_COMMAND_DIFF && options->duration_ns &&
		options->duration_ns / 2 < options->interval_ns)
		return pl_fail(err, -EINVAL, "--duration has no room for two windows of --interval: make it twice as long at least");
	if (r == 0 && options->command == PL_COMMAND_WHY)
		r = complete_why(options, err);
	/* Then it is the time that ends it. */
	if (r == 0 && options->command == PL_COMMAND_DIFF && options->duration_ns && !options->count_given)
		options->count = INT_MAX;
	if (r == 0 && !options->python && options->engine == PL_ENGINE_BREAKPOINT)
		return pl_fail(err, -EINVAL, "--domain native needs --engine inline: breakpoints are for Python's allocators only");
	if (r == 0 && options->children && options->engine == PL_ENGINE_BREAKPOINT)
		return pl_fail(err, -EINVAL, "--children needs --engine inline: breakpoints are served in one process only");
	if (r == 0 && options->per_process && !options->children)
		return pl_fail(err, -EINVAL, "--per-process needs --children: without it there is one process");
	if (r == 0 && options->command == PL_COMMAND_HOLDERS)
		r = check_picture(options, err);
	if (r == 0 && options->holders)
		r = check_holders(options, err);
	if (r == 0 && options->sample && options->engine == PL_ENGINE_BREAKPOINT)
		return pl_fail(err, -EINVAL, "--sample needs --engine inline: a breakpoint costs its stop whatever it records");
	return r;
}

/* -1: go on, *options is filled; else an exit status, after an answer or with *err filled. */
static int parse(int argc, char **argv, struct pl_options *options, struct pl_error *err)
{
	__attribute__((cleanup(spelling_free))) struct spelling spelling = {NULL, NULL};
	struct command_line line = {.operand_count = 0};
	enum pl_command command = PL_COMMAND_COUNT;

	if (spelling_make(&spelling) < 0)
		return pl_fail(err, -ENOMEM, "out of memory"), PL_EXIT_FAILED;
	if (walk(argc, argv, &spelling, &line, NULL, err) < 0)
		return PL_EXIT_USAGE;
	if (line.version) {
		printf("pyleak %s\n%s\n", PYLEAK_VERSION, PYLEAK_BUILD_FACTS);
		return PL_EXIT_DONE;
	}
	if (line.operand_count == 0 && !line.help) {
		pl_usage_print(stderr);
		return PL_EXIT_USAGE;
	}
	if (line.operand_count == 2 && strcmp(line.operands[0], "completions") == 0) {
		if (strcmp(line.operands[1], "pids") == 0)
			return pl_completions_print_pids(stdout) < 0 ? PL_EXIT_FAILED : PL_EXIT_DONE;
		if (pl_completions_print(stdout, line.operands[1]) == 0)
			return PL_EXIT_DONE;
		pl_fail(err, -EINVAL, "no completions for '%s': bash, zsh or fish", line.operands[1]);
		return PL_EXIT_USAGE;
	}
	take_short_forms(&line);
	if (line.operand_count > 0 && find_command(&line, &command, err) < 0)
		return PL_EXIT_USAGE;
	if (line.help) {
		pl_help_print(stdout, command);
		return PL_EXIT_DONE;
	}
	options->command = command;
	return fill(argc, argv, &spelling, &line, options, err) < 0 ? PL_EXIT_USAGE : -1;
}

int pl_options_parse(int argc, char **argv, struct pl_options *options)
{
	struct pl_error err = {0};
	int status;

	*options = (struct pl_options){0};
	status = parse(argc, argv, options, &err);
	if (err.code)
		pl_log_error("%s", err.text);
	if (status == PL_EXIT_DONE && (fflush(stdout) != 0 || ferror(stdout))) {
		pl_log_error("standard output: %s", strerror(errno));
		status = PL_EXIT_FAILED;
	}
	if (status < 0)
		pl_log_init(options->quiet ? PL_LOG_QUIET : options->verbose ? PL_LOG_VERBOSE : PL_LOG_NORMAL);
	return status;
}

void pl_options_free(struct pl_options *options)
{
	free(options->include);
	free(options->exclude);
	options->include = options->exclude = NULL;
}
