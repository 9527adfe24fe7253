/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "python_private.h"

/*
 * Offsets of CPython's structs on 64-bit machines, by minor version (Include/internal/ and
 * Include/cpython/ of each; checked against the DWARF of builds of 3.6.15, 3.7.16, 3.8.18, 3.9.18,
 * 3.10.13, 3.11.7, 3.12.1, 3.13.0, 3.14.10 and 3.15.2). Within a minor version they do not change,
 * with one exception that patch_up() knows.
 */

enum { FIRST_MINOR = 6, LAST_MINOR = 15 };
#define NONE PL_NO_FIELD

#define OBJECTS .object_type = 8, .type_name = 24, .type_flags = 168, .type_dealloc = 48, .bytes_size = 16, .bytes_data = 32
#define STRINGS_WITH_WSTR .string_length = 16, .string_state = 32, .string_ascii_data = 48, .string_compact_data = 72, \
		.string_data_pointer = 72
#define STRINGS .string_length = 16, .string_state = 32, .string_ascii_data = 40, .string_compact_data = 56, \
		.string_data_pointer = 56
#define INTERPRETERS(head, current, next, id, threads, gil) \
	.runtime_interpreters_head = (head), .runtime_tstate_current = (current), .interpreter_next = (next), \
	.interpreter_id = (id), .interpreter_threads_head = (threads), \
	.interpreter_gil = (gil)
#define THREADS(frame, cframe, id, native, status) \
	.thread_next = 8, .thread_interpreter = 16, .thread_frame = (frame), .cframe_frame = (cframe), \
	.thread_id = (id), .thread_native_id = (native), .thread_status = (status)
/* Frames that are objects of their own, f_lasti in them. */
#define FRAME_OBJECTS(lasti) \
	.frame_previous = 24, .frame_code = 32, .frame_instruction = (lasti), .frame_instruction_is_index = true, \
	.frame_owner = NONE, .frame_is_entry = NONE, .frame_tlbc_index = NONE, .owner_skip_min = 0xff
#define FRAMES(previous, code, owner, entry, skip) \
	.frame_previous = (previous), .frame_code = (code), .frame_instruction = 56, .frame_owner = (owner), \
	.frame_is_entry = (entry), .frame_tlbc_index = NONE, .owner_skip_min = (skip)
#define CODE_BEFORE_311(filename, line) \
	.code_filename = (filename), .code_name = (filename) + 8, .code_line_table = (filename) + 16, \
	.code_first_line = (line), .code_qualname = NONE, .code_first_traceable = NONE, .code_bytecode = NONE, \
	.code_tlbc = NONE, .tuple_items = 24
#define CODE(line, traceable, bytecode, items) \
	.code_filename = 112, .code_name = 120, .code_qualname = 128, .code_line_table = 136, \
	.code_first_line = (line), .code_first_traceable = (traceable), .code_bytecode = (bytecode), \
	.code_tlbc = NONE, .tuple_items = (items)

