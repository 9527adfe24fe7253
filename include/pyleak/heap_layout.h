/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HEAP_LAYOUT_H
#define PYLEAK_HEAP_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

#include "pyleak/python.h"

/*
 * How CPython lays out objects and what they refer to, by version: what a walk over the heap needs beside struct
 * pl_python_layout. Offsets in bytes from the object's address if nothing else is said; 0: there is no such thing.
 *
 * From the headers of 3.6.15, 3.7.16, 3.8.18, 3.9.18, 3.10.13, 3.11.7, 3.12.1, 3.13.0, 3.13.5t, 3.14.10 and 3.15.2, the
 * last two with and without a GIL, by offsetof().
 */
struct pl_heap_layout {
	int32_t head;            /* sizeof(PyObject): 16, 32 without a GIL; ob_size follows */
	int32_t collector;       /* bytes of the collector's header before the object: 16, up to 3.7 32 (24 in some builds) */
	int32_t managed_dict;    /* below zero; 3.11+ */
	int32_t managed_values;  /* 3.11 only: where its attributes' values are */
	bool inline_values;      /* 3.13+: behind the object itself */
	int32_t values_head;     /* bytes before the first of a table of attributes' values */

	int32_t type_size, heap_type_size, type_cached_keys, type_module, type_spec_cache;
	int32_t tuple_items;
	bool old_keys;           /* up to 3.10: tables of keys have another head */
	int32_t weak_size;       /* sizeof(PyWeakReference) */

	/* Up to 3.10: frames are objects. */
	int32_t frame_locals, frame_stack, frame_stack_top, frame_stack_depth, frame_generator;
	int32_t code_locals_count, code_names, code_free_names, code_cell_names; /* … and code has three tuples of names */
	/* From 3.11 on: frames lie elsewhere. Offsets in the frame: */
	int32_t frame_function, frame_mapping /* f_locals */, frame_object, frame_slots, frame_top;
	bool frame_top_is_pointer, frame_tagged;
	int32_t frame_inner, frame_data;     /* PyFrameObject: f_frame, _f_frame_data */
	int32_t generator_frame, generator_state;
	int8_t generator_done;               /* a state from which on there is no frame */
	int32_t code_slots_count, code_slots_names; /* co_nlocalsplus, co_localsplusnames */

	int32_t interpreter_size, thread_size, thread_dict; /* in PyInterpreterState and PyThreadState */
	int32_t collector_enabled;           /* gc.enabled in PyInterpreterState; … */
	bool collector_in_runtime;           /* … up to 3.8 in _PyRuntime */
};

/* -ENOTSUP: there is no table for this version. */
int pl_heap_layout(const struct pl_python *python, struct pl_heap_layout *ret);

#endif
