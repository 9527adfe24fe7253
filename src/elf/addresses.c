/* SPDX-License-Identifier: MIT */
#include "elf_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pyleak/cleanup.h"

/*
 * From an address to the function, by what is in the file's .symtab, which for a large object is of 700,000 symbols with
 * names of 75 MB: read once, in pieces, and only where each function begins is kept, and its number. Names are read as
 * they are asked for.
 */

enum { SYMBOLS_AT_ONCE = 4096, SYMBOLS_MAX = 1 << 23, NAME_MAX_BYTES = 4096, SAME_START_MAX = 64, ENCLOSING_MAX = 16 };

/* Where it begins, from the first address on, and which symbol; packed, so that it is sorted as a number. */
#define START(item) ((uint32_t)((item) >> 32))
#define SYMBOL(item) ((uint32_t)(item))

struct pl_elf_addresses {
	uint64_t *items; /* ascending */
	uint32_t count;
	uint64_t base; /* that starts count from */
	uint64_t symbols, strings, strings_size; /* where they are in the file */
	char name[NAME_MAX_BYTES];
};

static int compare(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return (left > right) - (left < right);
}

static bool read_all(int fd, void *buffer, size_t size, uint64_t offset)
{
	return offset <= INT64_MAX && pread(fd, buffer, size, (off_t)offset) == (ssize_t)size;
}

/* Of an IFUNC it is the resolver, which has the name of what it resolves. */
static bool is_function(const Elf64_Sym *symbol)
{
	unsigned char type = ELF64_ST_TYPE(symbol->st_info);

	return (type == STT_FUNC || type == STT_GNU_IFUNC) && symbol->st_shndx != SHN_UNDEF && symbol->st_shndx < SHN_LORESERVE &&
	       symbol->st_name;
}

static bool take(struct pl_elf_addresses *addresses, const Elf64_Sym *symbol, uint32_t number, uint32_t *capacity)
{
	uint64_t start = symbol->st_value - addresses->base;

	if (!is_function(symbol) || symbol->st_value < addresses->base || start > UINT32_MAX)
		return true;
	if (addresses->count == *capacity) {
		uint32_t wanted = *capacity ? *capacity + *capacity / 2 : 1024;
		uint64_t *items = reallocarray(addresses->items, wanted, sizeof(*items));

		if (!items)
			return false;
		addresses->items = items;
		*capacity = wanted;
	}
	addresses->items[addresses->count++] = start << 32 | number;
	return true;
}

static bool find_tables(const struct pl_elf *elf, struct pl_elf_addresses *addresses, uint64_t *ret_count)
{
	Elf_Scn *section = NULL;
	GElf_Shdr header, strings;

	while ((section = elf_nextscn(elf->file, section))) {
		if (!gelf_getshdr(section, &header) || header.sh_type != SHT_SYMTAB)
			continue;
		if (header.sh_entsize != sizeof(Elf64_Sym) || !gelf_getshdr(elf_getscn(elf->file, header.sh_link), &strings) ||
			strings.sh_type != SHT_STRTAB)
			return false;
		addresses->symbols = header.sh_offset;
		addresses->strings = strings.sh_offset;
		addresses->strings_size = strings.sh_size;
		*ret_count = header.sh_size / sizeof(Elf64_Sym);
		return true;
	}
	return false;
}

static void read_addresses(const struct pl_elf *elf, struct pl_elf_addresses *addresses)
{
	pl_autofree Elf64_Sym *symbols = calloc(SYMBOLS_AT_ONCE, sizeof(*symbols));
	uint64_t count, end;
	uint32_t capacity = 0;

	if (!symbols || elf->header.class != ELFCLASS64 || !find_tables(elf, addresses, &count) ||
		!pl_elf_extent(&elf->header, &addresses->base, &end))
		return;
	if (count > SYMBOLS_MAX)
		count = SYMBOLS_MAX;
	for (uint64_t at = 0; at < count; at += SYMBOLS_AT_ONCE) {
		uint64_t piece = count - at < SYMBOLS_AT_ONCE ? count - at : SYMBOLS_AT_ONCE;

		/* A table that is cut off has what is there. */
		if (!read_all(elf->fd, symbols, piece * sizeof(*symbols), addresses->symbols + at * sizeof(*symbols)))
			break;
		for (uint64_t i = 0; i < piece; i++)
			if (!take(addresses, &symbols[i], (uint32_t)(at + i), &capacity)) {
				/* With a hole, functions of no size would reach beyond it. */
				addresses->count = 0;
				return;
			}
	}
	if (addresses->count)
		qsort(addresses->items, addresses->count, sizeof(*addresses->items), compare);
}

