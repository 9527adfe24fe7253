/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "pyleak/space.h"
#include "python_private.h"

/*
 * A chain of frames, read a page at a time: from 3.11 on the frames of a thread lie one after the
 * other in its data stack, and the frame objects of older versions often do on the heap, so most
 * frames are already in the window that the one before was read with. A window never leaves the
 * page that the frame begins in (but for the frame's own end), so it is mapped whenever the frame is.
 */
enum {
	FRAME_SPAN = 128, /* more than any field of a frame that is read */
	BATCH = 64,
	OWNED_BY_GENERATOR = 1,
	CODE_UNIT = 2,
};

struct window {
	uint64_t start, end;
	uint8_t bytes[PL_PAGE + FRAME_SPAN];
};

struct raw_frame {
	uint64_t code, instruction, previous;
	uint64_t bytecode;       /* where what the instruction is part of begins */
	uint32_t copy;           /* free-threaded 3.14+: which copy of the bytecode that is */
	uint8_t owner;
	bool entered_from_c;     /* 3.11 says it in the frame, later versions by a shim below it */
	bool may_be_incomplete;
};

static const uint8_t *window_get(struct pl_space *space, struct window *window, uint64_t address, size_t length)
{
	if (address < window->start || address + length > window->end) {
		window->start = pl_page_start(address);
		window->end = address + length;
		if (pl_space_read(space, window->start, window->bytes, window->end - window->start) < 0) {
			window->start = window->end = 0;
			return NULL;
		}
	}
	return window->bytes + (address - window->start);
}

static bool read_frame(const struct pl_python *python, struct window *window, uint64_t address, struct raw_frame *ret)
{
	const struct pl_python_layout *layout = &python->layout;
	const int32_t fields[] = { layout->frame_previous, layout->frame_code, layout->frame_instruction, layout->frame_owner,
		layout->frame_tlbc_index };
	size_t length = (size_t)field_last(fields, sizeof(fields) / sizeof(fields[0])) + 8;
	const uint8_t *bytes;

	if (address % 8 || address > INT64_MAX)
		return false;
	bytes = window_get(python->space, window, address, length);
	if (!bytes)
		return false;
	ret->previous = field_u64(bytes, layout->frame_previous);
	ret->code = field_u64(bytes, layout->frame_code);
	if (layout->frame_code_tagged)
		ret->code &= ~UINT64_C(3);
	ret->bytecode = ret->code + (uint64_t)layout->code_bytecode;
	ret->copy = layout->frame_tlbc_index != PL_NO_FIELD ? field_u32(bytes, layout->frame_tlbc_index) : 0;
	ret->instruction = layout->frame_instruction_is_index ? field_u32(bytes, layout->frame_instruction) :
								 field_u64(bytes, layout->frame_instruction);
	ret->owner = layout->frame_owner != PL_NO_FIELD ? bytes[layout->frame_owner] : 0;
	ret->entered_from_c = layout->frame_is_entry != PL_NO_FIELD && bytes[layout->frame_is_entry];
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
		offset = (int64_t)(frame->instruction - frame->bytecode);
	}
	/* A frame that has not begun points before its code. */
	return offset < 0 || offset > INT32_MAX ? -1 : (int32_t)offset;
}

/*
 * Without a GIL each thread specializes bytecode of its own: copies, which the code object lists
 * (co_tlbc, a _PyCodeArray of size and entries) and of which the frame has the number.
 */
