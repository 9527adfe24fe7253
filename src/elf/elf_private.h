/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ELF_PRIVATE_H
#define PYLEAK_ELF_PRIVATE_H

#include <gelf.h>
#include <stdbool.h>

#include "pyleak/elf.h"

/* What the files of this reader share. elf.c: opening; place.c: where the object lies; symbols.c:
 * the name index; addresses.c: the other way round; memory.c: an object that only the process's memory still shows;
 * remembered.c: what takes long to find. */

struct pl_elf_header {
	int type, machine, class;
	GElf_Phdr *segments; /* [count], as in the file */
	size_t count;
};

/* Defined symbols by name. Made on first use; strings is never read beyond strings_size, whose last byte is NUL. */
struct pl_elf_symbols {
	struct pl_elf_symbol_entry *items;
	uint32_t count, capacity;
	uint32_t *buckets; /* [mask + 1]: index + 1 of the first item, 0: empty */
	uint32_t mask;
	const char *strings;
	size_t strings_size;
	char *owned_strings; /* where strings is a copy of our own */
	uint64_t file_bytes; /* of the file, that its disk has; holes are none */
	bool loaded;
};

struct pl_elf_symbol_entry {
	uint64_t value, size;
	uint32_t name;
	uint32_t next; /* index + 1 */
	uint8_t rank;
	bool function;
};

struct pl_elf {
	struct pl_space *space;
	int fd;	   /* -1: read from memory */
	Elf *file; /* NULL: read from memory */
	struct pl_elf_header header;
	uint64_t bias;
	struct pl_elf_symbols *dynamic; /* .dynsym */
	struct pl_elf_symbols *full;	/* .symtab */
	struct pl_elf_addresses *addresses; /* of .symtab too; NULL: not asked for yet */
};

/* place.c */
/* The extent of the PT_LOADs, page-aligned, at file addresses. False: there are none, or they are nonsense. */
bool pl_elf_extent(const struct pl_elf_header *header, uint64_t *ret_start, uint64_t *ret_end);
/* Where the kernel or ld.so put the object with this header that `map` is a part of. -ENOENT: it is not loaded
 * (a file can be mapped as plain data too). */
int pl_elf_place(
	const struct pl_elf_header *header, const struct pl_maps *maps, const struct pl_map *map, uint64_t *ret_bias);

/* symbols.c */
/* Offers one entry of a symbol table; undefined ones and what is no address are passed over. */
int pl_elf_symbols_add(struct pl_elf_symbols *symbols, const GElf_Sym *symbol, bool hidden_version);
int pl_elf_symbols_index(struct pl_elf_symbols *symbols);
/* From the section of this type (SHT_DYNSYM, SHT_SYMTAB). -ENOENT: there is none. */
int pl_elf_symbols_from_file(Elf *file, uint32_t section_type, struct pl_elf_symbols *symbols);
const struct pl_elf_symbol_entry *pl_elf_symbols_find(const struct pl_elf_symbols *symbols, const char *name);
const struct pl_elf_symbol_entry *pl_elf_symbols_find_prefix(const struct pl_elf_symbols *symbols, const char *prefix);
/* The function that this address lies in, or NULL. */
const struct pl_elf_symbol_entry *pl_elf_symbols_at(const struct pl_elf_symbols *symbols, uint64_t value);
void pl_elf_symbols_free(struct pl_elf_symbols *symbols);

/* addresses.c */
/* Whether the file has a .symtab with functions, by which pl_elf_address_name() can say what an address is: addresses in the
 * file. The name holds until the next call. -ENOENT. */
bool pl_elf_has_addresses(struct pl_elf *elf);
int pl_elf_address_name(struct pl_elf *elf, uint64_t value, const char **ret_name, uint64_t *ret_offset);
void pl_elf_addresses_free(struct pl_elf_addresses *addresses);

/* remembered.c */
/*
 * What was found in a file by looking through all of it, in $XDG_CACHE_HOME/pyleak or ~/.cache/pyleak, for the next time.
 * `fd` is of the file. Believed only of that very file (device, inode, size, times), unchanged, from a folder that is the
 * user's own; not of another with its build ID, which anybody can write into any file. For what takes
 * longer than to look there: of REMEMBERED_BYTES and more.
 */
enum remembered_kind { REMEMBERED_REFERENCES = 1, REMEMBERED_ALLOCATOR };
enum { REMEMBERED_BYTES = 4 << 20 };
/* 0: *ret is the caller's to free; -ENOENT: nothing is known. */
int remembered_load(int fd, enum remembered_kind kind, uint64_t **ret, size_t *ret_count);
void remembered_store(int fd, enum remembered_kind kind, const uint64_t *items, size_t count);

/* memory.c */
/* Header and program headers of an image whose first byte is mapped at address. -ENOEXEC: it is no 64-bit ELF. */
int pl_elf_header_from_memory(struct pl_space *space, uint64_t address, struct pl_elf_header *header);
/* What the dynamic section of a loaded object says, at run-time addresses. 0: nothing. */
struct pl_elf_dynamic {
	uint64_t symbols, strings, strings_size, hash, gnu_hash, versions;
	uint64_t jumps, jumps_size, relocations, relocations_size, relative_count; /* DT_JMPREL, DT_RELA */
};
int pl_elf_dynamic_read(struct pl_space *space, const struct pl_elf_header *header, uint64_t bias,
	struct pl_elf_dynamic *ret);
/* The same by the object's file alone, at the addresses where it is loaded. */
int pl_elf_dynamic_from_file(int fd, const struct pl_elf_header *header, uint64_t bias, struct pl_elf_dynamic *ret);
/* Whether a file has this header, and its segments: a process can write over what it has of them. */
bool pl_elf_header_is_of(int fd, const struct pl_elf_header *header);
struct pl_got;
struct pl_got_word;
int pl_got_add_word(struct pl_got *got, const struct pl_got_word *word);
int pl_elf_symbols_from_memory(
	struct pl_space *space, const struct pl_elf_header *header, uint64_t bias, struct pl_elf_symbols *symbols);

#endif
