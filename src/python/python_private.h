/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_PYTHON_PRIVATE_H
#define PYLEAK_PYTHON_PRIVATE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "pyleak/elf.h"
#include "pyleak/maps.h"
#include "pyleak/python.h"

/*
 * A mapped ELF object, looked at in the process's own memory: what the dynamic linker sees of it.
 * It needs no file, so a deleted one, or one in another mount namespace, is as good as any.
 */
enum { OBJECT_SEGMENTS_MAX = 16 };
struct object {
	struct pl_space *space;
	const struct pl_map *map;  /* the one with the ELF header */
	uint64_t bias;
	uint64_t gnu_hash, sysv_hash, symbols, strings; /* run-time addresses, 0: none */
	bool has_dynamic, has_soname;
	struct {
		uint64_t start, end;
		bool writable, executable;
	} segments[OBJECT_SEGMENTS_MAX];
	size_t segment_count;
	struct pl_elf *elf; /* for .symtab; NULL where the file cannot be read */
};

/* Parses the object whose ELF header is at map->start. -ENOEXEC: not a 64-bit ELF for this machine;
 * -EPERM; -ESRCH. */
int object_read(struct pl_space *space, const struct pl_map *map, struct object *ret);
void object_release(struct object *object);
/* Address of a symbol that the object defines, by the dynamic linker's hash table. -ENOENT. */
int object_export(const struct object *object, const char *name, uint64_t *ret);
bool object_exports(const struct object *object, const char *name);
/* The same from .symtab (object->elf), for local names; a compiler's suffix is allowed. -ENOENT. */
int object_local(const struct object *object, const char *name, uint64_t *ret);
bool object_is_data(const struct object *object, uint64_t address);
/* pl_arch_read and pl_arch_is_data with a struct object as context. */
int object_code_read(void *object, uint64_t address, void *buffer, size_t length);
bool object_code_is_data(void *object, uint64_t address);

/* The interpreter among the mapped objects. -ENOEXEC with a line in err. */
int find_interpreter(struct pl_space *space, const struct pl_maps *maps, bool by_force, struct object *ret, struct pl_python *python,
		     struct pl_error *err);

/* Reads the object that a mapping begins, if it defines a CPython 3 (running or not). -ENOEXEC. */
int find_candidate(struct pl_space *space, const struct pl_map *map, struct object *ret);

/* Version from the interpreter itself: version_hex, minor, version, free_threaded, runtime. */
int version_detect(const struct object *object, struct pl_python *python, struct pl_error *err);

/* The table for a version. -ENOEXEC: there is none. */
int layout_table(int minor, int patch, bool free_threaded, struct pl_python_layout *ret);
bool layout_known(int minor);

/* _Py_DebugOffsets has a layout of its own in each of these; 0 bytes where a version has none. */
enum { DEBUG_OFFSETS_FIRST = 13, DEBUG_OFFSETS_LAST = 15, DEBUG_OFFSETS_MAX = 1024 };
size_t debug_offsets_size(int minor);
/*
 * Makes *layout, which is that of the table, what the interpreter says; what moved first is in
 * *ret_moved (code 0: nothing did). -EPROTO, and *layout is as it was: it says something impossible.
 */
int debug_offsets_apply(int minor, bool free_threaded, const uint8_t *debug_offsets, size_t size,
			struct pl_python_layout *layout, struct pl_error *ret_moved, struct pl_error *err);

/*
 * Whether the layout holds in the process: every struct that it describes is looked at where the
 * threads are now, and the parts have to lead to each other. For a layout that no table vouches for.
 * -EPROTO with what does not hold.
 */
int layout_prove(const struct object *object, const struct pl_python *python, struct pl_error *err);

/* Offset of a domain's PyMemAllocatorEx in _PyRuntime (3.12+), else PL_NO_FIELD. */
int32_t layout_allocator(int minor, enum pl_pymem_domain domain);

enum { INTERPRETERS_MAX = 1024 }; /* that are looked at: their list may have a loop */

/* The layout; where the interpreters and the current thread state are. -ENOEXEC: there is no table for
 * the version and python->by_force is not set. */
int roots_find(const struct object *object, struct pl_python *python, struct pl_error *err);
/* Whether there is an interpreter with a thread: before, nothing else can be read. */
bool roots_initialised(const struct pl_python *python);
/* Whether what was found agrees with the other sources of it. -EPROTO. */
int roots_check(const struct object *object, const struct pl_python *python, struct pl_error *err);

/* Fills python->free_lists as far as it can. */
void free_lists_find(const struct object *object, struct pl_python *python);
/* The part of it that is about objects of few words: contexts, slices, frames, methods. */
void parked_objects_find(const struct object *object, const struct pl_python *python, struct pl_parked_objects *parked);
/* The list of key tables in a stripped object. are_tables() looks whether a list begins with that many. */
bool parked_keys_find(const struct object *object, uint64_t *ret_count, uint64_t *ret_list,
	bool (*are_tables)(const struct pl_python *, uint64_t list, int32_t count), const struct pl_python *python);
/* Forgets what is not as it must be, or all. */
void parked_objects_check(const struct pl_python *python, struct pl_parked_objects *parked);
void parked_objects_forget(struct pl_parked_objects *parked);

/* python->thread_self. -ENOTSUP. */
int thread_self_find(const struct object *interpreter, const struct pl_maps *maps, struct pl_python *python,
		     struct pl_error *err);

int tables_find(const struct object *object, const struct pl_maps *maps, struct pl_python *python,
		struct pl_error *err);

/* The fields of a PyThreadState that matter here. */
enum { THREAD_STATE_SPAN = 256 }; /* more than any of them */
struct thread_state {
	uint64_t previous, next, interpreter;
	uint64_t id;    /* the thread pointer of its thread; 0: it has none yet */
	uint64_t frame; /* as tstate has it: up to the _PyCFrame in 3.11 and 3.12 */
	bool active;    /* it holds the GIL (3.12+: its interpreter's) */
};
int thread_read(const struct pl_python *python, uint64_t address, struct thread_state *ret);

/* pl_python_stack() from thread_state.frame on. */
size_t stack_read(const struct pl_python *python, uint64_t frame, struct pl_frame_ref *frames, size_t max,
		  bool *ret_more);

/* The furthest of some fields of a struct: how much of it to read. */
static inline int32_t field_last(const int32_t *fields, size_t count)
{
	int32_t last = 0;

	for (size_t i = 0; i < count; i++)
		last = fields[i] > last ? fields[i] : last;
	return last;
}

/* Unaligned fields of what was read from the tracee. */
static inline uint64_t field_u64(const uint8_t *bytes, int32_t offset)
{
	uint64_t value;

	memcpy(&value, bytes + offset, sizeof(value));
	return value;
}

static inline uint32_t field_u32(const uint8_t *bytes, int32_t offset)
{
	uint32_t value;

	memcpy(&value, bytes + offset, sizeof(value));
	return value;
}

#endif
