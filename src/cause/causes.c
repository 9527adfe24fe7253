/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "head.h"
#include "parse.h"
#include "pyleak/cleanup.h"
#include "pyleak/log.h"

enum { MAX_FILE = 1 << 20 };

/* Of data/known-causes, by embed.py. */
extern const unsigned char pl_known_causes[];
extern const size_t pl_known_causes_size;

int pl_causes_builtin(struct pl_causes **ret, struct pl_error *err)
{
	return pl_causes_parse((const char *)pl_known_causes, pl_known_causes_size, "the built-in known causes", ret, err);
}

int pl_causes_read(const char *path, struct pl_causes **ret, struct pl_error *err)
{
	pl_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	pl_autofree char *text = NULL;
	struct stat status;
	ssize_t length;

	if (fd < 0 || fstat(fd, &status) < 0)
		return pl_fail(err, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISREG(status.st_mode) || status.st_size > MAX_FILE)
		return pl_fail(err, -EINVAL, "%s: not a file of known causes", path);
	text = malloc((size_t)status.st_size + 1);
	if (!text)
		return pl_fail(err, -ENOMEM, "out of memory");
	length = read(fd, text, (size_t)status.st_size);
	if (length < 0)
		return pl_fail(err, -errno, "%s: %s", path, strerror(errno));
	return pl_causes_parse(text, (size_t)length, path, ret, err);
}

const struct pl_causes *pl_causes_default(void)
{
	static struct pl_causes *causes;
	const char *named = getenv("PYLEAK_CAUSES");
	struct pl_error err = {0};
	int code;

	if (causes)
		return causes;
	code = pl_causes_read(named && *named ? named : PYLEAK_CAUSES_FILE, &causes, &err);
	/* The program alone, without what is installed beside it. */
	if (code == -ENOENT && !(named && *named))
		err = (struct pl_error){0};
	if (err.code)
		pl_log_warning("%s; the built-in known causes are used", err.text);
	if (code < 0)
		(void)pl_causes_builtin(&causes, NULL);
	return causes;
}

size_t pl_causes_count(const struct pl_causes *causes)
{
	return causes->count;
}

const struct pl_cause *pl_causes_at(const struct pl_causes *causes, size_t number)
{
	return &causes->causes[number];
}

/* A traceback, and the heads of its functions as far as they were asked for. */
struct search {
	const struct pl_frame *frames;
	size_t count;
	char **heads; /* [count]; "" is none */
	pl_causes_source source;
	void *context;
	const struct pl_cause_facts *facts;
	const char *head; /* of the decorators that a match was told by; NULL: none */
};

static const char *head_of(struct search *search, size_t frame)
{
	if (!search->heads[frame]) {
		char *head = function_head(&search->frames[frame], search->source, search->context);

		search->heads[frame] = head ? head : strdup("");
	}
	return search->heads[frame] ? search->heads[frame] : "";
}

/* A module that is frozen into the interpreter, as more of the standard library's are from version to version, matches by
 * the file that it has elsewhere: <frozen a.b> is a/b.py or a/b/__init__.py. */
static bool file_fits(const char *file, const char *filename)
{
	static const char *const endings[] = {".py", "/__init__.py"};
	char name[200], path[sizeof(name) + 20];

	if (fnmatch(file, filename, 0) == 0)
		return true;
	if (sscanf(filename, "<frozen %199[^>]>", name) != 1)
		return false;
	for (char *dot = strchr(name, '.'); dot; dot = strchr(dot, '.'))
		*dot = '/';
	for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
		(void)snprintf(path, sizeof(path), "/%s%s", name, endings[i]);
		if (fnmatch(file, path, 0) == 0)
			return true;
	}
	return false;
}

/* A line of source that says it. */
static bool line_fits(const struct search *search, const char *glob, const struct pl_frame *frame)
{
	pl_autofree char *line = search->source ? search->source(search->context, frame->filename, frame->line) : NULL;

	return line && fnmatch(glob, line, 0) == 0;
}

