/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "python_private.h"

enum what { NOTHING, CPYTHON, PYTHON_2, PYPY };

static enum what classify(const struct object *object)
{
	if (object_exports(object, "PyCode_Type"))
		return object_exports(object, "PyString_Type") ? PYTHON_2 : CPYTHON;
	if (object_exports(object, "pypy_main_startup") || object_exports(object, "pypy_execute_source"))
		return PYPY;
	return NOTHING;
}

static int read_mapped(struct pl_space *space, const struct pl_map *map, struct object *ret)
{
	if (map->offset != 0 || !map->inode || !(map->flags & PL_MAP_READ))
		return -ENOEXEC;
	return object_read(space, map, ret);
}

int find_candidate(struct pl_space *space, const struct pl_map *map, struct object *ret)
{
	int r = read_mapped(space, map, ret);

	return r < 0 ? r : classify(ret) == CPYTHON ? 0 : -ENOEXEC;
}

/* Whether one of the object's writable segments is mapped privately from its file: a loaded object,
 * unlike the copy of an executable that someone mapped to read it. */
static bool is_loaded(const struct pl_maps *maps, const struct object *object)
{
	for (size_t i = 0; i < object->segment_count; i++) {
		const struct pl_map *map;

		if (!object->segments[i].writable)
			continue;
		/* The start may be read-only after relocation: look at the last byte, .data or .bss. */
		map = pl_maps_find(maps, object->segments[i].end - 1);
		if (map && (map->flags & PL_MAP_WRITE) && !(map->flags & PL_MAP_SHARED))
			return true;
	}
	return false;
}

/*
 * A process may map several objects that define an interpreter (a second libpython that something
 * opened, an executable mapped again): the one to take is loaded, and its runtime is initialised.
 */
int find_interpreter(struct pl_space *space, const struct pl_maps *maps, bool by_force, struct object *ret, struct pl_python *python,
		     struct pl_error *err)
{
	bool python_2 = false, pypy = false;
	struct pl_error first = { 0 };

	for (size_t i = 0; i < maps->count; i++) {
		const struct pl_map *map = &maps->items[i];
		struct pl_python found = { .space = space, .pid = space->pid, .by_force = by_force };
		struct pl_error why = { 0 };
		struct object object;
		enum what what;
		int r;

		r = read_mapped(space, map, &object);
		if (r == -EPERM)
			return pl_fail(err, r, "may not read the memory of %s: run pyleak as its user or with sudo",
				space->name);
		if (r == -ESRCH)
			return pl_fail(err, r, "%s has ended", space->name);
		if (r < 0)
			continue;
		what = classify(&object);
		python_2 |= what == PYTHON_2;
		pypy |= what == PYPY;
		if (what != CPYTHON || !is_loaded(maps, &object))
			continue;
		/* Local symbols only confirm; without the file (deleted, no privilege) the exported ones do. */
		if (pl_elf_open(space, maps, map, &object.elf, NULL) < 0)
			object.elf = NULL;
		if (version_detect(&object, &found, &why) == 0 && thread_self_find(&object, maps, &found, &why) == 0 &&
			roots_find(&object, &found, &why) == 0) {
			if (roots_initialised(&found)) {
				*ret = object;
				*python = found;
				return 0;
			}
			pl_fail(&why, -ENOEXEC, "Python %s in %s is not initialised (yet)", found.version, space->name);
		}
		object_release(&object);
		if (!first.code)
			first = why;
	}
	if (first.code)
		return pl_fail(err, first.code, "%s", first.text);
	if (pypy)
		return pl_fail(err, -ENOEXEC, "%s runs PyPy; pyleak knows CPython 3.6 to 3.15", space->name);
	if (python_2)
		return pl_fail(err, -ENOEXEC, "%s runs Python 2; pyleak knows CPython 3.6 to 3.15", space->name);
	return pl_fail(err, -ENOEXEC, "%s is not a Python process (nothing that it has mapped exports CPython)",
		space->name);
}
