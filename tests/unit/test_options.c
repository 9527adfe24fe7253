/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pyleak/options.h"
#include "pyleak/units.h"

enum { MAX_WORDS = 16, MAX_TEXT = 4096 };

/* What a command line gave: the status, and what came out. */
struct answer {
	int status;
	struct pl_options options;
	char words[256]; /* the options point into it */
	char out[MAX_TEXT], err[MAX_TEXT];
};

static int redirect(int fd, int *ret_saved)
{
	char name[] = "/tmp/pyleak-options-XXXXXX";
	int file = mkstemp(name);

	cr_assert(file >= 0);
	unlink(name);
	*ret_saved = dup(fd);
	cr_assert(dup2(file, fd) == fd);
	return file;
}

static void restore(int fd, int saved, int file, char text[MAX_TEXT])
{
	ssize_t length;

	cr_assert(dup2(saved, fd) == fd);
	close(saved);
	length = pread(file, text, MAX_TEXT - 1, 0);
	cr_assert(length >= 0);
	text[length] = '\0';
	close(file);
}

static void ask(struct answer *answer, const char *line)
{
	char *argv[MAX_WORDS + 1] = {NULL};
	int argc = 0, saved_out, saved_err, out, err;

	cr_assert(strlen(line) < sizeof(answer->words));
	strcpy(answer->words, line);
	for (char *word = strtok(answer->words, " "); word && argc < MAX_WORDS; word = strtok(NULL, " "))
		argv[argc++] = word;
	fflush(stdout);
	fflush(stderr);
	out = redirect(STDOUT_FILENO, &saved_out);
	err = redirect(STDERR_FILENO, &saved_err);
	answer->status = pl_options_parse(argc, argv, &answer->options);
	fflush(stdout);
	fflush(stderr);
	restore(STDOUT_FILENO, saved_out, out, answer->out);
	restore(STDERR_FILENO, saved_err, err, answer->err);
}

Test(options, defaults_of_diff)
{
	struct answer a;

	ask(&a, "pyleak diff 12");
	cr_assert(a.status == -1, "%s", a.err);
	cr_expect(a.options.command == PL_COMMAND_DIFF);
	cr_expect(a.options.pid == 12);
	cr_expect(a.options.interval_ns == 10 * PL_NSEC_PER_SEC);
	cr_expect(a.options.count == 1);
	cr_expect(!a.options.against_first);
	cr_expect(a.options.limit == 10);
	cr_expect(a.options.frames == 16);
	cr_expect(a.options.group_by == PL_GROUP_LINE);
	cr_expect(a.options.sort == PL_SORT_SIZE_DIFF);
	cr_expect(!a.options.include && !a.options.exclude);
	cr_expect(a.options.python && a.options.native);
	cr_expect(a.options.sample == 0);
	cr_expect(a.options.format == PL_FORMAT_TEXT);
	cr_expect(!a.options.output && !a.options.force);
	cr_expect(!a.options.fail_above_set && !a.options.keep);
	cr_expect(a.options.color == PL_COLOR_AUTO);
	cr_expect(!a.options.quiet && !a.options.verbose);
	pl_options_free(&a.options);
}

Test(options, defaults_of_attach)
{
	struct answer a;

	ask(&a, "pyleak attach");
	cr_assert(a.status == -1, "%s", a.err);
	cr_expect(a.options.command == PL_COMMAND_ATTACH);
	cr_expect(a.options.pid == 0);
	cr_expect(a.options.duration_ns == 0);
	cr_expect(a.options.interval_ns == 10 * PL_NSEC_PER_SEC);
	cr_expect(a.options.sort == PL_SORT_SIZE);
	pl_options_free(&a.options);
}

Test(options, the_output_says_what_the_format_is)
{
	static const struct {
		const char *line;
		enum pl_format format;
		size_t limit;
	} table[] = {
		{"pyleak diff -o growth", PL_FORMAT_TEXT, 10},
		{"pyleak diff -o growth.json", PL_FORMAT_JSON, 10},
		{"pyleak diff -o growth.csv", PL_FORMAT_CSV, 0},
		{"pyleak diff -o growth.csv -n 10", PL_FORMAT_CSV, 10},
		{"pyleak diff -o growth.csv --format folded", PL_FORMAT_FOLDED, 0},
		{"pyleak attach -n 3 --format text -o growth.csv", PL_FORMAT_TEXT, 3},
		{"pyleak attach -o now.prom --listen [::1]:9810", PL_FORMAT_OPENMETRICS, 10},
		{"pyleak ps -o list.json", PL_FORMAT_JSON, 0},
		{"pyleak ps -o list.csv", PL_FORMAT_TEXT, 0},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct answer a;

		ask(&a, table[i].line);
		cr_assert(a.status == -1, "%s: %s", table[i].line, a.err);
		cr_expect(a.options.format == table[i].format, "%s", table[i].line);
		cr_expect(a.options.limit == table[i].limit, "%s", table[i].line);
		pl_options_free(&a.options);
	}
}

