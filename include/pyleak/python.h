/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_PYTHON_H
#define PYLEAK_PYTHON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "pyleak/error.h"
#include "pyleak/space.h"

/*
 * A CPython interpreter seen from outside: its version, its struct layouts, its allocator tables,
 * and, from remote memory, every thread's Python stack. Nothing here stops or changes the process.
 */

/* Byte offsets that one build of CPython lays its structs out with. PL_NO_FIELD: not in this
 * version. From the table by minor version; where the tracee's own _Py_DebugOffsets (3.13+) say
 * something else, they are taken, once everything that they lead to is as it must be. */
#define PL_NO_FIELD (-1)
struct pl_python_layout {
	int32_t object_type;                                       /* PyObject.ob_type */
	int32_t type_name, type_flags, type_dealloc;               /* PyTypeObject */
	int32_t runtime_interpreters_head, runtime_tstate_current, runtime_finalizing; /* _PyRuntimeState */
	int32_t interpreter_next, interpreter_id, interpreter_threads_head;
	int32_t interpreter_gil;    /* ceval.gil, a pointer, since PEP 684 (3.12); none without a GIL */
	int32_t thread_next, thread_interpreter, thread_id, thread_native_id, thread_status;
	int32_t thread_frame;       /* tstate: frame, cframe or current_frame */
	int32_t cframe_frame;       /* 3.11, 3.12: _PyCFrame.current_frame, behind thread_frame */
	int32_t frame_previous, frame_code, frame_instruction, frame_owner, frame_is_entry, frame_tlbc_index;
	int32_t code_filename, code_name, code_qualname, code_first_line, code_line_table;
	int32_t code_first_traceable, code_bytecode, code_tlbc;
	int32_t string_length, string_state, string_ascii_data, string_compact_data, string_data_pointer;
	int32_t bytes_size, bytes_data;
	int32_t tuple_items;
	bool frame_instruction_is_index; /* <= 3.10: f_lasti in the frame; 3.11+: a pointer */
	bool frame_code_tagged;          /* 3.14+: _PyStackRef, mask the low two bits */
	bool string_state_wide;          /* 3.14t+: interned is a byte, kind bits 8-10, compact 11, ascii 12 */
	uint8_t owner_skip_min;          /* frames with owner >= this are shims (0xff: none) */
};

enum pl_pymem_domain { PL_PYMEM_RAW, PL_PYMEM_MEM, PL_PYMEM_OBJ, PL_PYMEM_COUNT };
enum pl_allocator_function { PL_FN_MALLOC, PL_FN_CALLOC, PL_FN_REALLOC, PL_FN_FREE, PL_FN_COUNT };

/* Types whose freed blocks are parked in free lists, and where the lists are. 0: not known. */
enum pl_parking_type { PL_PARKING_LIST, PL_PARKING_DICT, PL_PARKING_TUPLE, PL_PARKING_FLOAT, PL_PARKING_TYPES };
/* Lists of other types. Blocks are taken from the counted ones by their head alone: with a count beyond
 * their limit nothing is parked. */
enum pl_counted { PL_COUNTED_FRAMES, PL_COUNTED_METHODS, PL_COUNTED_FUNCTIONS, PL_COUNTED };
struct pl_parked_objects {
	uint64_t frame_type, context_type, slice_type;
	uint64_t counts[PL_COUNTED];                         /* of an int32_t each */
	uint64_t context_count, context_head, context_free;  /* an int32_t, a chain, and what tp_free is */
	uint64_t slice_cache, slice_free;                    /* a word: one slice, or NULL */
};
enum { PL_CONTEXT_LINK = 32 }; /* PyContext.ctx_weakreflist, 3.7 to 3.13 */
struct pl_python_free_lists {
	uint64_t reference_tracer; /* 3.14+ and free-threaded: the word with the tracer of references, else 0 */
	uint64_t types[PL_PARKING_TYPES];
	uint64_t interpreter;             /* 3.10+: the main one, whose lists these are */
	uint64_t float_count, float_head; /* an int32_t, and the first of a chain linked through the word at 8 */
	uint64_t keys_count, keys_list;   /* an int32_t, and the array of that many key tables of dicts */
	uint64_t chains;                  /* 3.14+: all lists, each the first of a chain and an int64_t, its length */
	uint32_t chain_count;
	struct pl_parked_objects objects; /* up to 3.13 */
};

/*
 * arena_map_root of Objects/obmalloc.c (3.10 and later), by which pymalloc tells its own blocks from those of malloc(). Three
 * levels by the bits of an address: two of pointers to nodes, each for so many bits; in the last, for each MiB, in which part
 * of it an arena lies.
 */
