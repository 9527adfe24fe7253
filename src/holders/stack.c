/* SPDX-License-Identifier: MIT */
#include "roots.h"

/* The stack of a frame that is at work: arguments of what it calls, what a loop goes through, values of an expression. */

enum { STACK_MAX = 1 << 16 };

struct slots {
	uint64_t start, end, code;
};

/* Up to 3.10: up to the end of the frame, which is an object. Where it does not work, its end is known and has been seen. */
static bool old_slots(struct view *view, uint64_t frame, struct slots *ret)
{
	const struct pl_heap_layout *layout = &view->layout;
	const uint32_t object = image_object(view->image, frame);
	const struct image_piece *piece = image_find(view->image, frame);
	const struct type *type = object != NO_OBJECT ? type_of(view, object) : NULL;
	const uint8_t *bytes = type ? image_at(view->image, frame, type->basic_size + 8) : NULL;
	uint64_t size;

	if (!bytes || !piece || type->kind != KIND_FRAME)
		return false;
	if (layout->frame_stack_top ? word_of(bytes, (uint64_t)layout->frame_stack_top) != 0 :
		(int32_t)half_of(bytes, (uint64_t)layout->frame_stack_depth) > 0)
		return false;
	size = body_size(view, type, bytes, piece->end - frame);
	*ret = (struct slots){ word_of(bytes, (uint64_t)layout->frame_stack), frame + size,
		word_of(bytes, (uint64_t)view->python->layout.frame_code) };
	return size && ret->start > frame && ret->start <= ret->end;
}

static bool slots(struct view *view, uint64_t frame, struct slots *ret)
{
	const struct pl_heap_layout *layout = &view->layout;
	const uint64_t code = image_word(view->image, frame + (uint64_t)view->python->layout.frame_code) & ~UINT64_C(7);
	const uint8_t *bytes = image_at(view->image, code, 128);
	const uint64_t base = frame + (uint64_t)layout->frame_slots, all = frame_slots(view, code);
	uint64_t locals, top;

	if (!bytes || word_of(bytes, (uint64_t)view->python->layout.object_type) != view->python->code_type)
		return false;
	locals = half_of(bytes, (uint64_t)layout->code_slots_count);
	if (locals > all)
		return false;
	*ret = (struct slots){ base + locals * 8, base + all * 8, code };
	top = image_word(view->image, frame + (uint64_t)layout->frame_top);
	/* Of a frame that waits for one that it called, it is known. */
	if (layout->frame_top_is_pointer)
		return top < ret->start || top > ret->end;
	top = base + (top & UINT32_MAX) * 8;
	if (top >= ret->start && top <= ret->end)
		ret->end = top;
	return true;
}

void stack_of_frame(struct view *view, uint64_t frame, void (*see)(void *context, uint32_t object, uint64_t code), void *context)
{
	struct slots found;

	if (!(view->layout.old_keys ? old_slots(view, frame, &found) : slots(view, frame, &found)) ||
		found.end - found.start > STACK_MAX)
		return;
	for (uint64_t at = found.start; at + 8 <= found.end; at += 8) {
		uint64_t word = image_word(view->image, at);
		uint32_t object;

		if (view->layout.frame_tagged && (word & 3) == 3)
			continue;
		object = image_object(view->image, view->layout.frame_tagged ? word & ~UINT64_C(3) : word);
		if (object != NO_OBJECT)
			see(context, object, found.code);
	}
}
