/* SPDX-License-Identifier: MIT */
#include "elf_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pyleak/cleanup.h"
#include "pyleak/space.h"

enum { MAX_SEGMENTS = 1024 };

static int header_from_file(Elf *file, struct pl_elf_header *header)
{
	GElf_Ehdr ehdr;
	size_t count;

	if (elf_kind(file) != ELF_K_ELF || !gelf_getehdr(file, &ehdr) || elf_getphdrnum(file, &count) != 0 ||
		count == 0 || count > MAX_SEGMENTS)
		return -ENOEXEC;
	header->segments = calloc(count, sizeof(*header->segments));
	if (!header->segments)
		return -ENOMEM;
	header->type = ehdr.e_type;
	header->machine = ehdr.e_machine;
	header->class = gelf_getclass(file);
	header->count = count;
	for (size_t i = 0; i < count; i++) {
		if (!gelf_getphdr(file, (int)i, &header->segments[i]))
			return -ENOEXEC;
	}
	return 0;
}

static int open_file(struct pl_elf *elf, const struct pl_maps *maps, const struct pl_map *map)
{
	elf->fd = pl_space_open_mapped(elf->space, maps, map);
	if (elf->fd < 0)
		return elf->fd;
	/* Not ELF_C_READ_MMAP: whoever owns the file could truncate it and have us die of SIGBUS. */
	elf->file = elf_begin(elf->fd, ELF_C_READ, NULL);
	if (!elf->file)
		return -ENOEXEC;
	return header_from_file(elf->file, &elf->header);
}

static int place_memory(struct pl_elf *elf, const struct pl_maps *maps, const struct pl_map *map)
{
	int r = -ENOEXEC;

	for (size_t i = 0; i < maps->count && maps->items[i].start <= map->start; i++) {
		const struct pl_map *base = &maps->items[i];

		if (base->offset != 0 || (base->start != map->start && !pl_map_same_file(base, map)))
			continue;
		free(elf->header.segments);
		elf->header = (struct pl_elf_header){0};
		r = pl_elf_header_from_memory(elf->space, base->start, &elf->header);
		if (r == 0)
			r = pl_elf_place(&elf->header, maps, map, &elf->bias);
		if (r == 0 || r == -ESRCH || r == -EPERM || r == -ENOMEM)
			break;
	}
	return r;
}

int pl_elf_open(
	struct pl_space *space, const struct pl_maps *maps, const struct pl_map *map, struct pl_elf **ret,
	struct pl_error *err)
{
	struct pl_elf *elf;
	int r;

	if (elf_version(EV_CURRENT) == EV_NONE)
		return pl_fail(err, -ENOSYS, "libelf is older than the header that it was compiled with");
	elf = calloc(1, sizeof(*elf));
	if (!elf)
		return pl_fail(err, -ENOMEM, "out of memory");
	elf->space = space;
	elf->fd = -1;
	elf->dynamic = calloc(1, sizeof(*elf->dynamic));
	elf->full = calloc(1, sizeof(*elf->full));
	if (!elf->dynamic || !elf->full) {
		r = pl_fail(err, -ENOMEM, "out of memory");
		goto fail;
	}
	r = open_file(elf, maps, map);
	if (r == 0) {
		r = pl_elf_place(&elf->header, maps, map, &elf->bias);
		if (r < 0) {
			r = pl_fail(err, -ENOEXEC, "%s is mapped in %s, but not loaded as a program or library",
				map->path, space->name);
			goto fail;
		}
	} else if (elf->fd < 0) {
		r = place_memory(elf, maps, map);
		if (r == -EPERM)
			r = pl_fail(err, r,
				"may not read the memory of %s: run pyleak as its user or with sudo", space->name);
		else if (r == -ESRCH)
			r = pl_fail(err, r, "%s has ended", space->name);
		else if (r < 0)
			r = pl_fail(err, -ENOEXEC,
				"cannot open %s of %s, and its memory shows no loaded ELF object there",
				map->path[0] ? map->path : "the mapping", space->name);
	} else {
		r = pl_fail(err, -ENOEXEC, "%s of %s is not an ELF object", map->path, space->name);
	}
	if (r < 0)
		goto fail;
	*ret = elf;
	return 0;
fail:
	pl_elf_close(elf);
	return r;
}

