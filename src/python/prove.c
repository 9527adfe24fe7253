/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>

#include "pyleak/arch.h"
#include "pyleak/cleanup.h"
#include "pyleak/space.h"
#include "pyleak/units.h"
#include "python_private.h"

/*
 * Every field of a layout, followed to something that it must lead to. The threads run meanwhile, so
 * one look may see half of a change: it is enough that all holds once.
 */

enum {
	ATTEMPTS = 100,
	THREADS_MAX = 1 << 16,
	FRAMES_MAX = 512,
	NAME_MAX_BYTES = 4096,
	CODE_HEADER = 256, /* more than any field of PyCodeObject that is read */
	CODE_UNIT = 2,
	LINES_MAX = 1 << 24,
	OWNERS = 8,            /* enum _frameowner is smaller */
	STATUS_BOUND = 3,      /* _status: initialized, bound; not unbound */
	STATUS_BINDING = 7,
};
#define FLAG_READY (1u << 12) /* Py_TPFLAGS_READY and the subclass flags of str and bytes */
#define FLAG_BYTES (1u << 27)
#define FLAG_STRING (1u << 28)
#define REPLACED "\xef\xbf\xbd" /* what few names have: a NUL, or half of a surrogate pair */
#define PAUSE_NSEC 2000000

struct proof {
	const struct pl_python *python;
	uint64_t type, string, bytes; /* PyType_Type, PyUnicode_Type, PyBytes_Type */
	uint64_t main_interpreter;
	int names, names_replaced;
	int modules, modules_at_1; /* frames of modules, and those of them whose code begins in line 1 */
	struct pl_error doubt;
};

static bool doubt(struct proof *proof, const char *what)
{
	pl_fail(&proof->doubt, -EPROTO, "Python %s: %s", proof->python->version, what);
	return false;
}

static bool read_word(const struct proof *proof, uint64_t object, int32_t offset, uint64_t *ret)
{
	return pl_space_read_u64(proof->python->space, object + (uint64_t)offset, ret) == 0;
}

static bool is_of(const struct proof *proof, uint64_t object, uint64_t type)
{
	uint64_t found;

	return !(object & 7) && read_word(proof, object, proof->python->layout.object_type, &found) && found == type;
}

static bool has_flags(const struct proof *proof, uint64_t type, uint64_t flags)
{
	uint64_t found;

	return is_of(proof, type, proof->type) && read_word(proof, type, proof->python->layout.type_flags, &found) &&
		(found & flags) == flags && !(found >> 32);
}

static bool types_hold(struct proof *proof)
{
	const struct pl_python *python = proof->python;
	uint64_t name;
	char text[5] = "";

	if (!has_flags(proof, python->code_type, FLAG_READY) || !has_flags(proof, proof->string, FLAG_READY | FLAG_STRING) ||
			!has_flags(proof, proof->bytes, FLAG_READY | FLAG_BYTES))
		return doubt(proof, "the types of code, str and bytes are not where types have their flags");
	if (!read_word(proof, python->code_type, python->layout.type_name, &name) ||
			pl_space_read(python->space, name, text, sizeof(text)) < 0 || memcmp(text, "code", sizeof(text)) != 0)
		return doubt(proof, "the type of code does not have its name where types have it");
	return true;
}

static bool is_pthread(const struct proof *proof, uint64_t pointer)
{
	uint64_t word;

	return !(pointer & 7) && read_word(proof, pointer, 0, &word) && pl_arch_is_thread(pointer, word);
}

/* As many bytes of a code object as its fields need. */
static bool read_code(const struct proof *proof, uint64_t code, uint8_t header[CODE_HEADER])
{
	const struct pl_python_layout *layout = &proof->python->layout;
	const int32_t fields[] = { layout->code_filename, layout->code_name, layout->code_qualname, layout->code_line_table,
		layout->code_first_line, layout->code_first_traceable, layout->bytes_size };
	int32_t last = field_last(fields, sizeof(fields) / sizeof(fields[0]));

	return pl_space_read(proof->python->space, code, header, (size_t)last + 8) == 0 &&
		is_of(proof, code, proof->python->code_type);
}

