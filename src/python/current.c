/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "pyleak/arch.h"
#include "pyleak/space.h"
#include "python_private.h"

/*
 * From 3.12 on the running thread state is a thread-local word (_Py_tss_tstate, Python/pystate.c),
 * whose symbol is local and has no place in any table; the exported functions that return it are
 * read instead. A libpython that was there when the program started has its thread-local words at
 * one offset from the thread pointer in every thread (static TLS). One that is loaded later has them in
 * a block for each thread, which the thread's vector leads to:
 *
 *   PL_ARCH_THREAD_VECTOR ──> vector      glibc: { number of entries (-16), generation (0), entries of 16 bytes }
 *                                      musl:  { number of entries (0), entries of 8 bytes }
 */

enum { STATIC_TLS_MAX = 1 << 20, MODULES_MAX = 1 << 16 };
static const struct {
	uint32_t stride;
	int32_t room;
	bool generations;
} vectors[] = {{16, -16, true}, {8, 0, false}};

static int find_access(const struct pl_python *python, struct pl_thread_local *ret)
{
	static const char *const functions[] = {"_PyThreadState_GetCurrent", "PyThreadState_GetUnchecked"};
	struct pl_maps maps;
	struct object object;
	int code = pl_space_maps(python->space, &maps);

	if (code < 0)
		goto out;

	const struct pl_map *map = pl_maps_find(&maps, python->object_start);

	code = map ? object_read(python->space, map, &object) : -ENOENT;
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

/* Where a thread's copy of a module's thread-local words begins; 0: it has none yet. *ret_generation: of the vector. */
static int block_of(const struct pl_python *python, uint64_t thread_pointer, size_t kind, uint64_t module, uint64_t *ret,
	uint64_t *ret_generation)
{
	uint64_t vector, entries = 0, generation = 0;
	int code = pl_space_read_u64(python->space, thread_pointer + PL_ARCH_THREAD_VECTOR, &vector);

	if (code == 0)
		code = pl_space_read_u64(python->space, vector + (uint64_t)(int64_t)vectors[kind].room, &entries);
	if (code == 0)
		code = pl_space_read_u64(python->space, vector, &generation);
	if (code < 0)
		return code;
	*ret_generation = generation;
	if (entries > MODULES_MAX || generation > UINT32_MAX)
		return -ENOTSUP;
	*ret = 0;
	if (module > entries)
		return 0;
	code = pl_space_read_u64(python->space, vector + vectors[kind].stride * module, ret);
	if (*ret == UINT64_MAX) /* TLS_DTV_UNALLOCATED */
		*ret = 0;
	return code;
}

/* The word must be empty (no GIL) or a thread state of that very thread. */
static bool word_holds(const struct pl_python *python, uint64_t thread_pointer, uint64_t address, bool *ret_attached)
{
	uint64_t word;
	struct thread_state thread;

	if (pl_space_read_u64(python->space, address, &word) < 0)
		return false;
	*ret_attached = word != 0;
	return !word || (thread_read(python, word, &thread) == 0 && thread.id == thread_pointer);
}

static bool words_hold(const struct pl_python *python, const uint64_t *thread_pointers, size_t count, int64_t offset)
{
	bool attached;

	for (size_t i = 0; i < count; i++)
		if (!word_holds(python, thread_pointers[i], thread_pointers[i] + (uint64_t)offset, &attached))
			return false;
	return true;
}

static bool is_static(int64_t offset)
{
	return PL_ARCH_STATIC_TLS_BELOW ? offset < 0 && offset >= -STATIC_TLS_MAX : offset > 0 && offset <= STATIC_TLS_MAX;
}

/* The blocks are at one distance from their threads. */
static int find_static(const struct pl_python *python, uint64_t module, uint64_t in_block, size_t kind,
	const uint64_t *thread_pointers, size_t count, struct pl_python_current *ret)
{
	*ret = (struct pl_python_current){0};
	for (size_t i = 0; i < count; i++) {
		uint64_t block, generation;
		int code = block_of(python, thread_pointers[i], kind, module, &block, &generation);

		if (code < 0)
			return code;

		int64_t offset = (int64_t)(block + in_block - thread_pointers[i]);

		if (!is_static(offset) || (i > 0 && offset != ret->offset))
			return -ENOTSUP;
		ret->offset = offset;
	}
	return count && words_hold(python, thread_pointers, count, ret->offset) ? 0 : -ENOTSUP;
}

/*
 * Each thread has a block of its own, or none. The vector of a thread that has not run Python since libpython was loaded
 * may still have the block of what had its number before: such vectors are older than any that is up to date. At least
 * one of the threads that have a state must have a block that can be read.
 */
static int find_dynamic(const struct pl_python *python, uint64_t module, uint64_t in_block, size_t kind,
	const uint64_t *thread_pointers, size_t count, struct pl_python_current *ret)
{
	uint64_t states[64], oldest_attached = UINT64_MAX, newest = 0;
	size_t state_count = pl_python_thread_pointers(python, states, sizeof(states) / sizeof(states[0]));

	*ret = (struct pl_python_current){(int64_t)in_block, module, vectors[kind].stride, vectors[kind].room, 0};
	for (size_t i = 0; i < count; i++) {
		uint64_t block, generation;
		bool attached = false, has_state = false;
		int code = block_of(python, thread_pointers[i], kind, module, &block, &generation);

		if (code < 0)
			return code;
		for (size_t k = 0; k < state_count; k++)
			has_state |= states[k] == thread_pointers[i];
		if (!has_state || !block)
			continue;
		if (!word_holds(python, thread_pointers[i], block + in_block, &attached))
			return -ENOTSUP;
		if (attached && generation < oldest_attached)
			oldest_attached = generation;
		if (generation > newest)
			newest = generation;
		ret->generation = 1;
	}
	if (!ret->generation)
		return -ENOTSUP;
	/* Of nobody who holds the GIL it is certain; the newest of those with a state then is. */
	ret->generation = !vectors[kind].generations ? 0 : oldest_attached != UINT64_MAX ? oldest_attached : newest;
	return 0;
}

/* What a descriptor says once it has been relocated: an offset from the thread pointer, or the address of a pair. */
static int read_descriptor(const struct pl_python *python, struct pl_thread_local *access)
{
	uint64_t words[2]; /* function, argument */
	int code = pl_space_read(python->space, access->descriptor, words, sizeof(words));
	int64_t argument = (int64_t)words[1];

	if (code < 0)
		return code;
	if (is_static(argument))
		access->offset += argument;
	else
		access->pair = words[1];
	return argument ? 0 : -ENOTSUP;
}

int pl_python_current(const struct pl_python *python, const uint64_t *thread_pointers, size_t count,
	struct pl_python_current *ret, struct pl_error *err)
{
	struct pl_thread_local access;
	uint64_t pair[2]; /* tls_index: module, offset */
	int code = find_access(python, &access);

	if (code == 0 && access.descriptor)
		code = read_descriptor(python, &access);
	if (code == 0 && !access.pair) {
		*ret = (struct pl_python_current){.offset = access.offset};
		code = words_hold(python, thread_pointers, count, access.offset) ? 0 : -ENOTSUP;
	} else if (code == 0) {
		code = pl_space_read(python->space, access.pair, pair, sizeof(pair));
		pair[1] += (uint64_t)access.offset;
		if (code == 0 && (!pair[0] || pair[0] > MODULES_MAX || pair[1] > STATIC_TLS_MAX))
			code = -ENOTSUP;
		for (size_t i = 0; code == 0 && i < 2 * (sizeof(vectors) / sizeof(vectors[0])); i++) {
			code = (i < 2 ? find_static : find_dynamic)(
				python, pair[0], pair[1], i % 2, thread_pointers, count, ret);
			if (code == 0)
				return 0;
			code = i < 3 ? 0 : code;
		}
	}
	if (code < 0)
		return pl_fail(err, -ENOTSUP,
			"the running thread state of %s is not where Python %s keeps it: use --engine breakpoint",
			python->space->name, python->version);
	return 0;
}

uint64_t pl_python_main_gil(const struct pl_python *python)
{
	int32_t offset = python->layout.interpreter_gil;
	uint64_t interpreter, next, gil;

	if (offset == PL_NO_FIELD || pl_space_read_u64(python->space, python->interpreters_head, &interpreter) < 0)
		return 0;
	/* New interpreters are put in front: the main one is the last. */
	for (int i = 0; i < INTERPRETERS_MAX; i++) {
		if (pl_space_read_u64(python->space, interpreter + (uint64_t)python->layout.interpreter_next, &next) < 0)
			return 0;
		if (!next)
			break;
		interpreter = next;
	}
	return pl_space_read_u64(python->space, interpreter + (uint64_t)offset, &gil) < 0 ? 0 : gil;
}
