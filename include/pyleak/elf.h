/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ELF_H
#define PYLEAK_ELF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pyleak/error.h"
#include "pyleak/space.h"

/*
 * One mapped ELF object of an address space: its symbols and sections, at run-time addresses. Through
 * libelf/libdw, from the file that is mapped (see pl_space_open_mapped()); and if that cannot be had
 * (deleted and no privilege), from the image in memory by its program headers (.dynsym only then).
 */
struct pl_elf;

/* Opens the object that `map` belongs to. *ret is released with pl_elf_close(); the space outlives it. */
int pl_elf_open(struct pl_space *space, const struct pl_maps *maps, const struct pl_map *map, struct pl_elf **ret,
		struct pl_error *err);
void pl_elf_close(struct pl_elf *elf);

/* Run-time address minus address in the file: start of the mapping of the first PT_LOAD − its
 * page-aligned p_vaddr (0 for ET_EXEC). Never computed from the r-x mapping (memleax's bug). */
uint64_t pl_elf_bias(const struct pl_elf *elf);
int pl_elf_machine(const struct pl_elf *elf); /* EM_X86_64, … */
int pl_elf_class(const struct pl_elf *elf);   /* ELFCLASS64, … */

/* Run-time address of a *defined* symbol (never an undefined or PLT entry); .dynsym first, then
 * .symtab. ret_size may be NULL. -ENOENT if there is none. */
int pl_elf_symbol(const struct pl_elf *elf, const char *name, uint64_t *ret_address, uint64_t *ret_size);
/* As above, but in .symtab too for names with a compiler's suffix (`_PyObject.lto_priv.0`). */
int pl_elf_symbol_prefix(const struct pl_elf *elf, const char *prefix, uint64_t *ret_address, uint64_t *ret_size);
/* The function that a run-time address lies in: its name (until the next call) and the distance from its start. From .symtab,
 * of which no more than 8 bytes a function are kept, or where the file has none, from .dynsym. -ENOENT if no symbol covers it. */
int pl_elf_symbol_at(struct pl_elf *elf, uint64_t address, const char **ret_name, uint64_t *ret_offset);
/* Whether there is no .symtab: another file may know more. */
bool pl_elf_is_stripped(struct pl_elf *elf);
/* Run-time address and size of a section such as ".PyRuntime". */
int pl_elf_section(const struct pl_elf *elf, const char *name, uint64_t *ret_address, uint64_t *ret_size);

/* The allocator that is linked into an object, by the messages among its constants ("jemalloc", "jemalloc or mimalloc"; static text); NULL: none that
 * is known, or its file cannot be read. Takes as long as reading them: some 10 ms for 10 MB. */
const char *pl_elf_linked_allocator(struct pl_space *space, const struct pl_maps *maps, const struct pl_map *map);

#endif
