/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include "table.h"

/*
 * The completions of three shells, from the table. Everything in it is plain words, and no text
 * holds a quote, a bracket or a colon that a shell would see: tests/integration/test_cli.py loads
 * each into its shell.
 */

/* "size count average", what is offered after the option. */
static void print_choices(FILE *out, const struct pl_option *option, enum pl_command command)
{
	bool first = true;

	for (const struct pl_choice *choice = option->choices; choice->name; choice++) {
		if (!pl_choice_is_for(choice, command))
			continue;
		fprintf(out, "%s%s", first ? "" : " ", choice->name);
		first = false;
	}
}

static void print_commands(FILE *out)
{
	for (enum pl_command command = 0; command < PL_COMMAND_COUNT; command++)
		fprintf(out, "%s%s", command ? " " : "", pl_command_table[command].name);
}

static void bash_values(FILE *out, enum pl_command command)
{
	for (size_t i = 0; i < pl_option_count; i++) {
		const struct pl_option *option = &pl_option_table[i];

		if (!pl_option_is_for(option, command) || !pl_option_takes_value(option))
			continue;
		fprintf(out, "\t%s:--%s", pl_command_table[command].name, option->name);
		if (option->id < PL_OPTION_AGAINST)
			fprintf(out, "|%s:-%c", pl_command_table[command].name, option->id);
		fputs(") ", out);
		if (option->choices) {
			fputs("values='", out);
			print_choices(out, option, command);
			fputs("' ;;\n", out);
		} else if (strcmp(option->argument, "FILE") == 0) {
			fputs("compopt -o filenames; COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n", out);
		} else {
			fputs("return ;;\n", out);
		}
	}
}

static void print_bash(FILE *out)
{
	fputs("# bash completion for pyleak, made by 'pyleak completions bash'\n\n"
	      /* Of several, bash inserts what they have in common, and that is digits; the rest is for the eye. */
	      "_pyleak_pids()\n{\n"
	      "\tlocal pid text\n"
	      "\tCOMPREPLY=()\n"
	      "\twhile IFS=$'\\t' read -r pid text; do\n"
	      "\t\t[[ $pid == \"$cur\"* ]] && COMPREPLY+=(\"$pid  $text\")\n"
	      "\tdone < <(pyleak completions pids 2>/dev/null)\n"
	      "\tif [[ ${#COMPREPLY[@]} -eq 1 ]]; then\n\t\tCOMPREPLY=(\"${COMPREPLY[0]%% *}\")\n\tfi\n}\n\n"
	      "_pyleak()\n{\n"
	      "\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command= word values= options=\n"
	      "\tlocal commands='", out);
	print_commands(out);
	/* bash splits --format=json into three words, "=" among them. */
	fputs("'\n\n\tCOMPREPLY=()\n"
	      "\tif [[ $cur == '=' ]]; then\n\t\tcur=\n"
	      "\telif [[ $prev == '=' ]]; then\n\t\tprev=${COMP_WORDS[COMP_CWORD-2]}\n\tfi\n"
	      "\tfor word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
	      "\t\tif [[ \" $commands \" == *\" $word \"* ]]; then\n\t\t\tcommand=$word\n\t\t\tbreak\n\t\tfi\n\tdone\n\n"
	      "\tcase $command:$prev in\n", out);
	for (enum pl_command command = 0; command < PL_COMMAND_COUNT; command++)
		bash_values(out, command);
	fputs("\tesac\n"
	      "\tif [[ -n $values ]]; then\n"
	      "\t\tCOMPREPLY=($(compgen -W \"$values\" -- \"$cur\"))\n\t\treturn\n\tfi\n"
	      "\tcase $command in\n", out);
	for (enum pl_command command = 0; command < PL_COMMAND_COUNT; command++) {
		fprintf(out, "\t%s) options='", pl_command_table[command].name);
		for (size_t i = 0, n = 0; i < pl_option_count; i++)
			if (pl_option_is_for(&pl_option_table[i], command))
				fprintf(out, "%s--%s", n++ ? " " : "", pl_option_table[i].name);
		fprintf(out, "'%s ;;\n", pl_command_table[command].takes_program
					  ? "; [[ $cur == -* ]] || { compopt -o filenames; COMPREPLY=($(compgen -c -- \"$cur\") $(compgen -f -- \"$cur\")); return; }" :
				 pl_command_table[command].takes_cores
					  ? "; [[ $cur == -* ]] || { compopt -o filenames; _pyleak_pids; COMPREPLY+=($(compgen -f -- \"$cur\")); return; }" :
				 pl_command_table[command].takes_pid
					  ? "; [[ $cur == -* ]] || { _pyleak_pids; return; }" :
				 pl_command_table[command].takes_files
					  ? "; [[ $cur == -* ]] || { compopt -o filenames; COMPREPLY=($(compgen -f -- \"$cur\")); return; }" : "");
	}
	fputs("\t*) options=\"$commands --help --version\" ;;\n\tesac\n"
	      "\tCOMPREPLY=($(compgen -W \"$options\" -- \"$cur\"))\n"
	      "}\n\ncomplete -F _pyleak pyleak\n", out);
}

