/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include "pyleak/space.h"
#include "python_private.h"

enum {
	STATUS_ACTIVE = 1 << 4,  /* _status.active of 3.12+: attached to the runtime now */
	THREADS_MAX = 1 << 16,
};

int thread_read(const struct pl_python *python, uint64_t address, struct thread_state *ret)
{
	const struct pl_python_layout *layout = &python->layout;
	const int32_t fields[] = { layout->thread_next, layout->thread_interpreter, layout->thread_id, layout->thread_frame,
		layout->thread_status };
	int32_t last = field_last(fields, sizeof(fields) / sizeof(fields[0]));
	uint8_t bytes[THREAD_STATE_SPAN];
	uint64_t current = 0;
	struct pl_memory_piece pieces[] = {
		{ address, bytes, (size_t)last + 8 },
		{ python->thread_current, &current, sizeof(current) },
	};
	int r = pl_space_read_pieces(python->space, pieces, python->thread_current ? 2 : 1);

	if (r < 0)
		return r;
	ret->previous = field_u64(bytes, layout->thread_next - 8);
	ret->next = field_u64(bytes, layout->thread_next);
	ret->interpreter = field_u64(bytes, layout->thread_interpreter);
	ret->id = field_u64(bytes, layout->thread_id);
	if (ret->id)
		ret->id -= (uint64_t)python->thread_self;
	ret->frame = field_u64(bytes, layout->thread_frame);
	if (python->thread_current)
		ret->active = current == address;
	else
		ret->active = field_u32(bytes, layout->thread_status) & STATUS_ACTIVE;
	return 0;
}

/* All thread states of all interpreters, newest first, until `visit` says that it is enough. */
static void walk(const struct pl_python *python,
	bool (*visit)(void *context, uint64_t address, const struct thread_state *thread), void *context)
{
	const struct pl_python_layout *layout = &python->layout;
	uint64_t interpreter;
	int threads = 0;

	if (pl_space_read_u64(python->space, python->interpreters_head, &interpreter) < 0)
		return;
	for (int i = 0; interpreter && i < INTERPRETERS_MAX; i++) {
		uint64_t address, next;
		struct pl_memory_piece pieces[] = {
			{ interpreter + (uint64_t)layout->interpreter_threads_head, &address, sizeof(address) },
			{ interpreter + (uint64_t)layout->interpreter_next, &next, sizeof(next) },
		};

		if (pl_space_read_pieces(python->space, pieces, sizeof(pieces) / sizeof(pieces[0])) < 0)
			break;
		for (; address && threads < THREADS_MAX; threads++) {
			struct thread_state thread;

			if (thread_read(python, address, &thread) < 0)
				break;
			if (!visit(context, address, &thread))
				return;
			address = thread.next;
		}
		interpreter = next;
	}
}

struct wanted {
	uint64_t thread_pointer, best;
	bool best_has_frame;
};

/*
 * An OS thread has a thread state in every interpreter that it has entered: the active one is
 * preferred; with none (the thread is outside of the GIL) one that has frames.
 */
static bool compare(void *context, uint64_t address, const struct thread_state *thread)
{
	struct wanted *wanted = context;

	if (thread->id != wanted->thread_pointer)
		return true;
	if (thread->active || !wanted->best || (thread->frame && !wanted->best_has_frame)) {
		wanted->best = address;
		wanted->best_has_frame = thread->frame != 0;
	}
	return !thread->active;
}

static uint64_t search(const struct pl_python *python, uint64_t thread_pointer)
{
	struct wanted wanted = {.thread_pointer = thread_pointer};

	walk(python, compare, &wanted);
	return wanted.best;
}

struct last {
	uint64_t address;
	struct thread_state thread;
};

static bool remember(void *context, uint64_t address, const struct thread_state *thread)
{
	struct last *last = context;

	*last = (struct last){address, *thread};
	return true;
}

/* Of the main interpreter: newer ones are put in front. False: the walk ended early. */
static bool last_of_main(const struct pl_python *python, struct last *ret)
{
	uint64_t next;

	*ret = (struct last){0};
	walk(python, remember, ret);
	return ret->address &&
	       pl_space_read_u64(
		       python->space, ret->thread.interpreter + (uint64_t)python->layout.interpreter_next, &next) == 0 && !next;
}

/* Newer ones are put in front of thread states, too. */
uint64_t pl_python_first_thread(const struct pl_python *python, uint64_t thread_pointer)
{
	struct last last;

	return last_of_main(python, &last) && !last.thread.next && last.thread.id == thread_pointer ? last.address : 0;
}

/* struct pthread has the thread's id at some place, that of one thread as of any other. */
enum { TID_LIMIT = 2048, TID_STATES = 8 };
struct tids {
	const struct pl_python *python;
	bool possible[TID_LIMIT / 4];
	int states;
};

