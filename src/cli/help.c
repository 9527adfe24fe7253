/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "table.h"

enum { WIDTH = 80, COLUMN = 26, CHOICES_INDENT = 15 }; /* texts about options begin in this column */

/* Words of `text` from `column` on, broken before WIDTH, further lines indented. */
static void print_wrapped(FILE *out, const char *text, size_t column, size_t indent)
{
	bool first = true;

	while (*text) {
		size_t length = strcspn(text, " ");

		if (!first && column + 1 + length >= WIDTH) {
			fprintf(out, "\n%*s", (int)indent, "");
			column = indent;
		} else if (!first) {
			fputc(' ', out);
			column++;
		}
		fprintf(out, "%.*s", (int)length, text);
		column += length;
		first = false;
		text += length;
		text += strspn(text, " ");
	}
	fputc('\n', out);
}

static void add(char *text, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void add(char *text, size_t size, const char *format, ...)
{
	size_t used = strlen(text);
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(text + used, size - used, format, arguments);
	va_end(arguments);
}

/* "TIME", "line|file": what follows the name of an option. */
static void add_argument(const struct pl_option *option, enum pl_command command, char *text, size_t size)
{
	bool first = true;

	if (option->argument)
		add(text, size, " %s", option->argument);
	for (const struct pl_choice *choice = option->choices; choice && choice->name; choice++) {
		if (command != PL_COMMAND_COUNT && !pl_choice_is_for(choice, command))
			continue;
		add(text, size, "%s%s", first ? " " : "|", choice->name);
		first = false;
	}
}

/* "[10s]" or, where the commands differ, "[size; diff: size-diff]" */
static void add_preset(const struct pl_option *option, enum pl_command command, char *text, size_t size)
{
	if (command == PL_COMMAND_COUNT && option->preset_diff)
		add(text, size, " [%s; diff: %s]", option->preset, option->preset_diff);
	else if (command == PL_COMMAND_COUNT && option->preset_why)
		add(text, size, " [%s; why: %s]", option->preset, option->preset_why);
	else if (pl_option_preset(option, command))
		add(text, size, " [%s]", pl_option_preset(option, command));
}

/* "(diff)" for an option that only one command takes, on the page about all of them. */
static void add_only(const struct pl_option *option, enum pl_command command, char *text, size_t size)
{
	for (enum pl_command only = 0; command == PL_COMMAND_COUNT && only < PL_COMMAND_COUNT; only++)
		if (option->commands == 1u << only)
			add(text, size, " (%s only)", pl_command_table[only].name);
}

/* With a line end; many choices go on in the next line. */
static void print_left(FILE *out, const char *left)
{
	while (strlen(left) > WIDTH) {
		size_t length = WIDTH;

		while (length && left[length - 1] != '|')
			length--;
		if (!length)
			break;
		fprintf(out, "%.*s\n%*s", (int)length, left, CHOICES_INDENT, "");
		left += length;
	}
	fprintf(out, "%s\n", left);
}

static void print_option(FILE *out, const struct pl_option *option, enum pl_command command)
{
	char left[128] = "", right[256] = "";

	if (option->id < PL_OPTION_AGAINST)
		add(left, sizeof(left), "  -%c, --%s", option->id, option->name);
	else
		add(left, sizeof(left), "      --%s", option->name);
	add_argument(option, command, left, sizeof(left));
	add(right, sizeof(right), "%s", option->help);
	add_only(option, command, right, sizeof(right));
	add_preset(option, command, right, sizeof(right));

	if (strlen(left) + 2 > COLUMN) {
		print_left(out, left);
		fprintf(out, "%*s", COLUMN, "");
	} else {
		fprintf(out, "%-*s", COLUMN, left);
	}
	print_wrapped(out, right, COLUMN, COLUMN);
}

void pl_help_print(FILE *out, enum pl_command command)
{
	bool all = command == PL_COMMAND_COUNT;

	if (all) {
		fputs("usage: pyleak COMMAND [PID|NAME] [OPTION...]\n\n"
		      "Finds the line of Python that leaks memory in a process that is already running.\n\n"
		      "Commands:\n", out);
		for (enum pl_command c = 0; c < PL_COMMAND_COUNT; c++)
			fprintf(out, "  %-8s%s\n", pl_command_table[c].name, pl_command_table[c].help);
	} else {
		fprintf(out, "usage: pyleak %s%s [OPTION...]%s\n\n", pl_command_table[command].name,
			pl_command_table[command].takes_cores	? " [PID|NAME|FILE [FILE]]"
			: pl_command_table[command].takes_pid	? " [PID|NAME]"
			: pl_command_table[command].takes_files ? " FILE [FILE]"
								: "",
			pl_command_table[command].takes_program ? " [--] COMMAND [ARGUMENT...]" : "");
		print_wrapped(out, pl_command_table[command].description, 0, 0);
	}
	if (all || pl_command_table[command].takes_pid) {
		fputc('\n', out);
		print_wrapped(out, "NAME is a part of the command line of one Python process. Without either: the one process that "
				   "carries a probe; else the one Python process that you may attach to.", 0, 0);
	}
	for (enum pl_option_section section = 0; section < PL_SECTION_COUNT; section++) {
		bool titled = false;

		for (size_t i = 0; i < pl_option_count; i++) {
			const struct pl_option *option = &pl_option_table[i];

			if (option->section != section || (!all && !pl_option_is_for(option, command)))
				continue;
			if (!titled)
				fprintf(out, "\n%s:\n", pl_section_titles[section]);
			titled = true;
			print_option(out, option, command);
		}
	}
	if (all)
		fputs("\n'pyleak COMMAND --help' is about one command; 'man pyleak' is the manual.\n", out);
	else
		fprintf(out, "\n'man pyleak-%s' has more, and examples; 'man pyleak' is about all commands.\n",
			pl_command_table[command].name);
}

void pl_usage_print(FILE *out)
{
	fputs("usage: pyleak COMMAND [PID|NAME] [OPTION...]\n", out);
	for (enum pl_command command = 0; command < PL_COMMAND_COUNT; command++)
		fprintf(out, "  %-8s%s\n", pl_command_table[command].name, pl_command_table[command].help);
	fputs("see 'pyleak --help'\n", out);
}
