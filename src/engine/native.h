/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_NATIVE_H
#define PYLEAK_ENGINE_NATIVE_H

#include "pyleak/got.h"
#include "pyleak/hook.h"
#include "pyleak/inline_abi.h"
#include "pyleak/python.h"

/*
 * The tracer's part of native allocators (see enum pl_inline_native): which words of which objects are
 * hooked, which entry serves each, and what comes as libraries are loaded.
 *
 * An object is looked at once, without a stop. What must not be hooked:
 *  - the mappings of the interpreter and of an allocator: their arenas;
 *  - operator new and delete, unless they belong to an allocator: those of the C++ library call malloc
 *    through a word of its own. Nor an operator new that throws where the allocator has none that does not;
 *  - words that hand out blocks, in an object whose own frees cannot be seen (see got.h): what it allocates
 *    and frees by itself would look like a leak. Its realloc is hooked for the blocks of others that it frees.
 */
struct native {
	const struct pl_python *python;
	uint64_t original[PL_INLINE_ENTRIES_MAX]; /* by entry; 0: free */
	uint8_t flags[PL_INLINE_ENTRIES_MAX];
	uint64_t quiet[PL_INLINE_ENTRIES_MAX]; /* see struct pl_inline_config; 0: none */
	uint64_t real[PL_GOT_NAMES_MAX]; /* by name: the function that the program's objects call by it */
	uint64_t quiet_of[PL_GOT_NAMES_MAX]; /* by name: the form that does not throw; 0: not looked for, 1: there is none */
	uint64_t allocator, allocator_end; /* the object that defines malloc() */
	uint64_t loaded;                 /* a number for the set of loaded objects, as it was looked at last */
	struct native_object *objects;   /* that were looked at */
	size_t object_count;
	int looks_left;    /* how often objects with words that cannot be hooked yet are looked at again */
	bool full;         /* no free entry or row was left: said once */
	uint64_t code, code_end; /* of the probe, once it stands: words that lead there are hooked */
};

void native_init(struct native *native, const struct pl_python *python);
void native_free(struct native *native);

/* Takes over which entries are given out, and where the probe is. */
void native_adopt(struct native *native, const struct pl_probe *probe, const struct pl_inline_config *config);

/*
 * Looks at what was loaded since the last time: the words to be hooked, frees first, and a copy of the
 * mappings that they were found in. *ret is the caller's to free. No stop. 0 or -errno.
 */
int native_look(struct native *native, const struct pl_inline_image *image, struct pl_probe_word **ret, uint32_t *ret_count);

/* A word could not be redirected: its object is looked at again. */
void native_look_again(struct native *native);

#endif
