/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "frozen.h"
#include "pyleak/cleanup.h"
#include "pyleak/process.h"
#include "pyleak/report.h"

#define MAX_FILES 64
#define DEFINITION_LINES_MAX 2000
#define MAX_FILE_SIZE (8 * 1024 * 1024)

/* A file that cannot be read is kept too, with no text, so that it is not tried for every row. */
struct source {
	pid_t pid;
	char *filename; /* NULL: free */
	char *text;
	size_t size;
	uint64_t used;
};

static struct source cache[MAX_FILES];
static uint64_t clock_of_use;

/* `link` of the process, as the kernel prints it: seen from our root. */
static ssize_t read_link(pid_t pid, const char *link, char path[PATH_MAX])
{
	char name[48];
	ssize_t length;

	(void)snprintf(name, sizeof(name), "/proc/%d/%s", (int)pid, link);
	length = readlink(name, path, PATH_MAX - 1);
	if (length < 0)
		return -errno;
	path[length] = '\0';
	return length;
}

/* A relative name is meant from the working directory; where that lies below the process's own root
 * is what is left of it without the root. */
static int open_relative(pid_t pid, const char *filename)
{
	char root[PATH_MAX], directory[PATH_MAX];
	ssize_t root_length = read_link(pid, "root", root);
	ssize_t length = read_link(pid, "cwd", directory);
	pl_autofree char *path = NULL;

	if (root_length < 0 || length < 0)
		return -ENOENT;
	if (root_length == 1)
		root_length = 0; /* "/" */
	if (strncmp(directory, root, (size_t)root_length) != 0 || directory[root_length] != '/')
		return -ENOENT;
	if (asprintf(&path, "%s/%s", directory + root_length, filename) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	return pl_process_open_file_as(pid, path);
}

static int open_source(pid_t pid, const char *filename)
{
	pl_autofree char *file = is_frozen(filename) ? frozen_file(pid, filename) : NULL;

	if (is_frozen(filename))
		return file ? pl_process_open_file_as(pid, file) : -ENOENT;
	return filename[0] == '/' ? pl_process_open_file_as(pid, filename) : open_relative(pid, filename);
}

static void load(struct source *source)
{
	pl_autoclose int fd = open_source(source->pid, source->filename);
	pl_autofree char *text = NULL;
	struct stat status;
	size_t size = 0;

	/* The files of /proc and tracefs say that they are empty; to read some of them takes something
	 * away from another reader. */
	if (fd < 0 || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || status.st_size <= 0 ||
		status.st_size > MAX_FILE_SIZE)
		return;
	text = malloc((size_t)status.st_size);
	while (text && size < (size_t)status.st_size) {
		ssize_t got = read(fd, text + size, (size_t)status.st_size - size);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return;
		if (got == 0)
			break; /* it became shorter meanwhile */
		size += (size_t)got;
	}
	source->text = PL_TAKE(text);
	source->size = size;
}

static const struct source *find_source(pid_t pid, const char *filename)
{
	struct source *oldest = &cache[0];

	for (size_t i = 0; i < MAX_FILES; i++) {
		struct source *source = &cache[i];

		if (source->filename && source->pid == pid && strcmp(source->filename, filename) == 0) {
			source->used = ++clock_of_use;
			return source;
		}
		if (source->used < oldest->used)
			oldest = source;
	}
	free(oldest->filename);
	free(oldest->text);
	*oldest = (struct source){.pid = pid, .filename = strdup(filename)};
	if (!oldest->filename)
		return NULL;
	oldest->used = ++clock_of_use;
	load(oldest);
	return oldest;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\f' || c == '\v' || c == '\r';
}

/* "def NAME(", behind its indentation. */
static bool defines(const char *line, const char *end, const char *name)
{
	size_t length = strlen(name);

	while (line < end && is_space(*line))
		line++;
	if (end - line > 6 && memcmp(line, "async ", 6) == 0)
		for (line += 6; line < end && is_space(*line);)
			line++;
	if (end - line < 4 || memcmp(line, "def", 3) != 0 || !is_space(line[3]))
		return false;
	for (line += 4; line < end && is_space(*line);)
		line++;
	return (size_t)(end - line) > length && memcmp(line, name, length) == 0 && strchr("( \t[", line[length]) && line[length];
}

int pl_source_definition(pid_t pid, const char *filename, const char *function, int line)
{
	const char *dot = function ? strrchr(function, '.') : NULL, *name = dot ? dot + 1 : function;
	const struct source *source = NULL;
	const char *at, *end;
	int number = 1;

	/* "<lambda>", "<module>" */
	if (name && *name && *name != '<' && line > 0 && (filename[0] != '<' || is_frozen(filename)))
		source = find_source(pid, filename);
	if (!source || !source->text)
		return 0;
	for (at = source->text; number < line; number++) {
		at = memchr(at, '\n', (size_t)(source->text + source->size - at));
		if (!at)
			return 0;
		at++;
	}
	end = memchr(at, '\n', (size_t)(source->text + source->size - at));
	if (!end)
		end = source->text + source->size;
	for (; number > line - DEFINITION_LINES_MAX; number--) {
		if (defines(at, end, name))
			return number;
		if (at == source->text)
			break;
		end = at - 1;
		at = memrchr(source->text, '\n', (size_t)(end - source->text));
		at = at ? at + 1 : source->text;
	}
	return 0;
}

char *pl_source_line(pid_t pid, const char *filename, int line)
{
	size_t length = strlen(filename);
	const struct source *source;
	const char *text, *end, *stop;

	/* "<unknown>", "<string>"; a frozen module was made of a file. */
	if (line < 1 || !length || (filename[0] == '<' && filename[length - 1] == '>' && !is_frozen(filename)))
		return NULL;
	source = find_source(pid, filename);
	if (!source || !source->text)
		return NULL;
	text = source->text;
	end = text + source->size;
	for (int i = 1; i < line; i++) {
		text = memchr(text, '\n', (size_t)(end - text));
		if (!text)
			return NULL;
		text++;
	}
	stop = memchr(text, '\n', (size_t)(end - text));
	if (!stop)
		stop = end;
	while (text < stop && is_space(*text))
		text++;
	while (text < stop && is_space(stop[-1]))
		stop--;
	/* A binary file under the name of a source is cut at its first NUL by strndup(). */
	return text < stop ? strndup(text, (size_t)(stop - text)) : NULL;
}