static const struct pl_python_layout layouts[LAST_MINOR - FIRST_MINOR + 1] = {
	[6 - FIRST_MINOR] = { OBJECTS, STRINGS_WITH_WSTR, INTERPRETERS(NONE, NONE, 0, NONE, 8, NONE),
		THREADS(24, NONE, 152, NONE, NONE), FRAME_OBJECTS(120), CODE_BEFORE_311(96, 36) },
	[7 - FIRST_MINOR] = { OBJECTS, STRINGS_WITH_WSTR, INTERPRETERS(24, 1480, 0, 16, 8, NONE),
		THREADS(24, NONE, 176, NONE, NONE), FRAME_OBJECTS(104), CODE_BEFORE_311(96, 36) },
	[8 - FIRST_MINOR] = { OBJECTS, STRINGS_WITH_WSTR, INTERPRETERS(32, 1368, 0, 16, 8, NONE),
		THREADS(24, NONE, 176, NONE, NONE), FRAME_OBJECTS(104), CODE_BEFORE_311(104, 40) },
	[9 - FIRST_MINOR] = { OBJECTS, STRINGS_WITH_WSTR, INTERPRETERS(32, 568, 0, 24, 8, NONE),
		THREADS(24, NONE, 176, NONE, NONE), FRAME_OBJECTS(104), CODE_BEFORE_311(104, 40) },
	[10 - FIRST_MINOR] = { OBJECTS, STRINGS_WITH_WSTR, INTERPRETERS(32, 568, 0, 24, 8, NONE),
		THREADS(24, NONE, 176, NONE, NONE), FRAME_OBJECTS(96), CODE_BEFORE_311(104, 40) },
	[11 - FIRST_MINOR] = { OBJECTS, STRINGS_WITH_WSTR, INTERPRETERS(40, 576, 0, 48, 16, NONE),
		THREADS(56, 8, 152, 160, NONE), FRAMES(48, 32, 69, 68, 0xff), CODE(72, 168, 184, 24) },
	[12 - FIRST_MINOR] = { OBJECTS, STRINGS, INTERPRETERS(40, NONE, 0, 8, 72, 384),
		THREADS(56, 0, 136, 144, 24), FRAMES(8, 0, 70, NONE, 3), CODE(68, 176, 192, 24) },
	[13 - FIRST_MINOR] = { OBJECTS, STRINGS, INTERPRETERS(632, NONE, 7264, 7272, 7344, 16),
		THREADS(72, NONE, 152, 160, 32), FRAMES(8, 0, 70, NONE, 3), CODE(68, 184, 200, 24) },
	[14 - FIRST_MINOR] = { OBJECTS, STRINGS, INTERPRETERS(808, NONE, 7272, 7280, 7344, 16),
		THREADS(72, NONE, 152, 160, 32), FRAMES(8, 0, 74, NONE, 3), CODE(68, 192, 208, 32),
		.frame_code_tagged = true },
	[15 - FIRST_MINOR] = { OBJECTS, STRINGS, INTERPRETERS(936, NONE, 7264, 7272, 7336, 16),
		THREADS(72, NONE, 176, 184, 32), FRAMES(8, 0, 74, NONE, 3), CODE(68, 192, 208, 32),
		.frame_code_tagged = true },
};

static void patch_up(struct pl_python_layout *layout, int minor, int patch)
{
	/* 3.7.4 gave the GIL's condition variables a clock attribute, ahead of gilstate. */
	if (minor == 7 && patch >= 0 && patch < 4)
		layout->runtime_tstate_current = 1392;
}

/* Without a GIL the object header is 32 bytes, and frames name the thread's copy of the bytecode. */
static void free_threaded_layout(struct pl_python_layout *layout, int minor)
{
	enum { HEADER_GROWTH = 16 };
	int32_t *const moved[] = { &layout->object_type, &layout->type_name, &layout->type_flags,
		&layout->type_dealloc, &layout->bytes_size, &layout->bytes_data, &layout->tuple_items,
		&layout->string_length, &layout->string_state, &layout->string_ascii_data,
		&layout->string_compact_data, &layout->string_data_pointer, &layout->code_filename,
		&layout->code_name, &layout->code_qualname, &layout->code_line_table, &layout->code_first_line,
		&layout->code_first_traceable, &layout->code_bytecode };

	for (size_t i = 0; i < sizeof(moved) / sizeof(moved[0]); i++)
		*moved[i] += HEADER_GROWTH;
	layout->interpreter_gil = NONE;
	if (minor >= 14) {
		layout->frame_owner = 78;
		layout->frame_tlbc_index = 72;
		layout->code_tlbc = 224;
		layout->code_bytecode = 232; /* co_tlbc comes before it */
		layout->string_state_wide = true;
	}
}

int layout_table(int minor, int patch, bool free_threaded, struct pl_python_layout *ret)
{
	if (minor < FIRST_MINOR || minor > LAST_MINOR || (free_threaded && minor < 13))
		return -ENOEXEC;
	*ret = layouts[minor - FIRST_MINOR];
	patch_up(ret, minor, patch);
	if (free_threaded)
		free_threaded_layout(ret, minor);
	return 0;
}

int32_t layout_allocator(int minor, enum pl_domain domain)
{
	/* _PyRuntime.allocators.standard: raw, mem, obj, 40 bytes each. */
	static const int32_t raw[] = { [12] = 96, [13] = 704, [14] = 880, [15] = 1008 };

	if (minor < 12 || minor > LAST_MINOR)
		return PL_NO_FIELD;
	return raw[minor] + 40 * (int32_t)domain;
}

