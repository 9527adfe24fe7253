/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "pyleak/process.h"
#include "pyleak/text.h"
#include "remove.h"

bool pl_probe_word_is_there(const struct pl_probe_hook *hook, const struct pl_maps *maps)
{
	const struct pl_map *map = hook->object ? pl_maps_find(maps, hook->address) : NULL;

	return !hook->object || (map && pl_map_identity(map) == hook->object);
}

/* The part of the sentence behind "is still inside the probe" or "is perhaps still …". */
static const char *what_keeps_it(const struct pl_probe_left *left)
{
	switch (left->stay) {
	case PL_PROBE_STAY_CODE:
		return ", at an instruction of it";
	case PL_PROBE_STAY_CALL:
		return ", in an allocator's function that it called from there";
	case PL_PROBE_STAY_SIGNAL:
		return ", where the handler of a signal has interrupted it";
	case PL_PROBE_STAY_OBJECTS:
		return ", in the deallocator of a list, dict, tuple or float (a finalizer of what was in it takes long?)";
	case PL_PROBE_STAY_STACK:
		return ", for it changes its stack all the time";
	case PL_PROBE_STAY_TRACED:
		return ", for another process traces it";
	default:
		return ", for it could not be stopped to be looked at";
	}
}

void pl_probe_describe_stay(pid_t pid, const struct pl_probe_left *left, char *text, size_t size)
{
	const bool is_inside = left->stay >= PL_PROBE_STAY_CODE && left->stay <= PL_PROBE_STAY_OBJECTS;
	char who[64], name[PL_PROCESS_THREAD_NAME] = "";

	if (left->stay == PL_PROBE_STAY_NOT_SAID) {
		(void)snprintf(text, size, "no thread of process %d could be held to make the calls that removing the probe takes",
			(int)pid);
		return;
	}
	if (left->tid && pl_process_name_of_thread(pid, left->tid, name) == 0) {
		pl_text_blank(name, strlen(name));
		(void)snprintf(who, sizeof(who), "thread %d (%s)", (int)left->tid, name);
	} else if (left->tid) {
		(void)snprintf(who, sizeof(who), "thread %d", (int)left->tid);
	} else {
		(void)snprintf(who, sizeof(who), "a thread");
	}
	(void)snprintf(text, size, "%s of process %d is %sstill inside the probe%s", who, (int)pid, is_inside ? "" : "perhaps ",
		what_keeps_it(left));
}

int pl_probe_explain_left(pid_t pid, int code, const struct pl_probe_left *left, struct pl_error *err)
{
	char text[256];

	switch (code) {
	case 0:
		return 0;
	case -EAGAIN:
	case -ETIMEDOUT:
		pl_probe_describe_stay(pid, left, text, sizeof(text));
		return pl_fail(err, -EAGAIN,
			"%s: it was left in place, switched off; 'pyleak detach %d' removes it later", text, (int)pid);
	case -EBUSY:
		return pl_fail(err, -EBUSY,
			"another tool has hooked process %d on top of pyleak: a pass-through was left in place, "
			"'pyleak detach %d' removes it when that tool is gone",
			(int)pid, (int)pid);
	default:
		return pl_fail(err, code, "the probe in process %d could not be removed: %s; try 'pyleak detach %d'",
			(int)pid, strerror(-code), (int)pid);
	}
}