static bool code_holds(struct proof *proof, uint64_t code, int32_t offset, bool *ret_line)
{
	const struct pl_python_layout *layout = &proof->python->layout;
	pl_autofree uint8_t *table = NULL;
	pl_autofree char *text = NULL;
	uint8_t header[CODE_HEADER];
	uint64_t lines, lines_size, units;
	int32_t first_line, first_traceable;

	if (!read_code(proof, code, header))
		return doubt(proof, "a frame's code is not a code object");
	units = field_u64(header, layout->bytes_size); /* PyVarObject.ob_size, as for bytes */
	lines = field_u64(header, layout->code_line_table);
	first_line = (int32_t)field_u32(header, layout->code_first_line);
	first_traceable = (int32_t)field_u32(header, layout->code_first_traceable);
	for (int i = 0; i < 3; i++) {
		const int32_t names[] = { layout->code_filename, layout->code_name, layout->code_qualname };
		uint64_t name = field_u64(header, names[i]);

		free(PL_TAKE(text));
		if (!is_of(proof, name, proof->string) ||
				pl_python_string(proof->python, name, NAME_MAX_BYTES, &text) < 0 || !text[0])
			return doubt(proof, "a code object has no name where it should have one");
		proof->names++;
		proof->names_replaced += strstr(text, REPLACED) != NULL;
	}
	if (strcmp(text, "<module>") == 0) {
		proof->modules++;
		proof->modules_at_1 += first_line == 1;
	}
	if (!units || units > INT32_MAX / CODE_UNIT || offset < 0 || offset >= (int64_t)units * CODE_UNIT)
		return doubt(proof, "a frame's instruction is not in its code");
	if (first_line < 0 || first_line > LINES_MAX || first_traceable < 0 || (uint64_t)first_traceable > units)
		return doubt(proof, "a code object does not begin in a line");
	if (!is_of(proof, lines, proof->bytes) || !read_word(proof, lines, layout->bytes_size, &lines_size) ||
			lines_size > LINES_MAX)
		return doubt(proof, "a code object has no table of lines");
	table = malloc(lines_size + 1);
	if (!table || pl_space_read(proof->python->space, lines + (uint64_t)layout->bytes_data, table, lines_size) < 0)
		return doubt(proof, "a table of lines cannot be read");
	/* It is for that code if it ends where the code ends. */
	if (pl_line_lookup(proof->python->minor, table, lines_size, first_line, (int32_t)units * CODE_UNIT) != 0)
		return doubt(proof, "a table of lines does not end with its code");
	*ret_line |= pl_line_lookup(proof->python->minor, table, lines_size, first_line, offset) > 0;
	return true;
}

static bool owners_hold(struct proof *proof, uint64_t frame)
{
	const struct pl_python_layout *layout = &proof->python->layout;
	uint8_t owner;

	for (int i = 0; frame && i < FRAMES_MAX; i++) {
		if (pl_space_read(proof->python->space, frame + (uint64_t)layout->frame_owner, &owner, 1) < 0 || owner >= OWNERS ||
				!read_word(proof, frame, layout->frame_previous, &frame))
			return doubt(proof, "a frame does not say who owns it");
	}
	return true;
}

static bool stack_holds(struct proof *proof, uint64_t thread, uint64_t frame, int *ret_stacks)
{
	struct pl_frame_ref frames[FRAMES_MAX];
	bool more, line = false;
	size_t count = pl_python_stack(proof->python, thread, frames, FRAMES_MAX, &more);

	if (more && count < FRAMES_MAX)
		return doubt(proof, "a thread's frames do not lead to each other");
	if (!count)
		return true; /* nothing but the frame that all others would stand on */
	++*ret_stacks;
	for (size_t i = 0; i < count; i++)
		if (!code_holds(proof, frames[i].code, frames[i].offset, &line))
			return false;
	return owners_hold(proof, frame) && (line || doubt(proof, "no frame is at a line"));
}

