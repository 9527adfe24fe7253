/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "pyleak/memory.h"
#include "python_private.h"

/*
 * A chain of frames, read a page at a time: from 3.11 on the frames of a thread lie one after the
 * other in its data stack, and the frame objects of older versions often do on the heap, so most
 * frames are already in the window that the one before was read with. A window never leaves the
 * page that the frame begins in (but for the frame's own end), so it is mapped whenever the frame is.
 */
enum {
	PAGE = 4096,
	FRAME_SPAN = 128, /* more than any field of a frame that is read */
	BATCH = 64,
	CODE_SPAN = 256,
	OWNED_BY_GENERATOR = 1,
	CODE_UNIT = 2,
};

struct window {
	uint64_t start, end;
	uint8_t bytes[PAGE + FRAME_SPAN];
};

struct raw_frame {
	uint64_t code, instruction, previous;
	uint8_t owner;
};

static const uint8_t *window_get(pid_t pid, struct window *window, uint64_t address, size_t length)
{
	if (address < window->start || address + length > window->end) {
		window->start = address & ~(uint64_t)(PAGE - 1);
		window->end = address + length;
		if (pl_memory_read(pid, window->start, window->bytes, window->end - window->start) < 0) {
			window->start = window->end = 0;
			return NULL;
		}
	}
	return window->bytes + (address - window->start);
}

static bool read_frame(const struct pl_python *python, struct window *window, uint64_t address, struct raw_frame *ret)
{
	const struct pl_python_layout *layout = &python->layout;
	size_t length = (size_t)layout->frame_instruction + 8;
	const uint8_t *bytes;

	if (layout->frame_owner != PL_NO_FIELD && (size_t)layout->frame_owner >= length)
		length = (size_t)layout->frame_owner + 1;
	if (address % 8 || address > INT64_MAX)
		return false;
	bytes = window_get(python->pid, window, address, length);
	if (!bytes)
		return false;
	ret->previous = field_u64(bytes, layout->frame_previous);
	ret->code = field_u64(bytes, layout->frame_code);
	if (layout->frame_code_tagged)
		ret->code &= ~UINT64_C(3);
	ret->instruction = layout->frame_instruction_is_index ? field_u32(bytes, layout->frame_instruction) :
								 field_u64(bytes, layout->frame_instruction);
	ret->owner = layout->frame_owner != PL_NO_FIELD ? bytes[layout->frame_owner] : 0;
	return true;
}

static int32_t frame_offset(const struct pl_python *python, const struct raw_frame *frame)
{
	int64_t offset;

	if (python->layout.frame_instruction_is_index) {
		offset = (int32_t)frame->instruction;
		if (python->minor == 10)
			offset *= CODE_UNIT;
	} else {
		offset = (int64_t)(frame->instruction - (frame->code + (uint64_t)python->layout.code_bytecode));
	}
	/* A frame that has not begun points before its code. */
	return offset < 0 || offset > INT32_MAX ? -1 : (int32_t)offset;
}

/*
 * From 3.11 on a frame is on the stack before it is complete (_PyFrame_IsIncomplete): while the
 * instructions ahead of _co_firsttraceable run. Neither sys._getframe() nor tracemalloc show it.
 */
static bool is_incomplete(const struct pl_python *python, const struct raw_frame *frame, const uint8_t *code)
{
	int64_t first = (int32_t)field_u32(code, python->layout.code_first_traceable - python->layout.object_type);

	return frame->owner != OWNED_BY_GENERATOR &&
		(int64_t)(frame->instruction - (frame->code + (uint64_t)python->layout.code_bytecode)) < first * CODE_UNIT;
}

/* Of a batch, keeps the frames that Python shows. Stops at what is not a code object: *ret_bad. */
static size_t keep_complete(const struct pl_python *python, const struct raw_frame *batch, size_t count,
			    struct pl_frame_ref *frames, bool *ret_bad)
{
	const struct pl_python_layout *layout = &python->layout;
	size_t length = (size_t)(layout->code_first_traceable - layout->object_type) + 4, kept = 0;
	uint8_t codes[BATCH][CODE_SPAN];
	struct pl_memory_piece pieces[BATCH];
	bool all_read;

	for (size_t i = 0; i < count; i++)
		pieces[i] = (struct pl_memory_piece){ batch[i].code + (uint64_t)layout->object_type, codes[i], length };
	all_read = pl_memory_read_pieces(python->pid, pieces, count) == 0;
	for (size_t i = 0; i < count; i++) {
		if (!all_read && pl_memory_read(python->pid, pieces[i].address, codes[i], length) < 0) {
			*ret_bad = true;
			break;
		}
		if (field_u64(codes[i], 0) != python->code_type) {
			*ret_bad = true;
			break;
		}
		if (!is_incomplete(python, &batch[i], codes[i]))
			frames[kept++] = (struct pl_frame_ref){ batch[i].code, frame_offset(python, &batch[i]) };
	}
	return kept;
}

static uint64_t top_frame(const struct pl_python *python, uint64_t tstate)
{
	uint64_t frame;

	if (pl_memory_read_u64(python->pid, tstate + (uint64_t)python->layout.thread_frame, &frame) < 0 || !frame)
		return 0;
	if (python->layout.cframe_frame != PL_NO_FIELD &&
			pl_memory_read_u64(python->pid, frame + (uint64_t)python->layout.cframe_frame, &frame) < 0)
		return 0;
	return frame;
}

size_t pl_python_stack(const struct pl_python *python, uint64_t tstate, struct pl_frame_ref *frames, size_t max,
		       bool *ret_more)
{
	uint64_t address = tstate ? top_frame(python, tstate) : 0;
	struct window window;
	size_t count = 0, steps = 4 * max + BATCH; /* shims are fewer than frames: only a bad chain is longer */
	bool bad = false;

	window.start = window.end = 0;
	while (address && count < max && !bad) {
		struct raw_frame batch[BATCH];
		size_t size = 0;

		while (address && size < BATCH && count + size < max) {
			struct raw_frame *frame = &batch[size];

			if (!steps-- || !read_frame(python, &window, address, frame)) {
				bad = true;
				break;
			}
			address = frame->previous != address ? frame->previous : 0;
			if (frame->owner < python->layout.owner_skip_min)
				size++;
		}
		if (python->layout.code_first_traceable != PL_NO_FIELD) {
			count += keep_complete(python, batch, size, frames + count, &bad);
		} else {
			for (size_t i = 0; i < size; i++)
				frames[count++] = (struct pl_frame_ref){ batch[i].code, frame_offset(python, &batch[i]) };
		}
	}
	if (ret_more)
		*ret_more = address || bad;
	return count;
}