Test(options, what_a_report_is_of)
{
	static const struct {
		const char *line;
		enum pl_sort sort;
		int64_t from_ns, to_ns;
	} table[] = {
		{"pyleak report a", PL_SORT_SIZE, -1, -1},
		{"pyleak report a b", PL_SORT_SIZE_DIFF, -1, -1},
		{"pyleak report a -s count b", PL_SORT_COUNT, -1, -1},
		{"pyleak report a --from 0", PL_SORT_SIZE_DIFF, 0, -1},
		{"pyleak report --to 1.5s -- -a", PL_SORT_SIZE, -1, 1500 * PL_NSEC_PER_MSEC},
		{"pyleak report a --from 2m --to 1h -s count-diff", PL_SORT_COUNT_DIFF, 120 * PL_NSEC_PER_SEC,
			3600 * PL_NSEC_PER_SEC},
		{"pyleak report a b --from 2s --to 1s", PL_SORT_SIZE_DIFF, 2 * PL_NSEC_PER_SEC, PL_NSEC_PER_SEC},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct answer a;

		ask(&a, table[i].line);
		cr_assert(a.status == -1, "%s: %s", table[i].line, a.err);
		cr_expect(a.options.sort == table[i].sort, "%s", table[i].line);
		cr_expect(a.options.from_ns == table[i].from_ns, "%s", table[i].line);
		cr_expect(a.options.to_ns == table[i].to_ns, "%s", table[i].line);
		pl_options_free(&a.options);
	}
}

Test(options, every_value_arrives)
{
	struct answer a;

	ask(&a, "pyleak -q diff --interval=500ms -c3 77 --against first -f 128 -g traceback -s churn -n0");
	cr_assert(a.status == -1, "%s", a.err);
	cr_expect(a.options.pid == 77);
	cr_expect(a.options.interval_ns == 500 * PL_NSEC_PER_MSEC);
	cr_expect(a.options.count == 3);
	cr_expect(a.options.against_first);
	cr_expect(a.options.frames == 128);
	cr_expect(a.options.group_by == PL_GROUP_TRACEBACK);
	cr_expect(a.options.sort == PL_SORT_CHURN);
	cr_expect(a.options.limit == 0);
	cr_expect(a.options.quiet);
	pl_options_free(&a.options);

	ask(&a, "pyleak diff --domain python --format json -o out --force --fail-above 1M --color=never -v -- 5");
	cr_assert(a.status == -1, "%s", a.err);
	cr_expect(a.options.pid == 5);
	cr_expect(a.options.python && !a.options.native);
	cr_expect(a.options.format == PL_FORMAT_JSON);
	cr_expect_str_eq(a.options.output, "out");
	cr_expect(a.options.force);
	cr_expect(a.options.fail_above_set && a.options.fail_above == 1 << 20);
	cr_expect(a.options.color == PL_COLOR_NEVER);
	cr_expect(a.options.verbose);
	pl_options_free(&a.options);

	ask(&a, "pyleak attach 5 -d 1.5s");
	cr_assert(a.status == -1, "%s", a.err);
	cr_expect(a.options.duration_ns == 1500 * PL_NSEC_PER_MSEC);
	pl_options_free(&a.options);
}

Test(options, globs_add_up)
{
	struct answer a;

	ask(&a, "pyleak attach --include *.py --include /srv/* --exclude *site-packages*");
	cr_assert(a.status == -1, "%s", a.err);
	cr_expect_str_eq(a.options.include[0], "*.py");
	cr_expect_str_eq(a.options.include[1], "/srv/*");
	cr_expect(!a.options.include[2]);
	cr_expect_str_eq(a.options.exclude[0], "*site-packages*");
	cr_expect(!a.options.exclude[1]);
	pl_options_free(&a.options);
}

Test(options, the_last_one_counts)
{
	struct answer a;

	ask(&a, "pyleak diff -n 1 --limit 2 -n3 -q -v");
	cr_assert(a.status == -1, "%s", a.err);
	cr_expect(a.options.limit == 3);
	cr_expect(a.options.verbose && !a.options.quiet);
	pl_options_free(&a.options);
}

Test(options, what_is_not_for_a_command_is_left_alone)
{
	struct answer a;

	ask(&a, "pyleak detach 9 --verb");
	cr_assert(a.status == -1, "%s", a.err);
	cr_expect(a.options.command == PL_COMMAND_DETACH);
	cr_expect(a.options.interval_ns == 0 && a.options.limit == 0);
	cr_expect(a.options.verbose);
	pl_options_free(&a.options);
}

