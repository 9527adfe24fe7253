/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "../../src/python/python_private.h"
#include "pyleak/arch.h"

static const uint64_t debug_offsets_of_313[] = {
#include "data/debug_offsets.inc"
};

Test(layout, knows_36_to_315)
{
	struct pl_python_layout layout;

	for (int minor = 6; minor <= 15; minor++) {
		cr_expect_eq(layout_table(minor, 0, false, &layout), 0);
		cr_expect_eq(layout_table(minor, 0, true, &layout), minor < 13 ? -ENOEXEC : 0);
	}
	cr_expect_eq(layout_table(5, 0, false, &layout), -ENOEXEC);
	cr_expect_eq(layout_table(16, 0, false, &layout), -ENOEXEC);
}

Test(layout, fields_of_one_struct_differ)
{
	for (int i = 6; i <= 15 + 3; i++) {
		int minor = i <= 15 ? i : i - 3;
		struct pl_python_layout layout;

		cr_assert_eq(layout_table(minor, 5, i > 15, &layout), 0);
		const int32_t code[] = { layout.object_type, layout.code_filename, layout.code_name, layout.code_qualname,
			layout.code_line_table, layout.code_first_line, layout.code_first_traceable, layout.code_bytecode,
			layout.code_tlbc };
		const int32_t frame[] = { layout.frame_previous, layout.frame_code, layout.frame_instruction,
			layout.frame_owner, layout.frame_is_entry, layout.frame_tlbc_index };
		const int32_t thread[] = { layout.thread_next, layout.thread_interpreter, layout.thread_frame,
			layout.thread_id, layout.thread_native_id, layout.thread_status };
		const struct {
			const int32_t *fields;
			size_t count;
			int32_t limit; /* what the readers of this struct have room for */
		} structs[] = { { code, sizeof(code) / 4, 248 }, { frame, sizeof(frame) / 4, 120 },
			{ thread, sizeof(thread) / 4, THREAD_STATE_SPAN - 8 } };

		for (size_t s = 0; s < sizeof(structs) / sizeof(structs[0]); s++)
			for (size_t a = 0; a < structs[s].count; a++) {
				cr_expect_geq(structs[s].fields[a], PL_NO_FIELD);
				cr_expect_leq(structs[s].fields[a], structs[s].limit);
				for (size_t b = 0; b < a; b++)
					cr_expect(structs[s].fields[a] == PL_NO_FIELD ||
						structs[s].fields[a] != structs[s].fields[b], "3.%d, struct %zu: %zu and %zu",
						minor, s, a, b);
			}
		cr_expect((layout.thread_status == PL_NO_FIELD) == (layout.runtime_tstate_current != PL_NO_FIELD || minor == 6));
	}
}

Test(layout, patch_levels_of_37)
{
	struct pl_python_layout old, new;

	cr_assert_eq(layout_table(7, 3, false, &old), 0);
	cr_assert_eq(layout_table(7, 4, false, &new), 0);
	cr_expect_eq(old.runtime_tstate_current, 1392 + 2 * (PL_ARCH_MUTEX_BYTES - 40));
	cr_expect_eq(new.runtime_tstate_current, 1480 + 2 * (PL_ARCH_MUTEX_BYTES - 40));
}

Test(layout, allocators)
{
	cr_expect_eq(layout_allocator(11, PL_PYMEM_RAW), PL_NO_FIELD);
	cr_expect_eq(layout_allocator(12, PL_PYMEM_RAW), 96);
	cr_expect_eq(layout_allocator(12, PL_PYMEM_OBJ), 176);
	cr_expect_eq(layout_allocator(13, PL_PYMEM_MEM), 744);
	cr_expect_eq(layout_allocator(15, PL_PYMEM_OBJ), 1088);
	cr_expect_eq(layout_allocator(16, PL_PYMEM_RAW), PL_NO_FIELD);
}

/* What a build says, in place of the table's. */
static int apply(const uint64_t *words, size_t size, struct pl_python_layout *layout, struct pl_error *moved,
	struct pl_error *err)
{
	*err = (struct pl_error){ 0 };
	cr_assert_eq(layout_table(13, 0, false, layout), 0);
	return debug_offsets_apply(13, false, (const uint8_t *)words, size, layout, moved, err);
}

