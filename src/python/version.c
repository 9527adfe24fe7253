/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "pyleak/arch.h"
#include "pyleak/space.h"
#include "python_private.h"

/* A symbol that appeared in a version (and not in any before it). Py_Version says it from 3.11 on. */
static const struct {
	int minor;
	const char *symbol;
} ladder[] = {
	{ 10, "PyModule_AddObjectRef" },
	{ 9, "PyInterpreterState_Get" },
	{ 8, "PyCode_NewWithPosOnlyArgs" },
	{ 7, "_PyRuntime" },
	{ 6, "PyOS_FSPath" },
};

/*
 * The patch level before 3.11: only in the text that Py_GetVersion() keeps ("3.8.18 (default, …").
 * The function names its buffer; that the text in it starts with the right minor version proves it.
 */
static void patch_from_text(const struct object *object, struct pl_python *python)
{
	uint64_t references[8], function;
	char expected[8];
	size_t count = 0, length;

	length = (size_t)snprintf(expected, sizeof(expected), "3.%d.", python->minor);
	if (object_export(object, "Py_GetVersion", &function) < 0 ||
			pl_arch_data_references(function, object_code_read, object_code_is_data, (void *)object,
				references, sizeof(references) / sizeof(references[0]), &count) < 0)
		return;
	for (size_t i = 0; i < count; i++) {
		char text[24] = "", *end;
		unsigned long patch;

		if (pl_space_read(object->space, references[i], text, sizeof(text) - 1) < 0 ||
				strncmp(text, expected, length) != 0)
			continue;
		patch = strtoul(text + length, &end, 10);
		if (end != text + length && patch < 256) {
			python->version_hex |= (uint32_t)patch << 8;
			(void)snprintf(python->version, sizeof(python->version), "3.%d.%lu", python->minor, patch);
			return;
		}
	}
}

static int from_ladder(const struct object *object, struct pl_python *python, struct pl_error *err)
{
	for (size_t i = 0; i < sizeof(ladder) / sizeof(ladder[0]); i++) {
		if (!object_exports(object, ladder[i].symbol))
			continue;
		python->minor = ladder[i].minor;
		python->version_hex = 0x03000000u | (uint32_t)python->minor << 16;
		(void)snprintf(python->version, sizeof(python->version), "3.%d", python->minor);
		patch_from_text(object, python);
		return 0;
	}
	return pl_fail(err, -ENOEXEC, "%s in %s is a Python older than 3.6; pyleak knows 3.6 to 3.15",
		object->map->path, object->space->name);
}

static void format_version(struct pl_python *python)
{
	static const char *const levels[16] = { [0xa] = "a", [0xb] = "b", [0xc] = "rc" };
	unsigned int level = python->version_hex >> 4 & 15;
	char serial[8] = "";

	if (levels[level])
		(void)snprintf(serial, sizeof(serial), "%s%u", levels[level], python->version_hex & 15);
	(void)snprintf(python->version, sizeof(python->version), "3.%d.%u%s%s", python->minor,
		python->version_hex >> 8 & 0xff, serial, python->free_threaded ? "t" : "");
}

/* 3.13+: _PyRuntime starts with a cookie, the version again, and whether there is a GIL. */
static int check_cookie(const struct object *object, struct pl_python *python, struct pl_error *err)
{
	struct {
		char cookie[8];
		uint64_t version, free_threaded;
	} head;

	if (pl_space_read(object->space, python->runtime, &head, sizeof(head)) < 0 ||
			memcmp(head.cookie, "xdebugpy", sizeof(head.cookie)) != 0)
		return pl_fail(err, -EPROTO, "Python 3.%d in %s: _PyRuntime does not start with its cookie",
			python->minor, object->space->name);
	if (head.version != python->version_hex)
		return pl_fail(err, -EPROTO, "%s: Py_Version says %#x, _PyRuntime says %#llx", object->space->name,
			python->version_hex, (unsigned long long)head.version);
	python->free_threaded = head.free_threaded == 1;
	return 0;
}

int version_detect(const struct object *object, struct pl_python *python, struct pl_error *err)
{
	uint64_t address, version;
	int r;

	if (object_export(object, "_PyRuntime", &python->runtime) < 0)
		python->runtime = 0;
	if (object_export(object, "Py_Version", &address) < 0)
		return from_ladder(object, python, err);
	r = pl_space_read_u64(object->space, address, &version);
	if (r < 0)
		return pl_fail(err, r, "cannot read the version of Python in %s", object->space->name);
	if (version >> 24 != 3 || (version >> 16 & 0xff) < 11)
		return pl_fail(err, -ENOEXEC, "%s: %#llx is not a version of Python that pyleak knows",
			object->space->name, (unsigned long long)version);
	python->version_hex = (uint32_t)version;
	python->minor = (int)(version >> 16 & 0xff);
	if (python->minor >= 13 && python->runtime) {
		/* How _PyRuntime begins in a version from the future nobody knows; roots_find() says that it is one. */
		bool known = layout_known(python->minor);

		r = check_cookie(object, python, known ? err : NULL);
		if (r < 0 && known)
			return r;
	}
	format_version(python);
	return 0;
}
