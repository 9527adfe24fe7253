/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "pyleak/log.h"
#include "python_private.h"

/*
 * _Py_DebugOffsets (pycore_runtime.h, pycore_debug_offsets.h), with which _PyRuntime begins since
 * 3.13: what the interpreter says of its own structs. It does not say all, and it has itself a layout
 * that every minor version changes.
 */

enum { RUNTIME_LIMIT = 1 << 20, INTERPRETER_LIMIT = 1 << 20, FRAME_LIMIT = 120, CODE_LIMIT = 248, OBJECT_LIMIT = 512 };

enum described { RUNTIME, INTERPRETER, THREAD, FRAME, CODE, OBJECT, TYPE, TUPLE, BYTES, STRING };
static const struct {
	int16_t size_at[3]; /* in 3.13, 3.14, 3.15 */
	int32_t limit;      /* of an offset: what the readers of this struct have room for */
} structs[] = {
	[RUNTIME] = { { 24, 24, 24 }, RUNTIME_LIMIT },
	[INTERPRETER] = { { 48, 48, 48 }, INTERPRETER_LIMIT },
	[THREAD] = { { 152, 176, 176 }, THREAD_STATE_SPAN - 8 },
	[FRAME] = { { 224, 248, 312 }, FRAME_LIMIT },
	[CODE] = { { 272, 312, 376 }, CODE_LIMIT },
	[OBJECT] = { { 352, 400, 464 }, OBJECT_LIMIT },
	[TYPE] = { { 368, 416, 480 }, OBJECT_LIMIT },
	[TUPLE] = { { 400, 448, 544 }, OBJECT_LIMIT },
	[BYTES] = { { 512, 592, 688 }, OBJECT_LIMIT },
	[STRING] = { { 536, 616, 712 }, OBJECT_LIMIT },
};

#define FIELD(name) #name, offsetof(struct pl_python_layout, name)
static const struct debug_offset {
	const char *name;
	size_t field;
	enum described in;
	int16_t at[3]; /* in 3.13, 3.14, 3.15; 0: not there */
	enum { ANY, FREE_THREADED, WITH_GIL } only;
	bool last; /* of its struct: an array without a length */
} debug_offsets_fields[] = {
	{ FIELD(runtime_finalizing), RUNTIME, { 32, 32, 32 } },
	{ FIELD(runtime_interpreters_head), RUNTIME, { 40, 40, 40 } },
	{ FIELD(interpreter_id), INTERPRETER, { 56, 56, 56 } },
	{ FIELD(interpreter_next), INTERPRETER, { 64, 64, 64 } },
	{ FIELD(interpreter_threads_head), INTERPRETER, { 72, 72, 72 } },
	{ FIELD(interpreter_gil), INTERPRETER, { 112, 120, 120 }, .only = WITH_GIL },
	{ FIELD(thread_next), THREAD, { 168, 192, 192 } },
	{ FIELD(thread_interpreter), THREAD, { 176, 200, 200 } },
	{ FIELD(thread_frame), THREAD, { 184, 208, 208 } },
	{ FIELD(thread_id), THREAD, { 192, 216, 240 } },
	{ FIELD(thread_native_id), THREAD, { 200, 224, 248 } },
	{ FIELD(thread_status), THREAD, { 216, 240, 264 } },
	{ FIELD(frame_previous), FRAME, { 232, 256, 320 } },
	{ FIELD(frame_code), FRAME, { 240, 264, 328 } },
	{ FIELD(frame_instruction), FRAME, { 248, 272, 336 } },
	{ FIELD(frame_owner), FRAME, { 264, 288, 352 } },
	{ FIELD(frame_tlbc_index), FRAME, { 0, 304, 368 }, .only = FREE_THREADED },
	{ FIELD(code_filename), CODE, { 280, 320, 384 } },
	{ FIELD(code_name), CODE, { 288, 328, 392 } },
	{ FIELD(code_qualname), CODE, { 296, 336, 400 } },
	{ FIELD(code_line_table), CODE, { 304, 344, 408 } },
	{ FIELD(code_first_line), CODE, { 312, 352, 416 } },
	{ FIELD(code_bytecode), CODE, { 344, 384, 448 }, .last = true },
	{ FIELD(code_tlbc), CODE, { 0, 392, 456 }, .only = FREE_THREADED },
	{ FIELD(object_type), OBJECT, { 360, 408, 472 } },
	{ FIELD(type_name), TYPE, { 376, 424, 488 } },
	{ FIELD(type_flags), TYPE, { 392, 440, 504 } },
	{ FIELD(tuple_items), TUPLE, { 408, 456, 552 } },
	{ FIELD(bytes_size), BYTES, { 520, 600, 696 } },
	{ FIELD(bytes_data), BYTES, { 528, 608, 704 }, .last = true },
	{ FIELD(string_state), STRING, { 544, 624, 720 } },
	{ FIELD(string_length), STRING, { 552, 632, 728 } },
	{ FIELD(string_ascii_data), STRING, { 560, 640, 736 } },
};
enum { FIELDS = sizeof(debug_offsets_fields) / sizeof(debug_offsets_fields[0]) };

