/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_GOT_H
#define PYLEAK_GOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pyleak/space.h"

/*
 * The words of loaded objects' global offset tables through which they call functions of given names.
 * Read from memory, as ld.so left it, without a stop: the relocations of each object that
 * is mapped as a program or library say which word belongs to which symbol.
 *
 * Words that code jumps through and nothing else are those of the PLT (PL_RELOCATION_JUMP), and others
 * (PL_RELOCATION_GLOBAL) if each instruction in the object's text that refers to them is a jump or a call. What a
 * word that is loaded as a value (`callback = free`) holds, or one that is a pointer in the object's data (found by
 * what it holds: from a relocation, or stored by the program), may have been copied to anywhere, and be compared with
 * any such copy.
 */

enum pl_got_kind {
	PL_GOT_JUMPED, /* jumped through only */
	PL_GOT_LOADED, /* loaded as a value */
	PL_GOT_DATA,   /* a pointer in data */
};

struct pl_got_word {
	uint64_t address, value; /* the word, and what it holds */
	uint32_t object;         /* index in objects */
	uint32_t name;           /* index in the names asked for */
	enum pl_got_kind kind;
	bool bound;  /* false: it leads to the object's own PLT: nobody has called it yet */
	/* The entry in the object's own PLT which stands for the function in all other objects, whose loaded words
	 * and pointers hold it: those of a program that is not position-independent. 0: none. */
	uint64_t stub;
};

struct pl_got_object {
	uint64_t start, end; /* the extent of its segments */
	uint32_t identity;   /* pl_map_identity() of its mappings */
	uint32_t unready;    /* words that lead to no code: not relocated yet, or weak and undefined */
	const struct pl_map *map; /* its first mapping, in the maps that were given */
};

struct pl_got {
	struct pl_got_object *objects;
	size_t object_count, object_capacity;
	struct pl_got_word *words;
	size_t word_count, word_capacity;
};

/* The start of a mapped ELF object, if this mapping is that of its first page; else 0. Cheap: for a look
 * at what is loaded, again and again. */
uint64_t pl_got_object_start(const struct pl_map *map);

/* How many names can be asked for: a set of them is one word. */
enum { PL_GOT_NAMES_MAX = 64 };

/*
 * Adds the object whose first page `map` shows, with its words. 0; -ENOEXEC: it is no ELF object, or has no
 * dynamic section; -EAGAIN: it is not loaded as a program or library, not yet or not any more; -ESRCH,
 * -EPERM, -ENOMEM.
 */
int pl_got_add(struct pl_space *space, const struct pl_maps *maps, const struct pl_map *map, const char *const *names,
	       size_t name_count, struct pl_got *got);
/* One more word, of an object that was added. -ENOMEM. */
int pl_got_add_word(struct pl_got *got, const struct pl_got_word *word);
void pl_got_free(struct pl_got *got);

/* An address, and the name that it has among those asked for. */
struct pl_got_value {
	uint64_t address;
	uint32_t name;
};

/*
 * Adds the pointers in an object's data (.data, .bss, and what is read-only once it is relocated) that hold one of
 * these addresses, but words that are there already. Only pages that the process has written are read, 64 MiB at most.
 * 0; -ESRCH, -EPERM, -ENOMEM.
 */
int pl_got_add_pointers(pid_t pid, const struct pl_maps *maps, uint32_t object, const struct pl_got_value *values,
			size_t count, struct pl_got *got);

#endif