void pl_elf_addresses_free(struct pl_elf_addresses *addresses)
{
	if (!addresses)
		return;
	free(addresses->items);
	free(addresses);
}

bool pl_elf_has_addresses(struct pl_elf *elf)
{
	if (!elf->file)
		return false;
	if (!elf->addresses) {
		elf->addresses = calloc(1, sizeof(*elf->addresses));
		if (elf->addresses)
			read_addresses(elf, elf->addresses);
	}
	return elf->addresses && elf->addresses->count;
}

/* The number of items that begin at `start` or below. */
static uint32_t count_up_to(const struct pl_elf_addresses *addresses, uint32_t start)
{
	uint32_t low = 0, high = addresses->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (START(addresses->items[middle]) <= start)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Of those that begin where the item before `end` does, the one that is meant: see symbols.c. A function without a size
 * (in assembler) ends where the next one begins. False: none covers the address. */
static bool choose(const struct pl_elf *elf, uint32_t end, uint32_t *ret_first, uint64_t value, Elf64_Sym *ret)
{
	const struct pl_elf_addresses *addresses = elf->addresses;
	uint32_t start = START(addresses->items[end - 1]), at = end;
	bool found = false;

	while (at && START(addresses->items[at - 1]) == start) {
		Elf64_Sym symbol;

		at--;
		if (end - at > SAME_START_MAX ||
			!read_all(elf->fd, &symbol, sizeof(symbol),
				addresses->symbols + (uint64_t)SYMBOL(addresses->items[at]) * sizeof(symbol)) ||
			(symbol.st_size && value - symbol.st_value >= symbol.st_size))
			continue;
		if (!found || ELF64_ST_BIND(symbol.st_info) != STB_LOCAL)
			*ret = symbol;
		found = true;
	}
	*ret_first = at;
	return found;
}

static bool is_code(const struct pl_elf_header *header, uint64_t value)
{
	for (size_t i = 0; i < header->count; i++)
		if (header->segments[i].p_type == PT_LOAD && header->segments[i].p_flags & PF_X &&
			value >= header->segments[i].p_vaddr && value - header->segments[i].p_vaddr < header->segments[i].p_memsz)
			return true;
	return false;
}

int pl_elf_address_name(struct pl_elf *elf, uint64_t value, const char **ret_name, uint64_t *ret_offset)
{
	struct pl_elf_addresses *addresses = elf->addresses;
	uint32_t at;
	Elf64_Sym symbol;
	size_t length;

	if (value < addresses->base || value - addresses->base > UINT32_MAX || !is_code(&elf->header, value))
		return -ENOENT;
	at = count_up_to(addresses, (uint32_t)(value - addresses->base));
	/* A small function may lie within a large one. */
	for (int i = 0; at && i < ENCLOSING_MAX; i++) {
		if (!choose(elf, at, &at, value, &symbol))
			continue;
		/* One without a size does not go on behind another. */
		if (!symbol.st_size && i)
			continue;
		if (symbol.st_name >= addresses->strings_size)
			return -ENOENT;
		length = sizeof(addresses->name) - 1;
		if (addresses->strings_size - symbol.st_name < length)
			length = addresses->strings_size - symbol.st_name;
		if (!read_all(elf->fd, addresses->name, length, addresses->strings + symbol.st_name))
			return -ENOENT;
		addresses->name[length] = '\0';
		*ret_name = addresses->name;
		*ret_offset = value - symbol.st_value;
		return 0;
	}
	return -ENOENT;
}
