/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pyleak/report.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static char directory[] = "/tmp/pyleak-source-XXXXXX";
static char path[PATH_MAX];

static const char *in_directory(const char *name)
{
	(void)snprintf(path, sizeof(path), "%s/%s", directory, name);
	return path;
}

static void write_file(const char *name, const char *text, size_t size)
{
	FILE *file = fopen(in_directory(name), "w");

	cr_assert_not_null(file);
	cr_assert_eq(fwrite(text, 1, size, file), size);
	cr_assert_eq(fclose(file), 0);
}

static void remove_file(const char *name)
{
	cr_assert_eq(remove(in_directory(name)), 0);
}

static void set_up(void)
{
	cr_assert_not_null(mkdtemp(directory));
}

static void tear_down(void)
{
	cr_assert_eq(rmdir(directory), 0);
}

TestSuite(source, .init = set_up, .fini = tear_down, .timeout = 60);

static void expect(const char *name, int line, const char *text)
{
	char *found = pl_source_line(getpid(), name, line);

	if (text)
		cr_assert(found && strcmp(found, text) == 0, "%s:%d: %s for %s", name, line, found, text);
	else
		cr_assert_null(found, "%s:%d: %s", name, line, found);
	free(found);
}

Test(source, lines)
{
	static const char text[] = "def encode(value):\n"
				   "\treturn [v for v in value]\r\n"
				   "\n"
				   "   \t \n"
				   "    nul\0after\n"
				   "\xe9\xff = 1\n"
				   "last\t= 2  ";
	static const struct {
		int line;
		const char *text;
	} table[] = {
		{1, "def encode(value):"},
		{2, "return [v for v in value]"},
		{3, NULL},
		{4, NULL},
		{5, "nul"},
		{6, "\xe9\xff = 1"},
		{7, "last\t= 2"},
		{8, NULL},
		{INT_MAX, NULL},
		{0, NULL},
		{-1, NULL},
		{INT_MIN, NULL},
	};

	write_file("a.py", text, sizeof(text) - 1);
	for (size_t i = 0; i < COUNT(table); i++)
		expect(in_directory("a.py"), table[i].line, table[i].text);
	remove_file("a.py");
	expect(in_directory("a.py"), 1, "def encode(value):"); /* read once */
}

Test(source, no_file)
{
	expect("", 1, NULL);
	expect("/", 1, NULL);
	expect(directory, 1, NULL);
	expect(in_directory("missing.py"), 1, NULL);
	expect("<unknown>", 1, NULL);
	expect("<frozen importlib._bootstrap>", 1, NULL);
	expect("/proc/self/status", 1, NULL);
	expect("/proc/self/environ", 1, NULL);
	expect("/dev/zero", 1, NULL);
	cr_assert_null(pl_source_line(INT_MAX, "/etc/passwd", 1));
}

/* To open a FIFO would wake up who waits for a reader. */
Test(source, fifo)
{
	cr_assert_eq(mkfifo(in_directory("fifo.py"), 0600), 0);
	expect(in_directory("fifo.py"), 1, NULL);
	remove_file("fifo.py");
}

Test(source, empty_and_large)
{
	FILE *file;

	write_file("empty.py", "", 0);
	expect(in_directory("empty.py"), 1, NULL);
	remove_file("empty.py");
	file = fopen(in_directory("large.py"), "w");
	cr_assert_not_null(file);
	(void)fputs("first\n", file);
	cr_assert_eq(ftruncate(fileno(file), 8 * 1024 * 1024 + 1), 0);
	cr_assert_eq(fclose(file), 0);
	expect(in_directory("large.py"), 1, NULL);
	remove_file("large.py");
}

Test(source, relative_to_where_the_process_is)
{
	cr_assert_eq(mkdir(in_directory("sub"), 0700), 0);
	write_file("sub/x.py", "below = 1\n", 10);
	write_file("y.py", "above = 1\n", 10);
	cr_assert_eq(chdir(in_directory("sub")), 0);
	expect("x.py", 1, "below = 1");
	expect("./x.py", 1, "below = 1");
	expect("../y.py", 1, "above = 1");
	expect("z.py", 1, NULL);
	cr_assert_eq(chdir("/"), 0);
	expect((in_directory("y.py"), path + 1), 1, "above = 1");
	remove_file("sub/x.py");
	remove_file("sub");
	remove_file("y.py");
}

Test(source, more_files_than_are_kept)
{
	for (int round = 0; round < 2; round++)
		for (int i = 0; i < 200; i++) {
			char name[32], text[32];

			(void)snprintf(name, sizeof(name), "%d.py", i);
			(void)snprintf(text, sizeof(text), "number = %d", i);
			if (round == 0)
				write_file(name, text, strlen(text));
			expect(in_directory(name), 1, text);
			if (round == 1)
				remove_file(name);
		}
}

Test(source, where_a_function_begins)
{
	static const char text[] = "class A:\n"
				   "    @decorated\n"
				   "    async  def\tkeep (self):\n"
				   "        def keeper(): pass\n"
				   "        defkeep = 1\n"
				   "        return 2\n"
				   "def other(): return lambda: 3";

	write_file("x.py", text, sizeof(text) - 1);
	cr_expect_eq(pl_source_definition(getpid(), in_directory("x.py"), "A.keep", 6), 3);
	cr_expect_eq(pl_source_definition(getpid(), in_directory("x.py"), "A.keep", 3), 3);
	cr_expect_eq(pl_source_definition(getpid(), in_directory("x.py"), "keeper", 4), 4);
	cr_expect_eq(pl_source_definition(getpid(), in_directory("x.py"), "other", 7), 7);
	cr_expect_eq(pl_source_definition(getpid(), in_directory("x.py"), "other", 6), 0);
	cr_expect_eq(pl_source_definition(getpid(), in_directory("x.py"), "kee", 6), 0);
	cr_expect_eq(pl_source_definition(getpid(), in_directory("x.py"), "other.<locals>.<lambda>", 7), 0);
	cr_expect_eq(pl_source_definition(getpid(), in_directory("x.py"), "A.keep", 60), 0);
	cr_expect_eq(pl_source_definition(getpid(), in_directory("x.py"), NULL, 6), 0);
	cr_expect_eq(pl_source_definition(getpid(), in_directory("none.py"), "keep", 6), 0);
	remove_file("x.py");
}
