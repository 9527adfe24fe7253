/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_TABLE_H
#define PYLEAK_CLI_TABLE_H

#include <stdbool.h>
#include <stdio.h>

#include "pyleak/options.h"

/*
 * The one table of commands and options. The parser takes its defaults from it too: what --help
 * shows in brackets is the text that is parsed when the option is not given.
 */

#define PL_ENGINE_DEFAULT "inline"

/* One of the words that an option accepts. A list ends with a NULL name. */
struct pl_choice {
	const char *name;
	int value;
	unsigned int commands; /* where it makes sense, PL_FOR() bits; 0: wherever the option does */
};

enum pl_option_section { PL_SECTION_RECORD, PL_SECTION_ROWS, PL_SECTION_OUTPUT, PL_SECTION_GENERAL, PL_SECTION_COUNT };
extern const char *const pl_section_titles[PL_SECTION_COUNT];

/* Options without a letter. The others have their letter as id. */
enum pl_option_id {
	PL_OPTION_AGAINST = 256,
	PL_OPTION_FROM,
	PL_OPTION_TO,
	PL_OPTION_INFO,
	PL_OPTION_INCLUDE,
	PL_OPTION_EXCLUDE,
	PL_OPTION_DOMAIN,
	PL_OPTION_NATIVE_FRAMES,
	PL_OPTION_SAMPLE,
	PL_OPTION_TABLES,
	PL_OPTION_FORMAT,
	PL_OPTION_FORCE,
	PL_OPTION_LISTEN,
	PL_OPTION_LISTEN_TOKEN,
	PL_OPTION_FAIL_ABOVE,
	PL_OPTION_NO_FREE_LISTS,
	PL_OPTION_KEEP,
	PL_OPTION_TYPE,
	PL_OPTION_MAX_STOP,
	PL_OPTION_HOLDERS,
	PL_OPTION_SAVE,
	PL_OPTION_SYSROOT,
	PL_OPTION_CHILDREN,
	PL_OPTION_PER_PROCESS,
	PL_OPTION_COLOR,
};

#define PL_FOR(command) (1u << (PL_COMMAND_##command))
#define PL_FOR_ALL ((1u << PL_COMMAND_COUNT) - 1)

struct pl_option {
	int id;
	const char *name;
	const char *argument;            /* "TIME"; NULL: takes none, or one of the choices */
	const struct pl_choice *choices; /* NULL: no fixed set */
	const char *preset;              /* the default; NULL: none */
	const char *preset_diff;         /* that of `diff`, where it is another */
	const char *preset_why;          /* and of `why` */
	unsigned int commands;
	enum pl_option_section section;
	const char *help;
};
extern const struct pl_option pl_option_table[];
extern const size_t pl_option_count;

struct pl_command_entry {
	const char *name;
	bool takes_pid;
	const char *help;        /* one line */
	const char *description; /* for its own --help */
	bool takes_files;        /* recordings, one or two */
	bool takes_cores;        /* a core file in the place of a process, or two */
	bool takes_program;      /* a command line, in which no option is ours */
};
extern const struct pl_command_entry pl_command_table[PL_COMMAND_COUNT];

static inline bool pl_option_is_for(const struct pl_option *option, enum pl_command command)
{
	return option->commands & 1u << command;
}

static inline bool pl_choice_is_for(const struct pl_choice *choice, enum pl_command command)
{
	return !choice->commands || choice->commands & 1u << command;
}

static inline const char *pl_option_preset(const struct pl_option *option, enum pl_command command)
{
	/* holders compares only if it is told to. */
	if (command == PL_COMMAND_HOLDERS && option->id == 'i')
		return NULL;
	if (command == PL_COMMAND_WHY && option->preset_why)
		return option->preset_why;
	return command == PL_COMMAND_DIFF && option->preset_diff ? option->preset_diff : option->preset;
}

static inline bool pl_option_takes_value(const struct pl_option *option)
{
	return option->argument || option->choices;
}

const struct pl_option *pl_option_by_id(int id);
/* PL_COMMAND_COUNT: no such command. */
enum pl_command pl_command_by_name(const char *name);
/* suggest.c: the command that was probably meant; NULL: none. */
const char *pl_command_suggest(const char *word);

/* values.c: takes one option's value (NULL for a flag) into *options, whose command is set. */
int pl_option_apply(const struct pl_option *option, const char *value, struct pl_options *options,
		    struct pl_error *err);

/* help.c. `command` PL_COMMAND_COUNT: the page about all of them. */
void pl_help_print(FILE *out, enum pl_command command);
void pl_usage_print(FILE *out);
/* complete.c: "bash", "zsh" or "fish". -EINVAL: another. */
int pl_completions_print(FILE *out, const char *shell);
/* complete_pids.c, what these scripts ask for: a PID, a tab and the command line for each Python process. */
int pl_completions_print_pids(FILE *out);

#endif
