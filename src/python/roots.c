/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "pyleak/arch.h"
#include "pyleak/log.h"
#include "pyleak/space.h"
#include "python_private.h"

/*
 * The words from which everything else is reached: the newest interpreter and, up to 3.11, the
 * thread state of whoever holds the GIL. Each is known from the table of offsets; where the
 * interpreter exports a function that returns it, that function's code has to agree. That is looked
 * at only once the runtime is initialised: before, the code's own pointers are not relocated yet.
 */

static int loaded_by(const struct object *object, const char *function, uint64_t *ret)
{
	uint64_t address;
	int r = object_export(object, function, &address);

	return r < 0 ? r : pl_arch_loaded_word(address, object_code_read, (void *)object, ret);
}

static int agree(const struct object *object, const struct pl_python *python, const char *what, uint64_t known,
		 const char *function, struct pl_error *err)
{
	uint64_t loaded;

	if (loaded_by(object, function, &loaded) < 0 || loaded == known)
		return 0;
	return pl_fail(err, -EPROTO, "Python %s: %s should be at %#llx, %s() reads it at %#llx", python->version, what,
		(unsigned long long)known, function, (unsigned long long)loaded);
}

/* 3.6 has no _PyRuntime: the head of the list is a local variable, which only code names. */
static int roots_of_36(const struct object *object, struct pl_python *python, struct pl_error *err)
{
	if (loaded_by(object, "PyInterpreterState_Head", &python->interpreters_head) < 0 ||
			object_export(object, "_PyThreadState_Current", &python->thread_current) < 0)
		return pl_fail(err, -EPROTO, "Python %s: its list of interpreters was not found", python->version);
	if (object_export(object, "_Py_Finalizing", &python->finalizing) < 0)
		python->finalizing = 0;
	return 0;
}

/* PyCode_Type.tp_name: says whether objects have the header that the table thinks they have. */
static int check_type(const struct pl_python *python, struct pl_error *err)
{
	uint64_t name;
	char text[5] = "";

	if (pl_space_read_u64(python->space, python->code_type + (uint64_t)python->layout.type_name, &name) < 0 ||
			pl_space_read(python->space, name, text, sizeof(text)) < 0 ||
			memcmp(text, "code", sizeof(text)) != 0)
		return pl_fail(err, -EPROTO,
			"Python %s: its objects are not laid out as in a release build (PyCode_Type has no name at %d)",
			python->version, python->layout.type_name);
	return 0;
}

static void set_roots(struct pl_python *python)
{
	const struct pl_python_layout *layout = &python->layout;

	python->interpreters_head = python->runtime + (uint64_t)layout->runtime_interpreters_head;
	python->finalizing = python->runtime + (uint64_t)layout->runtime_finalizing;
	if (layout->runtime_tstate_current != PL_NO_FIELD)
		python->thread_current = python->runtime + (uint64_t)layout->runtime_tstate_current;
}

/* The layout as the interpreter says it, by the rules of a minor version. What the table says too needs no proof. */
static int take_said(const struct object *object, struct pl_python *python, int minor, struct pl_error *err)
{
	uint8_t offsets[DEBUG_OFFSETS_MAX];
	size_t size = debug_offsets_size(minor);
	struct pl_python said = *python;
	struct pl_error moved, doubt = { 0 };
	int r = layout_table(minor, 0, python->free_threaded, &said.layout);

	if (r == 0)
		r = pl_space_read(python->space, python->runtime, offsets, size);
	if (r < 0)
		return pl_fail(err, r, "cannot read _PyRuntime of %s", python->space->name);
	r = debug_offsets_apply(minor, python->free_threaded, offsets, size, &said.layout, &moved, err);
	if (r < 0)
		return r;
	set_roots(&said);
	if (moved.code || minor != python->minor) {
		r = layout_prove(object, &said, &doubt);
		if (r < 0)
			return pl_fail(err, r, "%s%s%s", moved.text, moved.code ? ", but " : "", doubt.text);
		pl_log_debug("the layout of Python %s is what its _PyRuntime says: it holds", python->version);
	}
	*python = said;
	return 0;
}

