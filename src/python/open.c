/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "python_private.h"

static int open_object(struct pl_space *space, const struct pl_maps *maps, bool by_force, struct pl_python *python,
		       struct pl_error *err)
{
	struct object object = { 0 };
	int r = find_interpreter(space, maps, by_force, &object, python, err);

	if (r < 0)
		return r;
	if (object.elf && pl_elf_bias(object.elf) != object.bias) {
		r = pl_fail(err, -EPROTO, "%s: its file and its mapping disagree where it is loaded (%#llx, %#llx)",
			object.map->path, (unsigned long long)pl_elf_bias(object.elf), (unsigned long long)object.bias);
		goto out;
	}
	r = roots_check(&object, python, err);
	if (r == 0)
		r = tables_find(&object, maps, python, err);
	if (r < 0)
		goto out;
	free_lists_find(&object, python);
	python->object_start = object.map->start;
	(void)snprintf(python->executable_kind, sizeof(python->executable_kind), "%s",
		object.has_soname ? "shared" : "static");
	python->object_path = strdup(object.map->path);
	if (!python->object_path)
		r = pl_fail(err, -ENOMEM, "out of memory");
out:
	object_release(&object);
	return r;
}

int pl_python_open(struct pl_space *space, bool by_force, struct pl_python **ret, struct pl_error *err)
{
	struct pl_maps maps = { 0 };
	struct pl_python *python = calloc(1, sizeof(*python));
	int r;

	if (!python)
		return pl_fail(err, -ENOMEM, "out of memory");
	python->space = space;
	python->pid = space->pid;
	r = pl_space_maps(space, &maps);
	if (r == -EPERM || r == -EACCES)
		r = pl_fail(err, -EPERM, "may not read the memory of %s: run pyleak as its user or with sudo",
			space->name);
	else if (r < 0)
		r = pl_fail(err, r, "cannot read the memory map of %s: %s", space->name, strerror(-r));
	else
		r = open_object(space, &maps, by_force, python, err);
	pl_maps_free(&maps);
	if (r < 0) {
		pl_python_close(python);
		return r;
	}
	*ret = python;
	return 0;
}

void pl_python_close(struct pl_python *python)
{
	if (!python)
		return;
	free(python->object_path);
	free(python);
}

int pl_python_identify(struct pl_space *space, char version[32])
{
	struct pl_maps maps = { 0 };
	bool found = false, certain = false, known = false;
	int r = pl_space_maps(space, &maps);

	for (size_t i = 0; r == 0 && i < maps.count && !certain; i++) {
		struct pl_python python = { .space = space, .pid = space->pid };
		struct object object;

		r = find_candidate(space, &maps.items[i], &object);
		if (r == -EPERM || r == -ESRCH)
			break;
		if (r < 0 || version_detect(&object, &python, NULL) < 0) {
			r = 0;
			continue;
		}
		/* As find_interpreter() does, but a version that cannot be attached to has its name too. */
		certain = roots_find(&object, &python, NULL) == 0 && roots_initialised(&python);
		if (certain || !found) {
			memcpy(version, python.version, sizeof(python.version));
			known = layout_known(python.minor);
		}
		found = true;
	}
	pl_maps_free(&maps);
	if (r < 0)
		return r;
	return !found ? -ENOEXEC : known ? 0 : 1;
}