/* '(-i --interval)'{-i+,--interval=}'[help]:TIME:(choices)' */
static void zsh_option(FILE *out, const struct pl_option *option, enum pl_command command)
{
	bool value = pl_option_takes_value(option), letter = option->id < PL_OPTION_AGAINST;
	bool repeated = option->id == PL_OPTION_INCLUDE || option->id == PL_OPTION_EXCLUDE;

	fputs(" \\\n\t\t\t", out);
	if (letter)
		fprintf(out, "'(-%c --%s)'{-%c%s,--%s%s}'", option->id, option->name, option->id, value ? "+" : "",
			option->name, value ? "=" : "");
	else
		fprintf(out, "'%s--%s%s", repeated ? "*" : "", option->name, value ? "=" : "");
	fprintf(out, "[%s]", option->help);
	if (option->choices) {
		fprintf(out, ":%s:(", option->name);
		print_choices(out, option, command);
		fputc(')', out);
	} else if (value) {
		fprintf(out, ":%s:%s", option->argument, strcmp(option->argument, "FILE") == 0 ? "_files" : " ");
	}
	fputc('\'', out);
}

static void print_zsh(FILE *out)
{
	fputs("#compdef pyleak\n# zsh completion for pyleak, made by 'pyleak completions zsh'\n\n"
	      "_pyleak_pids()\n{\n"
	      "\tlocal -a pids\n\tlocal pid text\n"
	      "\tpyleak completions pids 2>/dev/null | while IFS=$'\\t' read -r pid text; do\n"
	      "\t\tpids+=(\"$pid:${text//:/\\\\:}\")\n\tdone\n"
	      "\t_describe -t processes 'Python process' pids\n}\n\n"
	      "_pyleak()\n{\n"
	      "\tsetopt localoptions extendedglob\n"
	      "\tlocal curcontext=$curcontext state line\n"
	      "\tlocal -a commands=(\n", out);
	for (enum pl_command command = 0; command < PL_COMMAND_COUNT; command++)
		fprintf(out, "\t\t'%s:%s'\n", pl_command_table[command].name, pl_command_table[command].help);
	fputs("\t)\n\n"
	      "\t_arguments -C '(- *)'{-h,--help}'[show this and exit]' "
	      "'(- *)'{-V,--version}'[show the version and exit]' '1:command:->command' '*::argument:->argument'\n"
	      "\tif [[ $state == command ]]; then\n\t\t_describe -t commands command commands\n\t\treturn\n\tfi\n"
	      "\tcase $words[1] in\n", out);
	for (enum pl_command command = 0; command < PL_COMMAND_COUNT; command++) {
		fprintf(out, "\t%s)\n\t\t_arguments -s", pl_command_table[command].name);
		if (pl_command_table[command].takes_cores)
			fputs(" \\\n\t\t\t'1:PID or FILE:{_pyleak_pids; _files}' '2:FILE:_files'", out);
		else if (pl_command_table[command].takes_pid)
			fputs(" \\\n\t\t\t'1:PID:_pyleak_pids'", out);
		if (pl_command_table[command].takes_files)
			fputs(" \\\n\t\t\t'1:FILE:_files' '2:FILE:_files'", out);
		if (pl_command_table[command].takes_program)
			fputs(" \\\n\t\t\t'1:COMMAND:_command_names -e' '*::ARGUMENT:_normal'", out);
		for (size_t i = 0; i < pl_option_count; i++)
			if (pl_option_is_for(&pl_option_table[i], command))
				zsh_option(out, &pl_option_table[i], command);
		fputs("\n\t\t;;\n", out);
	}
	fputs("\tesac\n}\n\nif [[ $funcstack[1] == _pyleak ]]; then\n\t_pyleak \"$@\"\nelse\n"
	      "\tcompdef _pyleak pyleak\nfi\n", out);
}

