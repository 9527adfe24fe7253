/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "pyleak/arch.h"
#include "python_private.h"

/*
 * Offsets of CPython's structs on 64-bit machines, by minor version (Include/internal/ and
 * Include/cpython/ of each; checked against the DWARF of builds of 3.6.15, 3.7.16, 3.8.18, 3.9.18,
 * 3.10.13, 3.11.7, 3.12.1, 3.13.0, 3.14.10 and 3.15.2 on x86-64). Within a minor version they do not change,
 * with one exception that patch_up() knows; from one processor to the next, what lies behind a mutex does.
 */

enum { FIRST_MINOR = 6, LAST_MINOR = 15 };
#define NONE PL_NO_FIELD

#define OBJECTS .object_type = 8, .type_name = 24, .type_flags = 168, .type_dealloc = 48, .bytes_size = 16, .bytes_data = 32
#define STRINGS_WITH_WSTR .string_length = 16, .string_state = 32, .string_ascii_data = 48, .string_compact_data = 72, \
		.string_data_pointer = 72
#define STRINGS .string_length = 16, .string_state = 32, .string_ascii_data = 40, .string_compact_data = 56, \
		.string_data_pointer = 56
#define INTERPRETERS(finalizing, head, current, next, id, threads, gil) \
	.runtime_finalizing = (finalizing), .runtime_interpreters_head = (head), \
	.runtime_tstate_current = (current), .interpreter_next = (next), \
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
	[6 - FIRST_MINOR] = { OBJECTS, STRINGS_WITH_WSTR, INTERPRETERS(NONE, NONE, NONE, 0, NONE, 8, NONE),
		THREADS(24, NONE, 152, NONE, NONE), FRAME_OBJECTS(120), CODE_BEFORE_311(96, 36) },
	[7 - FIRST_MINOR] = { OBJECTS, STRINGS_WITH_WSTR, INTERPRETERS(8, 24, 1480, 0, 16, 8, NONE),
		THREADS(24, NONE, 176, NONE, NONE), FRAME_OBJECTS(104), CODE_BEFORE_311(96, 36) },
	[8 - FIRST_MINOR] = { OBJECTS, STRINGS_WITH_WSTR, INTERPRETERS(16, 32, 1368, 0, 16, 8, NONE),
		THREADS(24, NONE, 176, NONE, NONE), FRAME_OBJECTS(104), CODE_BEFORE_311(104, 40) },
	[9 - FIRST_MINOR] = { OBJECTS, STRINGS_WITH_WSTR, INTERPRETERS(16, 32, 568, 0, 24, 8, NONE),
		THREADS(24, NONE, 176, NONE, NONE), FRAME_OBJECTS(104), CODE_BEFORE_311(104, 40) },
	[10 - FIRST_MINOR] = { OBJECTS, STRINGS_WITH_WSTR, INTERPRETERS(16, 32, 568, 0, 24, 8, NONE),
		THREADS(24, NONE, 176, NONE, NONE), FRAME_OBJECTS(96), CODE_BEFORE_311(104, 40) },
	[11 - FIRST_MINOR] = { OBJECTS, STRINGS_WITH_WSTR, INTERPRETERS(24, 40, 576, 0, 48, 16, NONE),
		THREADS(56, 8, 152, 160, NONE), FRAMES(48, 32, 69, 68, 0xff), CODE(72, 168, 184, 24) },
	[12 - FIRST_MINOR] = { OBJECTS, STRINGS, INTERPRETERS(24, 40, NONE, 0, 8, 72, 384),
		THREADS(56, 0, 136, 144, 24), FRAMES(8, 0, 70, NONE, 3), CODE(68, 176, 192, 24) },
	[13 - FIRST_MINOR] = { OBJECTS, STRINGS, INTERPRETERS(608, 632, NONE, 7264, 7272, 7344, 16),
		THREADS(72, NONE, 152, 160, 32), FRAMES(8, 0, 70, NONE, 3), CODE(68, 184, 200, 24) },
	[14 - FIRST_MINOR] = { OBJECTS, STRINGS, INTERPRETERS(784, 808, NONE, 7272, 7280, 7344, 16),
		THREADS(72, NONE, 152, 160, 32), FRAMES(8, 0, 74, NONE, 3), CODE(68, 192, 208, 32),
		.frame_code_tagged = true },
	[15 - FIRST_MINOR] = { OBJECTS, STRINGS, INTERPRETERS(912, 936, NONE, 7264, 7272, 7336, 16),
		THREADS(72, NONE, 176, 184, 32), FRAMES(8, 0, 74, NONE, 3), CODE(68, 192, 208, 32),
		.frame_code_tagged = true },
};

static void patch_up(struct pl_python_layout *layout, int minor, int patch)
{
	/* 3.7.4 gave the GIL's condition variables a clock attribute, ahead of gilstate. */
	if (minor == 7 && patch >= 0 && patch < 4)
		layout->runtime_tstate_current = 1392;
	/* The GIL's two mutexes lie ahead of it. */
	if (layout->runtime_tstate_current != NONE)
		layout->runtime_tstate_current += 2 * (PL_ARCH_MUTEX_BYTES - 40);
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

bool layout_known(int minor)
{
	return minor >= FIRST_MINOR && minor <= LAST_MINOR;
}

int layout_table(int minor, int patch, bool free_threaded, struct pl_python_layout *ret)
{
	if (!layout_known(minor) || (free_threaded && minor < 13))
		return -ENOEXEC;
	*ret = layouts[minor - FIRST_MINOR];
	patch_up(ret, minor, patch);
	if (free_threaded)
		free_threaded_layout(ret, minor);
	return 0;
}

int32_t layout_allocator(int minor, enum pl_pymem_domain domain)
{
	/* _PyRuntime.allocators.standard: raw, mem, obj, 40 bytes each. */
	static const int32_t raw[] = { [12] = 96, [13] = 704, [14] = 880, [15] = 1008 };

	if (minor < 12 || minor > LAST_MINOR)
		return PL_NO_FIELD;
	return raw[minor] + 40 * (int32_t)domain;
}
