/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_UNWIND_H
#define PYLEAK_UNWIND_H

#include <stddef.h>
#include <stdint.h>

#include "pyleak/space.h"

/*
 * Native code of another process: what an address is, and who called whom on a copied piece of a stack.
 * By the objects' own unwind tables and DWARF (libdwfl), so that no frame pointers are needed; names of functions without
 * DWARF from the symbol table, of which only what is asked for is kept (pl_elf_symbol_at()). Separate debug files are
 * found in the usual places, by build ID or checksum, in the process's file system, then in ours (/usr/lib/debug only):
 * regular files that the process may read, and never over the network, whatever DEBUGINFOD_URLS says. Reads files and
 * copied memory only: no ptrace.
 */
struct pl_unwinder;

/* One frame. A function that was inlined has frames of its own, in front of the one that it was inlined in.
 * The strings last until the next call with the same unwinder. */
struct pl_native_frame {
	const char *module;   /* path of the object; NULL: the address is in none */
	const char *function; /* as pl_readable_symbol() has it; NULL: not known */
	const char *filename; /* of the source; NULL: no DWARF */
	int line;             /* 0: not known */
};

/* What a thread was about when it called: registers as the caller has them after the return. */
struct pl_stack_copy {
	uint64_t pc, sp, bp;
	uint64_t start; /* where the copied bytes lay in the process, at or below sp */
	const unsigned char *bytes;
	size_t size;
};

/* What a person would call a function of C++, Rust or Cython, from the name of its symbol; the caller frees it. NULL: as
 * the symbol is called, or out of memory. */
char *pl_readable_symbol(const char *name);

/* Innermost first; other than 0 ends the walk, and is returned. */
typedef int (*pl_unwind_visit)(void *context, const struct pl_native_frame *frame);

/* Of a live process; the space outlives it. Opens nothing yet. NULL: out of memory. */
struct pl_unwinder *pl_unwinder_new(struct pl_space *space);
void pl_unwinder_free(struct pl_unwinder *unwinder); /* NULL is allowed */

struct pl_elf;
/* The object that a mapping belongs to, opened once; lives as long as the unwinder. NULL: it cannot be. */
struct pl_elf *pl_unwind_object(struct pl_unwinder *unwinder, const struct pl_maps *maps, const struct pl_map *map);

/* The frames at a call that returns to `address`: functions inlined there, and the one that they are in.
 * 0 or what visit said; -ENOENT: the address is in no object. */
int pl_unwind_address(struct pl_unwinder *unwinder, uint64_t address, pl_unwind_visit visit, void *context);

/* The frames of a stack, as far as the copy and the unwind tables go; at most `limit` physical ones. 0 or what visit
 * said; -ENOENT: the innermost address is in no object. */
int pl_unwind_stack(struct pl_unwinder *unwinder, const struct pl_stack_copy *copy, int limit, pl_unwind_visit visit,
		    void *context);

#endif