static void fish_option(FILE *out, const struct pl_option *option, enum pl_command command)
{
	fprintf(out, "complete -c pyleak -n '__fish_seen_subcommand_from %s' -l %s", pl_command_table[command].name,
		option->name);
	if (option->id < PL_OPTION_AGAINST)
		fprintf(out, " -s %c", option->id);
	if (option->choices) {
		fputs(" -x -a '", out);
		print_choices(out, option, command);
		fputc('\'', out);
	} else if (option->argument) {
		fputs(strcmp(option->argument, "FILE") == 0 ? " -r -F" : " -x", out);
	}
	fprintf(out, " -d '%s'\n", option->help);
}

static void print_fish(FILE *out)
{
	fputs("# fish completion for pyleak, made by 'pyleak completions fish'\n\n"
	      "function __pyleak_pids\n"
	      "\tpyleak completions pids 2>/dev/null\n"
	      "end\n\n"
	      "complete -c pyleak -f\n"
	      "complete -c pyleak -n __fish_use_subcommand -l help -s h -d 'show this and exit'\n"
	      "complete -c pyleak -n __fish_use_subcommand -l version -s V -d 'show the version and exit'\n", out);
	for (enum pl_command command = 0; command < PL_COMMAND_COUNT; command++) {
		fprintf(out, "\ncomplete -c pyleak -n __fish_use_subcommand -a %s -d '%s'\n",
			pl_command_table[command].name, pl_command_table[command].help);
		if (pl_command_table[command].takes_pid)
			fprintf(out, "complete -c pyleak -n '__fish_seen_subcommand_from %s' -a '(__pyleak_pids)'\n",
				pl_command_table[command].name);
		if (pl_command_table[command].takes_files || pl_command_table[command].takes_cores)
			fprintf(out, "complete -c pyleak -n '__fish_seen_subcommand_from %s' -F\n",
				pl_command_table[command].name);
		if (pl_command_table[command].takes_program)
			fprintf(out, "complete -c pyleak -n '__fish_seen_subcommand_from %s' -a '(__fish_complete_subcommand)'\n",
				pl_command_table[command].name);
		for (size_t i = 0; i < pl_option_count; i++)
			if (pl_option_is_for(&pl_option_table[i], command))
				fish_option(out, &pl_option_table[i], command);
	}
}

int pl_completions_print(FILE *out, const char *shell)
{
	static const struct {
		const char *name;
		void (*print)(FILE *out);
	} shells[] = {{"bash", print_bash}, {"zsh", print_zsh}, {"fish", print_fish}};

	for (size_t i = 0; i < sizeof(shells) / sizeof(shells[0]); i++) {
		if (strcmp(shells[i].name, shell) == 0) {
			shells[i].print(out);
			return 0;
		}
	}
	return -EINVAL;
}
