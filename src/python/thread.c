/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "pyleak/memory.h"
#include "python_private.h"

enum {
	THREAD_STATE_SPAN = 256, /* more than any field of PyThreadState that is read */
	STATUS_ACTIVE = 1 << 4,  /* _status.active of 3.12+: attached to the runtime now */
	INTERPRETERS_MAX = 1024,
	THREADS_MAX = 1 << 16,
};

struct thread_state {
	uint64_t next, interpreter, id, frame;
	bool active;
};

static int thread_read(const struct pl_python *python, uint64_t address, struct thread_state *ret)
{
	const struct pl_python_layout *layout = &python->layout;
	uint8_t bytes[THREAD_STATE_SPAN];
	int32_t last = layout->thread_id > layout->thread_frame ? layout->thread_id : layout->thread_frame;
	int r;

	r = pl_memory_read(python->pid, address, bytes, (size_t)last + 8);
	if (r < 0)
		return r;
	ret->next = field_u64(bytes, layout->thread_next);
	ret->interpreter = field_u64(bytes, layout->thread_interpreter);
	ret->id = field_u64(bytes, layout->thread_id);
	ret->frame = field_u64(bytes, layout->thread_frame);
	ret->active = layout->thread_status != PL_NO_FIELD &&
		(field_u32(bytes, layout->thread_status) & STATUS_ACTIVE);
	return 0;
}

/* Up to 3.11 one word names the thread state that holds the GIL. */
static uint64_t current_thread(const struct pl_python *python)
{
	uint64_t current;

	if (!python->thread_current || pl_memory_read_u64(python->pid, python->thread_current, &current) < 0)
		return 0;
	return current;
}

/*
 * An OS thread has a thread state in every interpreter that it has entered: the active one is
 * preferred; with none (the thread is outside of the GIL) one that has frames.
 */
static uint64_t search(const struct pl_python *python, uint64_t thread_pointer)
{
	const struct pl_python_layout *layout = &python->layout;
	uint64_t current = current_thread(python), interpreter, best = 0;
	bool best_has_frame = false;
	int threads = 0;

	if (pl_memory_read_u64(python->pid, python->interpreters_head, &interpreter) < 0)
		return 0;
	for (int i = 0; interpreter && i < INTERPRETERS_MAX; i++) {
		uint64_t address, next;
		struct pl_memory_piece pieces[] = {
			{ interpreter + (uint64_t)layout->interpreter_threads_head, &address, sizeof(address) },
			{ interpreter + (uint64_t)layout->interpreter_next, &next, sizeof(next) },
		};

		if (pl_memory_read_pieces(python->pid, pieces, sizeof(pieces) / sizeof(pieces[0])) < 0)
			break;
		for (; address && threads < THREADS_MAX; threads++) {
			struct thread_state thread;

			if (thread_read(python, address, &thread) < 0)
				break;
			if (thread.id == thread_pointer) {
				if (thread.active || address == current)
					return address;
				if (!best || (thread.frame && !best_has_frame)) {
					best = address;
					best_has_frame = thread.frame != 0;
				}
			}
			address = thread.next;
		}
		interpreter = next;
	}
	return best;
}

/*
 * Whether a thread state that was right once still is. A freed one keeps its thread_id, and glibc
 * gives the next thread the same stack, so the same id: only the list says that it is alive.
 */
static bool still_linked(const struct pl_python *python, uint64_t address, const struct thread_state *thread)
{
	const struct pl_python_layout *layout = &python->layout;
	uint64_t back = 0, previous;

	if (pl_memory_read_u64(python->pid, address, &previous) < 0)
		return false;
	if (previous)
		previous += (uint64_t)layout->thread_next;
	else
		previous = thread->interpreter + (uint64_t)layout->interpreter_threads_head;
	return pl_memory_read_u64(python->pid, previous, &back) == 0 && back == address;
}

uint64_t pl_python_thread(const struct pl_python *python, uint64_t thread_pointer, uint64_t hint)
{
	struct thread_state thread;

	if (hint && thread_read(python, hint, &thread) == 0 && thread.id == thread_pointer &&
			(thread.active || hint == current_thread(python)) && still_linked(python, hint, &thread))
		return hint;
	return search(python, thread_pointer);
}
