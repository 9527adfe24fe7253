/* SPDX-License-Identifier: MIT */
#include "scan.h"

/* What frames refer to. See Include/internal/pycore_frame.h (pycore_interpframe_structs.h from 3.14 on) of each CPython, and
 * Include/frameobject.h up to 3.10. */

enum { FRAME_READ = 88 };

/* Up to 3.10: a frame is an object with its locals and its stack behind. */
void see_old_frame(const struct scan *scan, uint64_t body)
{
	const struct pl_heap_layout *layout = &scan->view->layout;
	uint64_t code = word_of(scan->object, (uint64_t)scan->view->python->layout.frame_code), locals = 0, stack, end;
	const uint8_t *bytes = image_at(scan->view->image, code, 128);
	uint64_t at = (uint64_t)layout->frame_locals;

	for (uint64_t offset = scan->head; offset + 8 <= at; offset += 8)
		if (offset != (uint64_t)layout->frame_generator && offset != (uint64_t)layout->frame_stack &&
			offset != (uint64_t)layout->frame_stack_top)
			see(scan, word_of(scan->object, offset), (struct edge){ EDGE_WORD, offset, 0, true });
	stack = word_of(scan->object, (uint64_t)layout->frame_stack);
	locals = (stack - scan->address - at) / 8;
	if (!bytes || stack < scan->address + at || stack - scan->address > body)
		return;
	end = locals;
	if (layout->frame_stack_top) {
		uint64_t top = word_of(scan->object, (uint64_t)layout->frame_stack_top);

		if (top >= stack && top - scan->address <= body)
			end = (top - scan->address - at) / 8;
	} else {
		int32_t depth = (int32_t)half_of(scan->object, (uint64_t)layout->frame_stack_depth);

		if (depth > 0 && stack - scan->address + (uint64_t)depth * 8 <= body)
			end = locals + (uint64_t)depth;
	}
	for (uint64_t i = 0; i < end; i++)
		see(scan, word_of(scan->object, at + i * 8), i < locals ? (struct edge){ EDGE_LOCAL, i, code, true } :
			(struct edge){ EDGE_WORD, at + i * 8, 0, true });
}

void see_frame(const struct scan *scan, uint64_t frame, bool executing)
{
	const struct pl_heap_layout *layout = &scan->view->layout;
	const uint64_t mask = layout->frame_tagged ? ~UINT64_C(3) : ~UINT64_C(0);
	const uint8_t *bytes = image_at(scan->view->image, frame, FRAME_READ), *code, *slots;
	uint64_t words[4], code_address, count, end;

	if (!bytes)
		return;
	words[0] = word_of(bytes, (uint64_t)scan->view->python->layout.frame_code);
	words[1] = word_of(bytes, (uint64_t)layout->frame_function);
	words[2] = word_of(bytes, (uint64_t)layout->frame_mapping);
	words[3] = word_of(bytes, (uint64_t)layout->frame_object);
	code_address = words[0] & mask;
	code = image_at(scan->view->image, code_address, 128);
	if (!code || word_of(code, (uint64_t)scan->view->python->layout.object_type) != scan->view->python->code_type)
		return;
	for (int i = 0; i < 4; i++)
		see(scan, words[i] & mask, (struct edge){ EDGE_WORD, 0, 0, mask == ~UINT64_C(0) || !(words[i] & 1) });
	count = half_of(code, (uint64_t)layout->code_slots_count);
	if (count > 1 << 16)
		return;
	end = count;
	if (layout->frame_top_is_pointer) {
		uint64_t top = word_of(bytes, (uint64_t)layout->frame_top), base = frame + (uint64_t)layout->frame_slots;

		if (top >= base && (top - base) / 8 <= count + (1 << 12) && (top - base) / 8 >= count)
			end = (top - base) / 8;
	} else if (!executing) {
		int32_t top = (int32_t)half_of(bytes, (uint64_t)layout->frame_top);

		if (top >= (int32_t)count && top < (int32_t)count + (1 << 12))
			end = (uint64_t)top;
	}
	slots = image_at(scan->view->image, frame + (uint64_t)layout->frame_slots, end * 8);
	for (uint64_t i = 0; slots && i < end; i++) {
		uint64_t word = word_of(slots, i * 8);

		if (layout->frame_tagged && (word & 3) == 3)
			continue;
		/* A word of no index is one of the frame itself. */
		see(scan, word & mask, (struct edge){ i < count ? EDGE_LOCAL : EDGE_WORD, i < count ? i : i + 1, i < count ? code_address : 0,
			!layout->frame_tagged || !(word & 1) });
	}
}

void edges_of_frame(struct view *view, uint64_t frame, bool executing, const struct edge_visitor *visitor)
{
	const struct scan scan = { .view = view, .visitor = visitor };

	see_frame(&scan, frame, executing);
}
