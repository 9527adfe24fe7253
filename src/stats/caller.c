/* SPDX-License-Identifier: MIT */
#include "caller.h"

#include <ctype.h>
#include <fnmatch.h>
#include <string.h>

/* pip's launchers call their program in line 8, setuptools' older ones and Debian's in line 33. */
enum { LAUNCHER_LINES_MAX = 40 };

bool caller_matches(const char *filename, const char *const *globs)
{
	const char *slash = strrchr(filename, '/');

	for (; globs && *globs; globs++) {
		if (fnmatch(*globs, filename, 0) == 0)
			return true;
		if (slash && !strchr(*globs, '/') && fnmatch(*globs, slash + 1, 0) == 0)
			return true;
	}
	return false;
}

/* A folder of the standard library, such as "/usr/lib/python3.11/" or, zipped, "/usr/lib64/python311.zip/". */
static bool is_below(const char *filename, const char *folder)
{
	const char *found = filename;

	while ((found = strstr(found, folder))) {
		found += strlen(folder);
		if (isdigit((unsigned char)*found))
			return true;
	}
	return false;
}

bool pl_is_library(const char *filename)
{
	return filename[0] == '<' || strstr(filename, "/site-packages/") || strstr(filename, "/dist-packages/") ||
	       is_below(filename, "/lib/python") || is_below(filename, "/lib64/python");
}

static bool ends_in(const char *text, const char *end)
{
	size_t length = strlen(text), tail = strlen(end);

	return length >= tail && strcmp(text + length - tail, end) == 0;
}

/* "/srv/venv/bin/gunicorn": not what somebody wrote, which is longer, or has a suffix. */
static bool is_launcher(const struct pl_frame *frame)
{
	const char *name = strrchr(frame->filename, '/');

	return name && name - frame->filename >= 4 && memcmp(name - 4, "/bin", 4) == 0 && !strchr(name, '.') &&
	       frame->function && strcmp(frame->function, "<module>") == 0 && frame->line <= LAUNCHER_LINES_MAX;
}

/* Frames of libraries that say nothing of who called, by the last part of the function's name (NULL: all of the file). */
static const struct {
	const char *file, *function;
	enum frame_kind kind;
} known[] = {
	{"<frozen runpy>", NULL, FRAME_STARTER},
	{"/runpy.py", NULL, FRAME_STARTER},
	{"<frozen importlib._bootstrap>", NULL, FRAME_STARTER},
	{"<frozen importlib._bootstrap_external>", NULL, FRAME_STARTER},
	{"/threading.py", "_bootstrap", FRAME_STARTER},
	{"/threading.py", "_bootstrap_inner", FRAME_STARTER},
	{"/threading.py", "run", FRAME_STARTER},
	{"/asyncio/events.py", "_run", FRAME_CALLBACK},
	{"/asyncio/base_events.py", "_run_once", FRAME_LOOP},
	{"/asyncio/base_events.py", "run_forever", FRAME_LOOP},
	{"/asyncio/base_events.py", "run_until_complete", FRAME_LOOP},
	{"/asyncio/runners.py", "run", FRAME_RUNNER},
	{"/uvloop/__init__.py", "run", FRAME_RUNNER},
	{"/trio/_core/_run.py", "unrolled_run", FRAME_CALLBACK},
};

enum frame_kind caller_kind(const struct pl_frame *frame, const char *const *libraries)
{
	const char *name = frame->function ? frame->function : "", *dot = strrchr(name, '.'), *function = dot ? dot + 1 : name;

	if (strcmp(frame->filename, "<unknown>") == 0)
		return FRAME_UNKNOWN;
	if (frame->filename[0] == '<' && strncmp(frame->filename, "<frozen ", 8) != 0)
		return FRAME_WITHOUT_FILE;
	if (!pl_is_library(frame->filename)) {
		if (caller_matches(frame->filename, libraries))
			return FRAME_LIBRARY;
		return is_launcher(frame) ? FRAME_LAUNCHER : FRAME_OWN;
	}
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (ends_in(frame->filename, known[i].file) && (!known[i].function || strcmp(function, known[i].function) == 0))
			return known[i].kind;
	return FRAME_LIBRARY;
}

/* The outermost frame that tells more than that something was started. */
static size_t find_outermost(const uint8_t *kinds, const uint32_t *numbers, size_t count)
{
	for (size_t i = count; i-- > 0;)
		if (kinds[numbers[i]] != FRAME_STARTER && kinds[numbers[i]] != FRAME_LAUNCHER)
			return i;
	return count - 1;
}

struct caller_place caller_find(const uint8_t *kinds, const uint32_t *numbers, size_t count)
{
	size_t without_file = count, end = count;
	bool task = false;

	if (kinds[numbers[0]] == FRAME_UNKNOWN)
		return (struct caller_place){0, PL_CALLER_NONE};
	for (size_t i = 0; i < end; i++) {
		enum frame_kind kind = kinds[numbers[i]], inner = i ? kinds[numbers[i - 1]] : FRAME_LOOP;

		/* What a launcher does itself is at least in no library. */
		if (kind == FRAME_OWN || (kind == FRAME_LAUNCHER && i == 0))
			return (struct caller_place){i, PL_CALLER_OWN};
		if (kind == FRAME_WITHOUT_FILE && without_file == count)
			without_file = i;
		/* What the loop does of itself is the matter of who runs it. */
		task = (kind == FRAME_CALLBACK && i > 0) || (kind == FRAME_RUNNER && inner != FRAME_LOOP && inner != FRAME_RUNNER);
		if (task)
			end = i;
	}
	if (without_file < count)
		return (struct caller_place){without_file, PL_CALLER_OWN};
	if (task)
		return (struct caller_place){end - 1, PL_CALLER_TASK};
	return (struct caller_place){find_outermost(kinds, numbers, count), PL_CALLER_LIBRARY};
}