static int find_bytecode(const struct pl_python *python, struct raw_frame *batch, size_t count)
{
	uint64_t lists[BATCH], sizes[BATCH];
	struct pl_memory_piece pieces[2 * BATCH];
	int r;

	for (size_t i = 0; i < count; i++)
		pieces[i] = (struct pl_memory_piece){ batch[i].code + (uint64_t)python->layout.code_tlbc, &lists[i],
			sizeof(lists[i]) };
	r = pl_space_read_pieces(python->space, pieces, count);
	if (r < 0)
		return r;
	for (size_t i = 0; i < count; i++) {
		pieces[2 * i] = (struct pl_memory_piece){ lists[i], &sizes[i], sizeof(sizes[i]) };
		pieces[2 * i + 1] = (struct pl_memory_piece){ lists[i] + 8 + 8 * (uint64_t)batch[i].copy,
			&batch[i].bytecode, sizeof(batch[i].bytecode) };
	}
	r = pl_space_read_pieces(python->space, pieces, 2 * count);
	for (size_t i = 0; r == 0 && i < count; i++)
		if (batch[i].copy >= sizes[i])
			r = -EINVAL;
	return r;
}

/*
 * From 3.11 on a frame is on the stack before it is complete (_PyFrame_IsIncomplete): while the
 * instructions ahead of _co_firsttraceable run. Neither sys._getframe() nor tracemalloc show it.
 * They make cells and generators, which may run the garbage collector and so, from C, other frames
 * on top; but no frame that called another one directly is incomplete. That leaves the top frame
 * and those below an entry from C to look at, with one read for all.
 */
static size_t keep_complete(const struct pl_python *python, const struct raw_frame *batch, size_t count,
			    struct pl_frame_ref *frames, bool *ret_bad)
{
	const struct pl_python_layout *layout = &python->layout;
	struct code_part {
		uint64_t type;
		int32_t first_traceable;
	} codes[BATCH];
	struct pl_memory_piece pieces[2 * BATCH];
	size_t kept = 0, pieces_count = 0;

	for (size_t i = 0; i < count; i++) {
		if (!batch[i].may_be_incomplete)
			continue;
		pieces[pieces_count++] = (struct pl_memory_piece){ batch[i].code + (uint64_t)layout->object_type,
			&codes[i].type, sizeof(codes[i].type) };
		pieces[pieces_count++] = (struct pl_memory_piece){ batch[i].code + (uint64_t)layout->code_first_traceable,
			&codes[i].first_traceable, sizeof(codes[i].first_traceable) };
	}
	if (pieces_count && pl_space_read_pieces(python->space, pieces, pieces_count) < 0) {
		*ret_bad = true;
		return 0;
	}
	for (size_t i = 0; i < count; i++) {
		int64_t offset = (int64_t)(batch[i].instruction - batch[i].bytecode);

		if (batch[i].may_be_incomplete) {
			if (codes[i].type != python->code_type) {
				*ret_bad = true;
				break;
			}
			if (batch[i].owner != OWNED_BY_GENERATOR && offset < (int64_t)codes[i].first_traceable * CODE_UNIT)
				continue;
		}
		frames[kept++] = (struct pl_frame_ref){ batch[i].code, frame_offset(python, &batch[i]) };
	}
	return kept;
}

size_t stack_read(const struct pl_python *python, uint64_t frame, struct pl_frame_ref *frames, size_t max,
		  bool *ret_more)
{
	uint64_t address = frame;
	struct window window;
	size_t count = 0, steps = 4 * max + BATCH; /* shims are fewer than frames: only a bad chain is longer */
	bool bad = false, from_c = true;

	if (frame && python->layout.cframe_frame != PL_NO_FIELD &&
			pl_space_read_u64(python->space, frame + (uint64_t)python->layout.cframe_frame, &address) < 0)
		address = 0;
	window.start = window.end = 0;
	while (address && count < max && !bad) {
		struct raw_frame batch[BATCH];
		size_t size = 0;

		while (address && size < BATCH && count + size < max) {
			struct raw_frame *next = &batch[size];

			if (!steps-- || !read_frame(python, &window, address, next)) {
				bad = true;
				break;
			}
			address = next->previous != address ? next->previous : 0;
			next->may_be_incomplete = from_c;
			from_c = next->entered_from_c;
			if (next->owner < python->layout.owner_skip_min)
				size++;
			else
				from_c = true;
		}
		if (size && python->layout.code_tlbc != PL_NO_FIELD && find_bytecode(python, batch, size) < 0) {
			bad = true;
			break;
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
