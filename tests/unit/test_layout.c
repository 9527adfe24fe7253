/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "../../src/python/python_private.h"

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
	cr_expect_eq(old.runtime_tstate_current, 1392);
	cr_expect_eq(new.runtime_tstate_current, 1480);
}

Test(layout, allocators)
{
	cr_expect_eq(layout_allocator(11, PL_DOMAIN_RAW), PL_NO_FIELD);
	cr_expect_eq(layout_allocator(12, PL_DOMAIN_RAW), 96);
	cr_expect_eq(layout_allocator(12, PL_DOMAIN_OBJ), 176);
	cr_expect_eq(layout_allocator(13, PL_DOMAIN_MEM), 744);
	cr_expect_eq(layout_allocator(15, PL_DOMAIN_OBJ), 1088);
	cr_expect_eq(layout_allocator(16, PL_DOMAIN_RAW), PL_NO_FIELD);
}

Test(layout, agrees_with_313)
{
	struct pl_python_layout layout;
	struct pl_error err = { 0 };

	cr_assert_eq(sizeof(debug_offsets_of_313), layout_debug_offsets_size(13));
	cr_assert_eq(layout_table(13, 0, false, &layout), 0);
	cr_expect_eq(layout_check(13, false, &layout, (const uint8_t *)debug_offsets_of_313,
		sizeof(debug_offsets_of_313), &err), 0, "%s", err.text);
}

Test(layout, names_both_values_of_a_disagreement)
{
	uint64_t offsets[sizeof(debug_offsets_of_313) / 8];
	struct pl_python_layout layout;
	struct pl_error err = { 0 };

	memcpy(offsets, debug_offsets_of_313, sizeof(offsets));
	offsets[192 / 8] = 4711;
	cr_assert_eq(layout_table(13, 0, false, &layout), 0);
	cr_expect_eq(layout_check(13, false, &layout, (const uint8_t *)offsets, sizeof(offsets), &err), -EPROTO);
	cr_expect(strstr(err.text, "thread_id") && strstr(err.text, "4711") && strstr(err.text, "152"), "%s", err.text);
	err = (struct pl_error){ 0 };
	cr_expect_eq(layout_check(13, false, &layout, (const uint8_t *)debug_offsets_of_313, 100, &err), -EPROTO);
	cr_expect(strstr(err.text, "ends before"), "%s", err.text);
}

Test(layout, debug_offsets_begin_with_313)
{
	cr_expect_eq(layout_debug_offsets_size(12), 0);
	cr_expect_eq(layout_debug_offsets_size(14), 760);
	cr_expect_eq(layout_debug_offsets_size(16), 0);
}