struct pl_arena_map {
	uint64_t root; /* 0: it is not known */
	uint32_t node_bits, leaf_bits;
};

struct pl_python {
	struct pl_space *space; /* what it is read from: borrowed */
	pid_t pid;              /* the same process, for those that trace it */
	uint32_t version_hex;  /* PY_VERSION_HEX: 0x030b02f0 */
	int minor;             /* 6 … 15, or more by force */
	char version[32];      /* "3.11.2"; "3.13.0t" for a free-threaded build */
	bool free_threaded;
	bool by_force;         /* a version that there is no table for may be taken */
	bool unknown;          /* it is one */
	struct pl_python_layout layout;
	uint64_t runtime;           /* _PyRuntime; 0 on 3.6 */
	uint64_t interpreters_head; /* address of the word that points to the newest interpreter */
	uint64_t thread_current;    /* address of the word with the GIL holder's tstate (<= 3.11), else 0 */
	uint64_t finalizing;        /* address of a word that is not 0 once Py_Finalize() has begun; 0: not known */
	int64_t thread_self;        /* what pthread_self() gives, from the thread pointer */
	uint64_t code_type;         /* &PyCode_Type */
	uint64_t allocators[PL_PYMEM_COUNT]; /* address of each PyMemAllocatorEx {ctx, malloc, calloc, realloc, free} */
	char *object_path;          /* the mapped ELF that defines the interpreter, as the tracee names it */
	uint64_t object_start;      /* where it is mapped */
	char executable_kind[16];   /* "shared", "static" */
	struct pl_python_free_lists free_lists; /* not checked: see pl_python_free_lists_check() */
};

/* The function word of one domain and function: the place that a hook redirects. */
static inline uint64_t pl_python_slot(const struct pl_python *python, enum pl_pymem_domain domain,
				      enum pl_allocator_function function)
{
	return python->allocators[domain] + 8 + 8 * (uint64_t)function;
}

/*
 * Finds the interpreter in any mapped ELF that defines it (never by a file name), its version from
 * the interpreter itself, its layout, and its allocator tables in two independent ways that must
 * agree. *ret is released with pl_python_close(); the space outlives it.
 * by_force: a minor version that is newer than all that we know is taken too, if what its
 * _Py_DebugOffsets say, read as an older version's, holds in the process.
 * -ENOEXEC: not a Python that we know (not Python, PyPy, Python 2, unknown version: err says which);
 * -EPROTO: two sources disagree; -ESRCH; -EPERM.
 */
int pl_python_open(struct pl_space *space, bool by_force, struct pl_python **ret, struct pl_error *err);
void pl_python_close(struct pl_python *python);
/* Whether Py_Finalize() has begun, as of now. False also if that is not known. */
bool pl_python_is_ending(const struct pl_python *python);
/* Cheap: version only (for `pyleak ps`); text gets "3.11.2". 1: a version that is opened by force only.
 * -ENOEXEC: no CPython in it; -EPERM: it may not be read, so nobody knows; -ESRCH. */
int pl_python_identify(struct pl_space *space, char version[32]);

/* One entry of a stack. Two frames are the same place if all three are equal. */
struct pl_frame_ref {
	uint64_t code;   /* PyCodeObject */
	int32_t offset;  /* of the instruction, bytes into the bytecode; -1: not started (use the first line) */
};

/*
 * The tstate of the OS thread whose thread pointer (pl_registers_thread_pointer()) is given: tstate.thread_id is
 * its pthread_self(). All interpreters are searched; with several, the active one. 0 if it has none.
 * `hint` may be a tstate that was right the last time (checked before it is believed), or 0.
 */
uint64_t pl_python_thread(const struct pl_python *python, uint64_t thread_pointer, uint64_t hint);

/* The thread state that this thread has in the main interpreter, if it is the first one that there was: it ends with the
 * interpreter, and by this thread. Else 0. */
uint64_t pl_python_first_thread(const struct pl_python *python, uint64_t thread_pointer);

/* What tells a thread outside of the GIL that a state it had is still its own, and nobody else's to take away: there is
 * no interpreter but the main one, and the state names this thread of the kernel's as the C library does. */
struct pl_python_detached {
	uint64_t interpreter; /* the main one; 0: states of threads outside of the GIL cannot be trusted */
	int32_t native_id;    /* offset in the state of … (3.11+, else PL_NO_FIELD) */
	int32_t tid;          /* … what is at this offset from the thread pointer */
};
/* Of a process that runs, what changes under the look is not believed: look again. */
void pl_python_detached(const struct pl_python *python, struct pl_python_detached *ret);