/* Options may stand on either side of the PID even where libc is told otherwise. */
Test(options, posixly_correct_changes_nothing)
{
	struct answer a;

	setenv("POSIXLY_CORRECT", "1", 1);
	ask(&a, "pyleak diff 12 -n 4");
	cr_assert(a.status == -1, "%s", a.err);
	cr_expect(a.options.pid == 12 && a.options.limit == 4);
	pl_options_free(&a.options);
}

Test(options, answers_on_stdout)
{
	static const char *const lines[] = {
		"pyleak --help",
		"pyleak -h",
		"pyleak --version",
		"pyleak diff 12 -V",
		"pyleak ps --help",
		"pyleak --help attach",
		"pyleak diff nonsense --help",
		"pyleak completions bash",
		"pyleak completions zsh",
		"pyleak completions fish",
	};
	struct answer a;

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		ask(&a, lines[i]);
		cr_expect(a.status == PL_EXIT_DONE, "%s: %d", lines[i], a.status);
		cr_expect(a.out[0] != '\0', "%s", lines[i]);
		cr_expect_str_empty(a.err);
		pl_options_free(&a.options);
	}
}

/* What people type before they have read anything. */
Test(options, short_forms)
{
	static const struct {
		const char *line;
		enum pl_command command;
		pid_t pid;
		const char *process;
	} cases[] = {
		{"pyleak 4711", PL_COMMAND_ATTACH, 4711, NULL},
		{"pyleak -q 4711", PL_COMMAND_ATTACH, 4711, NULL},
		{"pyleak diff -p 4711", PL_COMMAND_DIFF, 4711, NULL},
		{"pyleak diff 4711 --pid 4711", PL_COMMAND_DIFF, 4711, NULL},
		{"pyleak diff gunicorn", PL_COMMAND_DIFF, 0, "gunicorn"},
		{"pyleak heap app.py", PL_COMMAND_HEAP, 0, "app.py"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct answer answer;

		ask(&answer, cases[i].line);
		cr_assert_eq(answer.status, -1, "%s: %s", cases[i].line, answer.err);
		cr_assert_eq(answer.options.command, cases[i].command, "%s", cases[i].line);
		cr_assert_eq(answer.options.pid, cases[i].pid, "%s", cases[i].line);
		cr_assert(cases[i].process ? answer.options.process && strcmp(answer.options.process, cases[i].process) == 0 :
					     !answer.options.process, "%s", cases[i].line);
	}
}

Test(options, wrong_lines_are_named_in_one_line)
{
	static const struct {
		const char *line, *names;
	} cases[] = {
		{"pyleak foo", "unknown command 'foo', see 'pyleak --help'"},
		{"pyleak atach", "unknown command 'atach': did you mean 'attach'?"},
		{"pyleak dif 12", "unknown command 'dif': did you mean 'diff'?"},
		{"pyleak idff", "unknown command 'idff': did you mean 'diff'?"},
		{"pyleak rep a", "unknown command 'rep': did you mean 'report'?"},
		{"pyleak attach 12 -p 13", "--pid 13 and another process: give one"},
		{"pyleak attach app -p 13", "--pid 13 and another process: give one"},
		{"pyleak diff -p 0", "--pid: '0'"},
		{"pyleak ps -p 12", "'pyleak ps' does not take --pid"},
		{"pyleak heap -i 1s", "'pyleak heap' does not take --interval"},
		{"pyleak heap -s churn", "--sort churn is not for 'pyleak heap': give size, count or average"},
		{"pyleak heap --format csv", "--format csv is not for 'pyleak heap'"},
		{"pyleak report", "'pyleak report' needs a recording"},
		{"pyleak report a b c", "'c' is one recording too many"},
		{"pyleak report a --pid 3", "'pyleak report' does not take --pid"},
		{"pyleak report a -i 3", "'pyleak report' does not take --interval"},
		{"pyleak report a --from soon", "--from: 'soon' is not a time"},
		{"pyleak report a -s size-diff", "--sort: a difference needs two snapshots"},
		{"pyleak report a --from 3s --to 3s", "--from must be before --to"},
		{"pyleak report a --format recording", "--format recording is not for 'pyleak report'"},
		{"pyleak attach 0", "'0' is not a process id"},
		{"pyleak attach 12x", "'12x' is not a process id"},
		{"pyleak attach -- -5", "'-5' is not a process id"},
		{"pyleak attach 99999999999", "'99999999999' is not a process id"},
		{"pyleak attach 1 2", "'2' is one argument too many"},
		{"pyleak diff --children -e breakpoint", "--children needs --engine inline"},
		{"pyleak attach --per-process", "--per-process needs --children"},
		{"pyleak detach --per-process", "'pyleak detach' does not take --per-process"},
		{"pyleak doctor --children", "'pyleak doctor' does not take --children"},
		{"pyleak ps 1", "'pyleak ps' takes no argument: '1'"},
		{"pyleak completions ksh", "no completions for 'ksh'"},
		{"pyleak diff --nonsense", "unknown option '--nonsense'"},
		{"pyleak diff --nonsense=3", "unknown option '--nonsense=3'"},
		{"pyleak diff -x", "unknown option '-x'"},
		{"pyleak diff -qx", "unknown option '-x'"},
		{"pyleak diff --f 3", "'--f' can mean --frames, --from, --format, --force, --fail-above"},
		{"pyleak diff 1 --interval", "--interval needs a value"},
		{"pyleak diff 1 -n", "--limit needs a value"},
		{"pyleak diff --quiet=1", "--quiet takes no value"},
		{"pyleak diff -i soon", "--interval: 'soon' is not a time"},
		{"pyleak diff -i 0", "--interval: '0' is out of range"},
		{"pyleak attach -d -1", "--duration: '-1' is "},
		{"pyleak diff -c 0", "--count: '0' is not a whole number from 1"},
		{"pyleak diff -c 1.5", "--count: '1.5' is not"},
		{"pyleak diff -n -1", "--limit: '-1' is not a whole number from 0"},
		{"pyleak diff -f 0", "--frames: '0' is not a whole number from 1 to 128"},
		{"pyleak diff -f 129", "--frames: '129' is not"},
		{"pyleak diff -g module", "--group-by: 'module' is not one of line, file, function, caller or traceback"},
		{"pyleak diff -s name", "--sort: 'name' is not one of"},
		{"pyleak attach -s size-diff", "--sort size-diff is not for 'pyleak attach'"},
		{"pyleak diff --against last", "--against: 'last' is not one of previous or first"},
		{"pyleak diff --engine breakpoint --domain native", "--domain native needs --engine inline"},
		{"pyleak diff --domain heap", "--domain: 'heap' is not one of"},
		{"pyleak diff -e magic", "--engine: 'magic' is not one of"},
		{"pyleak diff --format xml", "--format: 'xml' is not one of text, json, csv"},
		{"pyleak diff --color sometimes", "--color: 'sometimes' is not one of"},
		{"pyleak diff --sample much", "--sample: 'much' is not a size"},
		{"pyleak diff --listen x", "--listen: 'x' is not an address"},
		{"pyleak diff --listen :80", "--listen: ':80' is not"},
		{"pyleak diff --listen ::1", "--listen: '::1' is not"},
		{"pyleak diff --listen 127.0.0.1:65536", "--listen: '127.0.0.1:65536' is not"},
		{"pyleak diff --listen localhost:80", "--listen: 'localhost:80' is not"},
		{"pyleak diff --listen-token file", "--listen-token needs --listen"},
		{"pyleak attach --keep --listen 80", "--listen needs a pyleak that stays"},
		{"pyleak diff --fail-above much", "--fail-above: 'much' is not a size"},
		{"pyleak diff --fail-above 9999999P", "--fail-above: '9999999P' is "},
		{"pyleak ps -n 3", "'pyleak ps' does not take --limit"},
		{"pyleak detach -o x", "'pyleak detach' does not take --output"},
		{"pyleak attach -c 3", "'pyleak attach' does not take --count"},
		{"pyleak ps --duration 3", "'pyleak ps' does not take --duration"},
		{"pyleak diff --duration 15 -i 10", "--duration has no room for two windows of --interval"},
	};
	struct answer a;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char *newline;

		ask(&a, cases[i].line);
		newline = strchr(a.err, '\n');
		cr_expect(a.status == PL_EXIT_USAGE, "%s: %d", cases[i].line, a.status);
		cr_expect(strstr(a.err, cases[i].names), "%s: %s", cases[i].line, a.err);
		cr_expect(newline && !newline[1], "%s: not one line: %s", cases[i].line, a.err);
		cr_expect(a.out[0] == '\0', "%s: stdout: %s", cases[i].line, a.out);
		pl_options_free(&a.options);
	}
}

Test(options, nothing_at_all_is_a_usage_error)
{
	struct answer a;

	ask(&a, "pyleak");
	cr_expect(a.status == PL_EXIT_USAGE);
	cr_expect(strstr(a.err, "usage: pyleak"));
	cr_expect_str_empty(a.out);
	pl_options_free(&a.options);
	ask(&a, "pyleak -q");
	cr_expect(a.status == PL_EXIT_USAGE);
	pl_options_free(&a.options);
	ask(&a, ""); /* execve with an empty argv */
	cr_expect(a.status == PL_EXIT_USAGE);
	pl_options_free(&a.options);
}