/* *ret_stacks: how many of the interpreter's threads run Python. */
static bool threads_hold(struct proof *proof, uint64_t interpreter, int *ret_stacks)
{
	const struct pl_python_layout *layout = &proof->python->layout;
	uint64_t address, previous = 0;

	if (!read_word(proof, interpreter, layout->interpreter_threads_head, &address) || !address)
		return doubt(proof, "the interpreter has no thread");
	for (int i = 0; address && i < THREADS_MAX; i++) {
		struct thread_state thread;
		uint64_t status;

		if (address & 7 || thread_read(proof->python, address, &thread) < 0 || thread.interpreter != interpreter ||
				thread.previous != previous)
			return doubt(proof, "the interpreter's threads are not linked to each other");
		if ((thread.id || thread.frame) && !is_pthread(proof, thread.id))
			return doubt(proof, "a thread state does not say whose it is");
		if (!read_word(proof, address, layout->thread_status, &status) ||
				(thread.id && (status & STATUS_BINDING) != STATUS_BOUND))
			return doubt(proof, "a thread state has another status than its thread");
		if (thread.frame && !stack_holds(proof, address, thread.frame, ret_stacks))
			return false;
		previous = address;
		address = thread.next;
	}
	return true;
}

static bool gil_holds(struct proof *proof)
{
	enum { LAST_HOLDER = 8, LOCKED = 16 };
	const struct pl_python_layout *layout = &proof->python->layout;
	struct thread_state thread;
	uint64_t gil, holder, locked;

	if (layout->interpreter_gil == PL_NO_FIELD)
		return true;
	if (!read_word(proof, proof->main_interpreter, layout->interpreter_gil, &gil) || gil & 7 ||
			!read_word(proof, gil, LAST_HOLDER, &holder) || !read_word(proof, gil, LOCKED, &locked) ||
			(int32_t)locked < -1 || (int32_t)locked > 1 ||
			(holder && (holder & 7 || thread_read(proof->python, holder, &thread) < 0)))
		return doubt(proof, "the interpreter has no GIL where it should have one");
	return true;
}

static bool interpreters_hold(struct proof *proof)
{
	const struct pl_python_layout *layout = &proof->python->layout;
	uint64_t interpreter, next, id = UINT64_MAX;
	int stacks = 0;

	if (!read_word(proof, proof->python->interpreters_head, 0, &interpreter) || !interpreter)
		return doubt(proof, "there is no interpreter");
	for (int i = 0; interpreter && i < INTERPRETERS_MAX; i++) {
		if (interpreter & 7 || !read_word(proof, interpreter, layout->interpreter_next, &next) ||
				!read_word(proof, interpreter, layout->interpreter_id, &id))
			return doubt(proof, "the interpreters are not linked to each other");
		if (!threads_hold(proof, interpreter, &stacks))
			return false;
		proof->main_interpreter = interpreter;
		interpreter = next;
	}
	if (interpreter || id != 0)
		return doubt(proof, "the first interpreter does not have the number 0");
	if (2 * proof->names_replaced > proof->names)
		return doubt(proof, "the names of code objects are no text");
	/* What eval() compiles is called so too, and begins anywhere. */
	if (proof->modules && !proof->modules_at_1)
		return doubt(proof, "no module begins in line 1");
	return gil_holds(proof) && (stacks || doubt(proof, "no thread runs anything that could prove it"));
}

int layout_prove(const struct object *object, const struct pl_python *python, struct pl_error *err)
{
	struct proof proof = { .python = python };

	if (object_export(object, "PyType_Type", &proof.type) < 0 || object_export(object, "PyUnicode_Type", &proof.string) < 0 ||
			object_export(object, "PyBytes_Type", &proof.bytes) < 0)
		return pl_fail(err, -EPROTO, "%s does not export the types of str and bytes", object->map->path);
	for (int i = 0; i < ATTEMPTS; i++) {
		proof.doubt = (struct pl_error){ 0 };
		proof.names = proof.names_replaced = proof.modules = proof.modules_at_1 = 0;
		/* Types do not change: what is wrong with them stays wrong. */
		if (!types_hold(&proof))
			break;
		if (interpreters_hold(&proof))
			return 0;
		pl_sleep_ns(PAUSE_NSEC);
	}
	return pl_fail(err, proof.doubt.code, "%s", proof.doubt.text);
}