/* The thread pointers of all thread states, at most `max`, as an OS thread has them in each interpreter
 * that it has entered; how many. */
size_t pl_python_thread_pointers(const struct pl_python *python, uint64_t *pointers, size_t max);

/*
 * The Python stack of a tstate, innermost frame first, at most `max` entries, as
 * sys._getframe()/tracemalloc see it (shims and incomplete frames left out). Returns the number of
 * entries; *ret_more (may be NULL) says whether the chain went on (or went bad: truncated, never
 * an error).
 */
size_t pl_python_stack(const struct pl_python *python, uint64_t tstate, struct pl_frame_ref *frames, size_t max,
		       bool *ret_more);

/* Both at once, for every stop at a breakpoint: *tstate is the hint and becomes the answer. While the
 * thread holds the GIL and the hint is right, two to four small reads. */
size_t pl_python_thread_stack(const struct pl_python *python, uint64_t thread_pointer, uint64_t *tstate,
			      struct pl_frame_ref *frames, size_t max, bool *ret_more);

/*
 * 3.12+: where the running thread state of a thread is. Of a libpython that was there from the start, at one offset from
 * the thread pointer in all threads. Of one that was loaded later (mod_wsgi, the plugin of uwsgi), in a block that each
 * thread gets when it first runs Python, and that its vector (the word at 8 from the thread pointer) leads to.
 */
struct pl_python_current {
	int64_t offset;      /* from the thread pointer, or in the block */
	uint64_t module;     /* its number; 0: there is no block */
	uint32_t stride;     /* of the vector: the block's address is at stride × module */
	int32_t room;        /* there it says up to which number it goes; */
	uint64_t generation; /* its first word is at least this where the entry is up to date; 0: it always is */
};
/* Checked in `thread_pointers`. -ENOTSUP: it is nowhere, or one of the threads has ended meanwhile. */
int pl_python_current(const struct pl_python *python, const uint64_t *thread_pointers, size_t count,
		      struct pl_python_current *ret, struct pl_error *err);
/* 3.12+: the GIL of the main interpreter (what its ceval.gil points to); 0 where there is none. */
uint64_t pl_python_main_gil(const struct pl_python *python);

/*
 * Forgets in *lists whatever is not proven by what it leads to. The lists lie deep inside of the interpreter's state,
 * where a patch release can move them. One that changes under the look is not proven either: look again.
 */
void pl_python_free_lists_check(const struct pl_python *python, struct pl_python_free_lists *lists);
/* PyFloat_MAXFREELIST, PyDict_MAXFREELIST, PyContext_MAXFREELIST */
enum { PL_FLOATS_PARKED_MAX = 100, PL_KEYS_PARKED_MAX = 80, PL_CONTEXTS_PARKED_MAX = 255 };

/* What a code object says of itself, copied. Strings are UTF-8; unreadable ones are "<unknown>". */
struct pl_code {
	char *filename;
	char *name;      /* co_qualname where there is one (3.11+), else co_name */
	int first_line;
	uint8_t *line_table;
	size_t line_table_size;
};
int pl_python_code_read(const struct pl_python *python, uint64_t code, struct pl_code *ret);
void pl_code_free(struct pl_code *code);

/* The line of a byte offset into the bytecode; first_line for -1; 0 if the table has none. Pure. */
int pl_line_lookup(int minor, const uint8_t *table, size_t size, int first_line, int32_t offset);
/* The three formats (exposed for the unit tests). */
int pl_line_lnotab(const uint8_t *table, size_t size, int first_line, int32_t offset);      /* <= 3.9 */
int pl_line_linetable(const uint8_t *table, size_t size, int first_line, int32_t offset);   /* 3.10 */
int pl_line_locations(const uint8_t *table, size_t size, int first_line, int32_t offset);   /* 3.11+ */

/* A str object as UTF-8 (lone surrogates as U+FFFD); at most max_bytes, then cut at a character.
 * *ret is the caller's. -EFAULT, -EINVAL (not a str that we can read). */
int pl_python_string(const struct pl_python *python, uint64_t object, size_t max_bytes, char **ret);
/* The str that a small dict (of a class, a module) has under a key in ASCII: the same. -ENOENT: none, or no dict that we
 * can read. */
int pl_python_dict_text(const struct pl_python *python, uint64_t dict, const char *key, size_t max_bytes, char **ret);
/* `length` characters as CPython stores them, `kind` (1, 2 or 4) bytes each, by the same rules; a NUL,
 * which would end the text, becomes U+FFFD too. */
int pl_python_text(const uint8_t *data, unsigned int kind, size_t length, size_t max_bytes, char **ret);

#endif
