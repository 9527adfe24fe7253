/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "pyleak/arch.h"
#include "pyleak/memory.h"
#include "python_private.h"

/*
 * From 3.12 on the running thread state is a thread-local word (_Py_tss_tstate, Python/pystate.c),
 * whose symbol is local and has no place in any table; the exported functions that return it are
 * read instead. A libpython that was there when the program started has its thread-local words at
 * one offset from the thread pointer in every thread (static TLS).
 */

enum { STATIC_TLS_MAX = 1 << 20 };

static int find_access(const struct pl_python *python, struct pl_thread_local *ret)
{
	static const char *const functions[] = {"_PyThreadState_GetCurrent", "PyThreadState_GetUnchecked"};
	struct pl_maps maps;
	struct object object;
	int code = pl_maps_read(python->pid, &maps);

	if (code < 0)
		goto out;

	const struct pl_map *map = pl_maps_find(&maps, python->object_start);

	code = map ? object_read(python->pid, map, &object) : -ENOENT;
	if (code < 0)
		goto out;
	code = -ENOENT;
	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]) && code < 0; i++) {
		uint64_t function;

		if (object_export(&object, functions[i], &function) == 0)
			code = pl_arch_thread_local(function, object_code_read, &object, ret);
	}
	object_release(&object);
out:
	pl_maps_free(&maps);
	return code;
}

/* Where a thread's copy of a module's thread-local words begins: the thread pointer is followed by
 * a pointer to the thread's vector, of 16 bytes a module in glibc and of 8 in musl. */
static int block_of(const struct pl_python *python, uint64_t thread_pointer, uint64_t module, uint64_t stride,
	uint64_t *ret)
{
	uint64_t vector;
	int code = pl_memory_read_u64(python->pid, thread_pointer + 8, &vector);

	return code < 0 ? code : pl_memory_read_u64(python->pid, vector + stride * module, ret);
}

static int offset_of_pair(const struct pl_python *python, uint64_t pair, uint64_t stride, const uint64_t *thread_pointers,
	size_t count, int64_t *ret_offset)
{
	uint64_t words[2]; /* tls_index: module, offset */
	int code = pl_memory_read(python->pid, pair, words, sizeof(words));

	if (code < 0)
		return code;
	for (size_t i = 0; i < count; i++) {
		uint64_t block;

		code = block_of(python, thread_pointers[i], words[0], stride, &block);
		if (code < 0)
			return code;

		int64_t offset = (int64_t)(block + words[1] - thread_pointers[i]);

		if (offset >= 0 || offset < -STATIC_TLS_MAX || (i > 0 && offset != *ret_offset))
			return -ENOTSUP;
		*ret_offset = offset;
	}
	return 0;
}

/* The word of each thread must be empty (no GIL) or a thread state of that very thread. */
static bool words_hold(const struct pl_python *python, const uint64_t *thread_pointers, size_t count, int64_t offset)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t word;
		struct thread_state thread;

		if (pl_memory_read_u64(python->pid, thread_pointers[i] + (uint64_t)offset, &word) < 0)
			return false;
		if (word && (thread_read(python, word, &thread) < 0 || thread.id != thread_pointers[i]))
			return false;
	}
	return true;
}

int pl_python_current_offset(const struct pl_python *python, const uint64_t *thread_pointers, size_t count,
	int64_t *ret_offset, struct pl_error *err)
{
	static const uint64_t strides[] = {16, 8};
	struct pl_thread_local access;
	int code = find_access(python, &access);

	if (code == 0 && !access.pair) {
		*ret_offset = access.offset;
		code = words_hold(python, thread_pointers, count, access.offset) ? 0 : -ENOTSUP;
	} else if (code == 0) {
		code = -ENOTSUP;
		for (size_t i = 0; i < sizeof(strides) / sizeof(strides[0]) && code < 0; i++) {
			code = offset_of_pair(python, access.pair, strides[i], thread_pointers, count, ret_offset);
			if (code == 0 && !words_hold(python, thread_pointers, count, *ret_offset))
				code = -ENOTSUP;
		}
	}
	if (code < 0)
		return pl_fail(err, -ENOTSUP,
			"the running thread state of process %d is not where Python %s keeps it: use --engine breakpoint",
			(int)python->pid, python->version);
	return 0;
}

uint64_t pl_python_main_gil(const struct pl_python *python)
{
	int32_t offset = python->layout.interpreter_gil;
	uint64_t interpreter, next, gil;

	if (offset == PL_NO_FIELD || pl_memory_read_u64(python->pid, python->interpreters_head, &interpreter) < 0)
		return 0;
	/* New interpreters are put in front: the main one is the last. */
	for (int i = 0; i < INTERPRETERS_MAX; i++) {
		if (pl_memory_read_u64(python->pid, interpreter + (uint64_t)python->layout.interpreter_next, &next) < 0)
			return 0;
		if (!next)
			break;
		interpreter = next;
	}
	return pl_memory_read_u64(python->pid, interpreter + (uint64_t)offset, &gil) < 0 ? 0 : gil;
}
