/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include "remove.h"

bool pl_probe_word_is_there(const struct pl_probe_hook *hook, const struct pl_maps *maps)
{
	const struct pl_map *map = hook->object ? pl_maps_find(maps, hook->address) : NULL;

	return !hook->object || (map && pl_map_identity(map) == hook->object);
}

int pl_probe_explain_left(pid_t pid, int code, struct pl_error *err)
{
	switch (code) {
	case 0:
		return 0;
	case -EAGAIN:
	case -ETIMEDOUT:
		return pl_fail(err, -EAGAIN,
			"a thread of process %d is still inside the probe, or cannot be looked at: it was left in place, switched "
			"off; 'pyleak detach %d' removes it later",
			(int)pid, (int)pid);
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