/* Where _Py_DebugOffsets (pycore_runtime.h, pycore_debug_offsets.h) says what the table says too. */
#define FIELD(name) #name, offsetof(struct pl_python_layout, name)
static const struct debug_offset {
	const char *name;
	size_t field;
	int16_t at[3]; /* in 3.13, 3.14, 3.15; 0: not there */
	enum { ANY, FREE_THREADED, WITH_GIL } only;
} debug_offsets_fields[] = {
	{ FIELD(runtime_interpreters_head), { 40, 40, 40 } },
	{ FIELD(interpreter_id), { 56, 56, 56 } },
	{ FIELD(interpreter_next), { 64, 64, 64 } },
	{ FIELD(interpreter_threads_head), { 72, 72, 72 } },
	{ FIELD(interpreter_gil), { 112, 120, 120 }, .only = WITH_GIL },
	{ FIELD(thread_next), { 168, 192, 192 } },
	{ FIELD(thread_interpreter), { 176, 200, 200 } },
	{ FIELD(thread_frame), { 184, 208, 208 } },
	{ FIELD(thread_id), { 192, 216, 240 } },
	{ FIELD(thread_native_id), { 200, 224, 248 } },
	{ FIELD(thread_status), { 216, 240, 264 } },
	{ FIELD(frame_previous), { 232, 256, 320 } },
	{ FIELD(frame_code), { 240, 264, 328 } },
	{ FIELD(frame_instruction), { 248, 272, 336 } },
	{ FIELD(frame_owner), { 264, 288, 352 } },
	{ FIELD(frame_tlbc_index), { 0, 304, 368 }, .only = FREE_THREADED },
	{ FIELD(code_filename), { 280, 320, 384 } },
	{ FIELD(code_name), { 288, 328, 392 } },
	{ FIELD(code_qualname), { 296, 336, 400 } },
	{ FIELD(code_line_table), { 304, 344, 408 } },
	{ FIELD(code_first_line), { 312, 352, 416 } },
	{ FIELD(code_bytecode), { 344, 384, 448 } },
	{ FIELD(code_tlbc), { 0, 392, 456 }, .only = FREE_THREADED },
	{ FIELD(object_type), { 360, 408, 472 } },
	{ FIELD(type_name), { 376, 424, 488 } },
	{ FIELD(bytes_size), { 520, 600, 696 } },
	{ FIELD(bytes_data), { 528, 608, 704 } },
	{ FIELD(string_state), { 544, 624, 720 } },
	{ FIELD(string_length), { 552, 632, 728 } },
	{ FIELD(string_ascii_data), { 560, 640, 736 } },
};

size_t layout_debug_offsets_size(int minor)
{
	static const size_t sizes[] = { [13] = 584, [14] = 760, [15] = 888 };

	return minor >= 13 && minor <= LAST_MINOR ? sizes[minor] : 0;
}

int layout_check(int minor, bool free_threaded, const struct pl_python_layout *layout, const uint8_t *debug_offsets,
		 size_t size, struct pl_error *err)
{
	for (size_t i = 0; i < sizeof(debug_offsets_fields) / sizeof(debug_offsets_fields[0]); i++) {
		const struct debug_offset *field = &debug_offsets_fields[i];
		int16_t at = field->at[minor - 13];
		int32_t known;
		uint64_t said;

		if (!at || (field->only != ANY && (field->only == FREE_THREADED) != free_threaded))
			continue;
		if ((size_t)at + sizeof(said) > size)
			return pl_fail(err, -EPROTO, "Python 3.%d: _Py_DebugOffsets ends before %s", minor, field->name);
		said = field_u64(debug_offsets, at);
		memcpy(&known, (const uint8_t *)layout + field->field, sizeof(known));
		if (said != (uint64_t)known)
			return pl_fail(err, -EPROTO,
				"Python 3.%d: the interpreter says that %s is at %llu, pyleak knows it at %d", minor,
				field->name, (unsigned long long)said, known);
	}
	return 0;
}