/* Of the cache that a head has: lru_cache(maxsize=8), lru_cache(8), lru_cache; INT_MAX: it has none. −1: not known. */
static int maxsize_of(const char *head)
{
	const char *cache = head ? strstr(head, "lru_cache") : NULL, *number;
	char *end;
	long size;

	if (!cache)
		return head && strstr(head, "cache") ? INT_MAX : -1;
	number = cache + strlen("lru_cache");
	if (*number != '(')
		return 128; /* functools.lru_cache's own */
	number += 1 + strspn(number + 1, " ");
	if (*number == ')')
		return 128;
	if (strncmp(number, "maxsize", 7) == 0)
		number += 7 + strspn(number + 7, " =");
	if (strncmp(number, "None", 4) == 0)
		return INT_MAX;
	size = strtol(number, &end, 0);
	return end == number || size < 0 || (*end != ')' && *end != ',' && *end != ' ') ? -1 : (int)(size < INT_MAX ? size : INT_MAX);
}

static int number_of(const struct search *search, const struct cause_condition *condition)
{
	const struct pl_row_types *types = search->facts ? search->facts->types : NULL;

	switch (condition->fact) {
	case CAUSE_MAXSIZE:
		return maxsize_of(search->head);
	case CAUSE_THREADS:
		return search->facts ? search->facts->threads : 0;
	case CAUSE_PYTHON:
		return search->facts ? search->facts->python : 0;
	case CAUSE_LIVE:
		return types ? pl_row_types_share(types, condition->glob) : 0;
	case CAUSE_CHAIN:
		return types ? (int)types->chain : 0;
	}
	return 0;
}

static bool holds(const struct search *search, const struct cause_condition *condition)
{
	const int number = number_of(search, condition);

	/* Not known. */
	if (condition->fact == CAUSE_MAXSIZE ? number < 0 : number <= 0)
		return false;
	return condition->relation == CAUSE_BELOW ? number < condition->number :
	       condition->relation == CAUSE_ABOVE ? number > condition->number :
						    number >= condition->number;
}

/* Of the section that a match is of, all of them. */
static bool conditions_hold(const struct pl_causes *causes, const struct search *search, size_t cause)
{
	for (size_t i = 0; i < causes->condition_count; i++)
		if (causes->conditions[i].cause == cause && !holds(search, &causes->conditions[i]))
			return false;
	return true;
}

static bool fits(struct search *search, const char *file, const char *function, size_t number)
{
	const struct pl_frame *frame = &search->frames[number];
	const char *last = frame->function ? strrchr(frame->function, '.') : NULL;

	if (!frame->function || !file_fits(file, frame->filename))
		return false;
	if (*function == '@') {
		const char *head = head_of(search, number);

		if (fnmatch(function, head, 0) != 0)
			return false;
		search->head = head;
		return true;
	}
	if (*function == '=')
		return line_fits(search, function + 1, frame);
	return fnmatch(function, frame->function, 0) == 0 || (last && fnmatch(function, last + 1, 0) == 0);
}

/* The frames of a match from the innermost on, each as far in as it fits: then the most is left for the others. */
static bool matches(struct search *search, const struct cause_match *match)
{
	size_t wanted = match->count;

	search->head = NULL;
	for (size_t i = 0; i < search->count && wanted; i++) {
		if (fits(search, match->frames[wanted - 1].file, match->frames[wanted - 1].function, i))
			wanted--;
		else if (i == 0 && !match->inner)
			return false;
	}
	return wanted == 0;
}

const struct pl_cause *pl_causes_find(const struct pl_causes *causes, const struct pl_cause_facts *facts,
	const struct pl_frame *frames, size_t count, pl_causes_source source, void *context)
{
	struct search search = {frames, count, calloc(count ? count : 1, sizeof(char *)), source, context, facts, NULL};
	const struct pl_cause *found = NULL;

	for (size_t i = 0; i < causes->match_count && search.heads && !found; i++)
		if (matches(&search, &causes->matches[i]) && conditions_hold(causes, &search, causes->matches[i].cause))
			found = &causes->causes[causes->matches[i].cause];
	for (size_t i = 0; i < count && search.heads; i++)
		free(search.heads[i]);
	free(search.heads);
	return found;
}