void pl_elf_close(struct pl_elf *elf)
{
	if (!elf)
		return;
	pl_elf_symbols_free(elf->dynamic);
	pl_elf_symbols_free(elf->full);
	pl_elf_addresses_free(elf->addresses);
	free(elf->header.segments);
	if (elf->file)
		(void)elf_end(elf->file);
	if (elf->fd >= 0)
		(void)close(elf->fd);
	free(elf);
}

uint64_t pl_elf_bias(const struct pl_elf *elf)
{
	return elf->bias;
}

int pl_elf_machine(const struct pl_elf *elf)
{
	return elf->header.machine;
}

int pl_elf_class(const struct pl_elf *elf)
{
	return elf->header.class;
}

/* A table that cannot be had, or only in part, is an empty or a shorter one: the symbol is then not found. */
static const struct pl_elf_symbols *table(const struct pl_elf *elf, bool full)
{
	struct pl_elf_symbols *symbols = full ? elf->full : elf->dynamic;
	struct stat status;
	int r = -ENOENT;

	if (symbols->loaded)
		return symbols;
	symbols->loaded = true;
	if (elf->file && fstat(elf->fd, &status) == 0)
		symbols->file_bytes = (uint64_t)status.st_blocks * 512;
	if (elf->file)
		r = pl_elf_symbols_from_file(elf->file, full ? SHT_SYMTAB : SHT_DYNSYM, symbols);
	/* Also where someone cut the section headers off. */
	if (r == -ENOENT && !full)
		(void)pl_elf_symbols_from_memory(elf->space, &elf->header, elf->bias, symbols);
	return symbols;
}

static int answer(
	const struct pl_elf *elf, const struct pl_elf_symbol_entry *entry, uint64_t *ret_address, uint64_t *ret_size)
{
	if (!entry)
		return -ENOENT;
	*ret_address = elf->bias + entry->value;
	if (ret_size)
		*ret_size = entry->size;
	return 0;
}

int pl_elf_symbol(const struct pl_elf *elf, const char *name, uint64_t *ret_address, uint64_t *ret_size)
{
	const struct pl_elf_symbol_entry *entry = pl_elf_symbols_find(table(elf, false), name);

	if (!entry)
		entry = pl_elf_symbols_find(table(elf, true), name);
	return answer(elf, entry, ret_address, ret_size);
}

int pl_elf_symbol_prefix(const struct pl_elf *elf, const char *prefix, uint64_t *ret_address, uint64_t *ret_size)
{
	if (pl_elf_symbol(elf, prefix, ret_address, ret_size) == 0)
		return 0;
	return answer(elf, pl_elf_symbols_find_prefix(table(elf, true), prefix), ret_address, ret_size);
}

bool pl_elf_is_stripped(struct pl_elf *elf)
{
	return !pl_elf_has_addresses(elf);
}

int pl_elf_symbol_at(struct pl_elf *elf, uint64_t address, const char **ret_name, uint64_t *ret_offset)
{
	const struct pl_elf_symbol_entry *entry;

	if (pl_elf_has_addresses(elf))
		return pl_elf_address_name(elf, address - elf->bias, ret_name, ret_offset);
	entry = pl_elf_symbols_at(table(elf, false), address - elf->bias);
	if (!entry)
		return -ENOENT;
	*ret_name = elf->dynamic->strings + entry->name;
	*ret_offset = address - elf->bias - entry->value;
	return 0;
}

int pl_elf_section(const struct pl_elf *elf, const char *name, uint64_t *ret_address, uint64_t *ret_size)
{
	Elf_Scn *section = NULL;
	size_t names;

	if (!elf->file || elf_getshdrstrndx(elf->file, &names) != 0)
		return -ENOENT;
	while ((section = elf_nextscn(elf->file, section))) {
		GElf_Shdr header;
		const char *section_name;

		if (!gelf_getshdr(section, &header) || !(header.sh_flags & SHF_ALLOC))
			continue;
		section_name = elf_strptr(elf->file, names, header.sh_name);
		if (!section_name || strcmp(section_name, name) != 0)
			continue;
		*ret_address = elf->bias + header.sh_addr;
		if (ret_size)
			*ret_size = header.sh_size;
		return 0;
	}
	return -ENOENT;
}