/* Of a newer version we only know that it may have changed as little as the ones before it. */
static int take_unknown(const struct object *object, struct pl_python *python, struct pl_error *err)
{
	struct pl_error newest = { 0 };

	if (python->minor < DEBUG_OFFSETS_FIRST || !python->runtime)
		return pl_fail(err, -ENOEXEC, "%s runs Python %s; pyleak knows CPython 3.6 to 3.15", python->space->name,
			python->version);
	if (!python->by_force)
		return pl_fail(err, -ENOEXEC, "%s runs Python %s; pyleak knows CPython 3.6 to 3.15 (--force takes a "
			"newer one, if what it says of itself holds)", python->space->name, python->version);
	python->unknown = true;
	for (int minor = DEBUG_OFFSETS_LAST; minor >= DEBUG_OFFSETS_FIRST; minor--) {
		struct pl_error doubt = { 0 };

		if (take_said(object, python, minor, &doubt) == 0)
			return 0;
		pl_log_debug("not as 3.%d: %s", minor, doubt.text);
		if (!newest.code)
			newest = doubt;
	}
	return pl_fail(err, -ENOEXEC, "%s runs Python %s, which pyleak does not know, and what it says of itself does "
		"not hold: %s", python->space->name, python->version, newest.text);
}

int roots_find(const struct object *object, struct pl_python *python, struct pl_error *err)
{
	int r = object_export(object, "PyCode_Type", &python->code_type);

	if (r < 0)
		return pl_fail(err, -ENOEXEC, "%s does not export PyCode_Type", object->map->path);
	if (!layout_known(python->minor))
		return take_unknown(object, python, err);
	r = layout_table(python->minor, (int)(python->version_hex >> 8 & 0xff), python->free_threaded, &python->layout);
	if (r < 0)
		return pl_fail(err, r, "%s runs Python %s; pyleak knows CPython 3.6 to 3.15", python->space->name,
			python->version);
	if (python->minor == 6)
		return roots_of_36(object, python, err);
	if (!python->runtime)
		return pl_fail(err, -ENOEXEC, "Python %s in %s does not export _PyRuntime", python->version,
			python->space->name);
	if (debug_offsets_size(python->minor))
		return take_said(object, python, python->minor, err);
	set_roots(python);
	return 0;
}

int roots_check(const struct object *object, const struct pl_python *python, struct pl_error *err)
{
	uint64_t local;
	int r = check_type(python, err);

	if (r == 0)
		r = agree(object, python, "the list of interpreters", python->interpreters_head,
			"PyInterpreterState_Head", err);
	if (r == 0 && python->thread_current)
		r = agree(object, python, "the current thread state", python->thread_current,
			"_PyThreadState_UncheckedGet", err);
	if (r == 0 && python->minor == 6 && object_local(object, "interp_head", &local) == 0 &&
			local != python->interpreters_head)
		r = pl_fail(err, -EPROTO, "Python %s: interp_head is at %#llx, PyInterpreterState_Head() reads it at %#llx",
			python->version, (unsigned long long)local, (unsigned long long)python->interpreters_head);
	return r;
}

bool roots_initialised(const struct pl_python *python)
{
	const struct pl_python_layout *layout = &python->layout;
	uint64_t interpreter, thread, owner;

	if (pl_space_read_u64(python->space, python->interpreters_head, &interpreter) < 0)
		return false;
	/* New interpreters are put in front, and one that nobody runs has no thread (3.13). */
	for (int i = 0; interpreter && i < INTERPRETERS_MAX; i++) {
		if (pl_space_read_u64(python->space, interpreter + (uint64_t)layout->interpreter_threads_head, &thread) < 0)
			return false;
		if (thread)
			return pl_space_read_u64(python->space, thread + (uint64_t)layout->thread_interpreter, &owner) == 0 &&
				owner == interpreter;
		if (pl_space_read_u64(python->space, interpreter + (uint64_t)layout->interpreter_next, &interpreter) < 0)
			return false;
	}
	return false;
}

bool pl_python_is_ending(const struct pl_python *python)
{
	uint64_t word;

	return python->finalizing && pl_space_read_u64(python->space, python->finalizing, &word) == 0 && word;
}