size_t debug_offsets_size(int minor)
{
	static const size_t sizes[] = { [DEBUG_OFFSETS_FIRST] = 584, [14] = 760, [DEBUG_OFFSETS_LAST] = 888 };

	return minor >= DEBUG_OFFSETS_FIRST && minor <= DEBUG_OFFSETS_LAST ? sizes[minor] : 0;
}

static bool is_said(const struct debug_offset *field, int minor, bool free_threaded)
{
	return field->at[minor - DEBUG_OFFSETS_FIRST] &&
		(field->only == ANY || (field->only == FREE_THREADED) == free_threaded);
}

static int32_t *field_of(struct pl_python_layout *layout, const struct debug_offset *field)
{
	return (int32_t *)(void *)((uint8_t *)layout + field->field);
}

/* An offset lies in its struct, whose size is said too: how far a wrong reading goes is bounded by that. */
static int read_field(const struct debug_offset *field, int minor, const uint8_t *debug_offsets, size_t size,
		      uint64_t *ret, struct pl_error *err)
{
	int16_t at = field->at[minor - DEBUG_OFFSETS_FIRST];
	uint64_t struct_size;

	if ((size_t)at + sizeof(*ret) > size)
		return pl_fail(err, -EPROTO, "Python 3.%d: _Py_DebugOffsets ends before %s", minor, field->name);
	*ret = field_u64(debug_offsets, at);
	struct_size = field_u64(debug_offsets, structs[field->in].size_at[minor - DEBUG_OFFSETS_FIRST]);
	if (*ret >= struct_size || (field->last && *ret + 8 < struct_size) ||
			*ret > (uint64_t)structs[field->in].limit)
		return pl_fail(err, -EPROTO, "Python 3.%d: the interpreter says that %s is at %llu of %llu bytes", minor,
			field->name, (unsigned long long)*ret, (unsigned long long)struct_size);
	return 0;
}

/* Two fields of a struct are not at one place: a name is not told from another by what it leads to. */
static int check_distinct(int minor, bool free_threaded, struct pl_python_layout *layout, struct pl_error *err)
{
	for (size_t i = 0; i < FIELDS; i++)
		for (size_t j = 0; j < i; j++) {
			const struct debug_offset *a = &debug_offsets_fields[i], *b = &debug_offsets_fields[j];

			if (a->in == b->in && is_said(a, minor, free_threaded) && is_said(b, minor, free_threaded) &&
					*field_of(layout, a) == *field_of(layout, b))
				return pl_fail(err, -EPROTO, "Python 3.%d: the interpreter says that %s and %s are both at %d",
					minor, b->name, a->name, *field_of(layout, a));
		}
	return 0;
}

/* What it does not say lies beside something that it does say. */
static void move_neighbours(const struct pl_python_layout *from, struct pl_python_layout *to)
{
	int32_t code = from->code_tlbc != PL_NO_FIELD ? to->code_tlbc - from->code_tlbc :
							to->code_bytecode - from->code_bytecode;
	int32_t string = to->string_ascii_data - from->string_ascii_data;

	to->code_first_traceable += code;
	to->string_compact_data += string;
	to->string_data_pointer += string;
	to->type_dealloc += to->type_name - from->type_name;
}

int debug_offsets_apply(int minor, bool free_threaded, const uint8_t *debug_offsets, size_t size,
			struct pl_python_layout *layout, struct pl_error *ret_moved, struct pl_error *err)
{
	struct pl_python_layout result = *layout;
	int r;

	*ret_moved = (struct pl_error){ 0 };
	for (size_t i = 0; i < FIELDS; i++) {
		const struct debug_offset *field = &debug_offsets_fields[i];
		int32_t *known = field_of(&result, field);
		uint64_t said = 0;

		if (!is_said(field, minor, free_threaded))
			continue;
		r = read_field(field, minor, debug_offsets, size, &said, err);
		if (r < 0)
			return r;
		if (said == (uint64_t)*known)
			continue;
		pl_fail(ret_moved, -EPROTO, "Python 3.%d: the interpreter says that %s is at %llu, pyleak knows it at %d",
			minor, field->name, (unsigned long long)said, *known);
		*known = (int32_t)said;
	}
	r = check_distinct(minor, free_threaded, &result, err);
	if (r < 0)
		return r;
	/* PyThreadState.prev, which is not said, is the word before. */
	if (result.thread_next < 8)
		return pl_fail(err, -EPROTO, "Python 3.%d: the interpreter says that thread_next is at %d", minor,
			result.thread_next);
	move_neighbours(layout, &result);
	*layout = result;
	return 0;
}
