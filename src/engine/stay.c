/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"
#include "pyleak/engine.h"
#include "pyleak/hook.h"
#include "pyleak/memory.h"
#include "pyleak/process.h"

/* Who stays in a probe that is to be removed, and on which line of Python: what a person can do something about. */

/* struct pthread has the number of its thread at some place. */
enum { PTHREAD_BYTES = 2048, THREADS_MAX = 1024 };
/* What waits is a few calls further in, most often in the standard library. */
enum { FRAMES = 5 };

static bool names(const uint32_t *words, size_t count, pid_t number)
{
	for (size_t i = 0; number && i < count; i++)
		if (words[i] == (uint32_t)number)
			return true;
	return false;
}

/* Of the first thread's number others know too (older C libraries have the process's behind the thread's). */
static bool names_another(const struct pl_python *python, const uint32_t *words, size_t count)
{
	pl_autofree pid_t *tids = NULL;
	size_t tid_count = 0;

	if (pl_process_threads(python->pid, &tids, &tid_count) < 0)
		return true;
	for (size_t i = 0; i < tid_count && i < THREADS_MAX; i++)
		if (tids[i] != python->pid && names(words, count, pl_process_own_number(python->pid, tids[i])))
			return true;
	return false;
}

static uint64_t find_pointer(const struct pl_python *python, pid_t tid)
{
	pl_autofree uint64_t *pointers = calloc(THREADS_MAX, sizeof(*pointers));
	const pid_t number = pl_process_own_number(python->pid, tid);
	size_t count = pointers ? pl_python_thread_pointers(python, pointers, THREADS_MAX) : 0;

	for (size_t i = 0; i < count; i++) {
		uint32_t words[PTHREAD_BYTES / 4];
		ssize_t got = pl_memory_read_some(python->pid, pointers[i] + (uint64_t)python->thread_self, words, sizeof(words));
		size_t word_count = got > 0 ? (size_t)got / 4 : 0;

		if (names(words, word_count, number) && (tid != python->pid || !names_another(python, words, word_count)))
			return pointers[i];
	}
	return 0;
}

static void add_frame(const struct pl_python *python, const struct pl_frame_ref *frame, char *text, size_t size)
{
	const size_t length = strlen(text);
	struct pl_code code;
	const char *slash;

	if (length + 1 >= size || pl_python_code_read(python, frame->code, &code) < 0)
		return;
	slash = strrchr(code.filename, '/');
	(void)snprintf(text + length, size - length, "%s%s (%s:%d)", length ? ", called by " : "", code.name,
		slash ? slash + 1 : code.filename,
		pl_line_lookup(python->minor, code.line_table, code.line_table_size, code.first_line, frame->offset));
	pl_code_free(&code);
}

static bool find_place(const struct pl_python *python, pid_t tid, char *text, size_t size)
{
	struct pl_frame_ref frames[FRAMES];
	uint64_t pointer = find_pointer(python, tid), state = 0;
	size_t count = pointer ? pl_python_thread_stack(python, pointer, &state, frames, FRAMES, NULL) : 0;

	text[0] = '\0';
	for (size_t i = 0; i < count; i++)
		add_frame(python, &frames[i], text, size);
	return text[0] != '\0';
}

static bool look(pid_t pid, struct pl_probe_left *ret)
{
	struct pl_probe probe = {0};
	bool found = pl_probe_find(pid, &probe) == 0 && pl_probe_who_stays(&probe, ret) == 0;

	pl_probe_free(&probe);
	return found;
}

int pl_engine_pass_on(const struct pl_python *python, int code, const char *why, struct pl_error *err)
{
	struct pl_probe_left left;
	char place[512];

	if (!code)
		return 0;
	if (python && code == -EAGAIN && look(python->pid, &left) && left.tid && find_place(python, left.tid, place, sizeof(place)))
		return pl_fail(err, code, "%s; Python is in %s", why, place);
	return pl_fail(err, code, "%s", why);
}

bool pl_engine_who_stays(pid_t pid, const struct pl_python *python, char *text, size_t size)
{
	struct pl_probe_left left;
	char place[512];

	if (!look(pid, &left))
		return false;
	pl_probe_describe_stay(pid, &left, text, size);
	if (left.tid && python && find_place(python, left.tid, place, sizeof(place)) && strlen(text) + 1 < size)
		(void)snprintf(text + strlen(text), size - strlen(text), "; Python is in %s", place);
	return true;
}