static bool exclude(void *context, uint64_t address, const struct thread_state *thread)
{
	struct tids *tids = context;
	uint32_t words[TID_LIMIT / 4], native_id;

	if (pl_space_read(tids->python->space, address + (uint64_t)tids->python->layout.thread_native_id, &native_id,
		    sizeof(native_id)) < 0 || !native_id || pl_space_read(tids->python->space, thread->id + (uint64_t)tids->python->thread_self, words, sizeof(words)) < 0)
		return true;
	for (size_t i = 0; i < TID_LIMIT / 4; i++)
		tids->possible[i] &= words[i] == native_id;
	return ++tids->states < TID_STATES;
}

static int32_t find_tid(const struct pl_python *python)
{
	struct tids tids = {.python = python};

	memset(tids.possible, 1, sizeof(tids.possible));
	walk(python, exclude, &tids);
	/* The first one: older C libraries have the process's id behind it, which the first thread's is too. */
	for (size_t i = 0; tids.states && i < TID_LIMIT / 4; i++)
		if (tids.possible[i])
			return (int32_t)(python->thread_self + 4 * (int64_t)i);
	return PL_NO_FIELD;
}

void pl_python_detached(const struct pl_python *python, struct pl_python_detached *ret)
{
	struct last last;

	*ret = (struct pl_python_detached){.native_id = python->layout.thread_native_id, .tid = PL_NO_FIELD};
	if (!python->finalizing || !last_of_main(python, &last))
		return;
	if (ret->native_id != PL_NO_FIELD) {
		ret->tid = find_tid(python);
		if (ret->tid == PL_NO_FIELD)
			return;
	}
	ret->interpreter = last.thread.interpreter;
}

struct pointers {
	uint64_t *items;
	size_t count, max;
};

static bool collect(void *context, uint64_t address, const struct thread_state *thread)
{
	struct pointers *pointers = context;

	(void)address;
	if (pointers->count < pointers->max)
		pointers->items[pointers->count++] = thread->id;
	return pointers->count < pointers->max;
}

size_t pl_python_thread_pointers(const struct pl_python *python, uint64_t *pointers, size_t max)
{
	struct pointers found = {.items = pointers, .max = max};

	if (max)
		walk(python, collect, &found);
	return found.count;
}

/*
 * Whether a thread state that was right once still is the one. A freed one may keep its thread_id,
 * and glibc gives the next thread the same stack, so the same id: being active proves that it
 * lives. One that is not (the thread is outside of the GIL) must still be in the list, and there
 * must be no other interpreter in which the thread could have an active one.
 */
static bool still_right(const struct pl_python *python, uint64_t address, uint64_t thread_pointer,
			struct thread_state *thread)
{
	const struct pl_python_layout *layout = &python->layout;
	uint64_t back, head, next;
	struct pl_memory_piece pieces[] = {
		{ 0, &back, sizeof(back) },
		{ python->interpreters_head, &head, sizeof(head) },
		{ 0, &next, sizeof(next) },
	};

	if (!address || thread_read(python, address, thread) < 0 || thread->id != thread_pointer)
		return false;
	if (thread->active)
		return true;
	pieces[0].address = thread->previous ? thread->previous + (uint64_t)layout->thread_next :
					       thread->interpreter + (uint64_t)layout->interpreter_threads_head;
	pieces[2].address = thread->interpreter + (uint64_t)layout->interpreter_next;
	return pl_space_read_pieces(python->space, pieces, sizeof(pieces) / sizeof(pieces[0])) == 0 && back == address &&
		head == thread->interpreter && !next;
}

uint64_t pl_python_thread(const struct pl_python *python, uint64_t thread_pointer, uint64_t hint)
{
	struct thread_state thread;

	return still_right(python, hint, thread_pointer, &thread) ? hint : search(python, thread_pointer);
}

size_t pl_python_stack(const struct pl_python *python, uint64_t tstate, struct pl_frame_ref *frames, size_t max,
		       bool *ret_more)
{
	struct thread_state thread = { 0 };

	if (tstate && thread_read(python, tstate, &thread) < 0)
		thread.frame = 0;
	return stack_read(python, thread.frame, frames, max, ret_more);
}

size_t pl_python_thread_stack(const struct pl_python *python, uint64_t thread_pointer, uint64_t *tstate,
			      struct pl_frame_ref *frames, size_t max, bool *ret_more)
{
	struct thread_state thread;

	if (still_right(python, *tstate, thread_pointer, &thread))
		return stack_read(python, thread.frame, frames, max, ret_more);
	*tstate = search(python, thread_pointer);
	return pl_python_stack(python, *tstate, frames, max, ret_more);
}
