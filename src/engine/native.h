/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_NATIVE_H
#define PYLEAK_ENGINE_NATIVE_H

#include "pyleak/engine.h"
#include "pyleak/got.h"
#include "pyleak/hook.h"
#include "pyleak/inline_abi.h"
#include "pyleak/landing.h"
#include "pyleak/python.h"

/*
 * The tracer's part of native allocators (see enum pl_inline_native): which words of which objects are
 * hooked, which entry serves each, and what comes as libraries are loaded.
 *
 * An object is looked at once, without a stop. A word that is only jumped through leads to the recorder. One that is
 * loaded as a value, or is a pointer in data, leads to the landing page (landing.h), all of one function to one stub:
 * they may be compared with each other.
 *
 * What must not be hooked:
 *  - the mappings of the interpreter and of an allocator: their arenas;
 *  - operator new and delete, unless they belong to an allocator: those of the C++ library call malloc
 *    through a word of its own. Nor an operator new that throws where the allocator has none that does not;
 *  - pointers in the data of an allocator other than glibc, and in those of the dynamic linker;
 *  - words that hold the entry in the PLT of a program which is not position-independent: it ends in a word that is
 *    hooked.
 */
/* What was found of each object, see pl_engine_libraries(). */
struct native_libraries {
	struct pl_engine_library *items;
	size_t count;
};

struct native {
	const struct pl_python *python;
	uint64_t original[PL_INLINE_ENTRIES_MAX]; /* by entry; 0: free */
	uint8_t flags[PL_INLINE_ENTRIES_MAX];
	uint64_t quiet[PL_INLINE_ENTRIES_MAX]; /* see struct pl_inline_config; 0: none */
	uint64_t real[PL_GOT_NAMES_MAX]; /* by name: the function that the program's objects call by it */
	uint64_t quiet_of[PL_GOT_NAMES_MAX]; /* by name: the form that does not throw; 0: not looked for, 1: there is none */
	uint64_t stub[PL_GOT_NAMES_MAX]; /* by name: see struct pl_got_word */
	struct pl_got_value *values;     /* the functions that words lead to */
	size_t value_count;
	struct pl_landing landing;
	bool landed[PL_LANDING_CAPACITY]; /* by row: the recorder was given its word */
	uint64_t allocator, allocator_end; /* the object that defines malloc() */
	uint64_t loaded;                 /* a number for the set of loaded objects, as it was looked at last */
	struct native_object *objects;   /* that were looked at */
	size_t object_count;
	struct native_libraries left; /* those with words that are left alone */
	int looks_left;    /* how often objects with words that cannot be hooked yet are looked at again */
	bool full;         /* no free entry or row was left: said once */
	uint64_t code, code_end; /* of the probe, once it stands: words that lead there are hooked */
};

void native_init(struct native *native, const struct pl_python *python);
void native_free(struct native *native);

/* Takes over which entries are given out, and where the probe is. */
void native_adopt(struct native *native, const struct pl_probe *probe, const struct pl_inline_config *config);

/*
 * Looks at what was loaded since the last time: the words to be hooked, frees first. *ret is the caller's to free.
 * `libraries`: what is found is added there; NULL: it is said, if there is anything to hook. No stop. 0 or -errno.
 */
int native_look(struct native *native, const struct pl_inline_image *image, struct native_libraries *libraries,
		struct pl_probe_word **ret, uint32_t *ret_count);

/* Whether an allocator is linked into the i-th of the objects that were looked at last; *ret is its start. NULL: none. */
const char *native_allocator(const struct native *native, size_t i, uint64_t *ret);

/* Of these words, which were to be redirected, some may have been bound since they were looked at: their objects are looked at
 * again. */
void native_look_at_missed(struct native *native, const struct pl_probe_word *words, uint32_t count);
/* A word could not be redirected: all objects are looked at again. */
void native_look_again(struct native *native);

#endif