Test(layout, agrees_with_313)
{
	struct pl_python_layout layout, table;
	struct pl_error err, moved;

	cr_assert_eq(sizeof(debug_offsets_of_313), debug_offsets_size(13));
	cr_expect_eq(apply(debug_offsets_of_313, sizeof(debug_offsets_of_313), &layout, &moved, &err), 0, "%s", err.text);
	cr_expect_eq(moved.code, 0, "%s", moved.text);
	cr_assert_eq(layout_table(13, 0, false, &table), 0);
	cr_expect_eq(memcmp(&layout, &table, sizeof(layout)), 0);
}

Test(layout, takes_what_the_interpreter_says_and_names_both_values)
{
	uint64_t offsets[sizeof(debug_offsets_of_313) / 8];
	struct pl_python_layout layout, table;
	struct pl_error err, moved;

	memcpy(offsets, debug_offsets_of_313, sizeof(offsets));
	offsets[192 / 8] = 160;  /* thread_id, which changes places with thread_native_id */
	offsets[200 / 8] = 152;
	offsets[272 / 8] += 8;   /* PyCodeObject grew: code_bytecode at its end, and with it what lies before it */
	offsets[344 / 8] += 8;
	offsets[560 / 8] += 8;   /* the end of PyASCIIObject, and with it what lies behind it */
	cr_expect_eq(apply(offsets, sizeof(offsets), &layout, &moved, &err), 0, "%s", err.text);
	cr_expect(strstr(moved.text, "thread_id") && strstr(moved.text, "160") && strstr(moved.text, "152"), "%s", moved.text);
	cr_assert_eq(layout_table(13, 0, false, &table), 0);
	cr_expect_eq(layout.thread_id, 160);
	cr_expect_eq(layout.thread_frame, table.thread_frame);
	cr_expect_eq(layout.code_bytecode, table.code_bytecode + 8);
	cr_expect_eq(layout.code_first_traceable, table.code_first_traceable + 8);
	cr_expect_eq(layout.string_compact_data, table.string_compact_data + 8);
	cr_expect_eq(layout.string_data_pointer, table.string_data_pointer + 8);
}

Test(layout, refuses_what_cannot_be)
{
	uint64_t offsets[sizeof(debug_offsets_of_313) / 8];
	struct pl_python_layout layout, table;
	struct pl_error err, moved;

	cr_assert_eq(layout_table(13, 0, false, &table), 0);
	for (size_t i = 0; i < 2; i++) {
		memcpy(offsets, debug_offsets_of_313, sizeof(offsets));
		offsets[192 / 8] = 4711;                  /* thread_id, beyond its struct */
		offsets[152 / 8] += i ? 1u << 20 : 0;     /* whose size would allow it, but no reader has room for it */
		cr_expect_eq(apply(offsets, sizeof(offsets), &layout, &moved, &err), -EPROTO);
		cr_expect(strstr(err.text, "thread_id") && strstr(err.text, "4711"), "%s", err.text);
		cr_expect_eq(memcmp(&layout, &table, sizeof(layout)), 0);
	}
	memcpy(offsets, debug_offsets_of_313, sizeof(offsets));
	offsets[280 / 8] += 8; /* code_filename */
	cr_expect_eq(apply(offsets, sizeof(offsets), &layout, &moved, &err), -EPROTO);
	cr_expect(strstr(err.text, "code_filename") && strstr(err.text, "code_name"), "%s", err.text);
	cr_expect_eq(apply(debug_offsets_of_313, 100, &layout, &moved, &err), -EPROTO);
	cr_expect(strstr(err.text, "ends before"), "%s", err.text);
}

Test(layout, debug_offsets_begin_with_313)
{
	cr_expect_eq(debug_offsets_size(12), 0);
	cr_expect_eq(debug_offsets_size(14), 760);
	cr_expect_eq(debug_offsets_size(16), 0);
}
