/* SPDX-License-Identifier: MIT */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "elf_private.h"
#include "pyleak/cleanup.h"

enum { PIECE = 1 << 20, OVERLAP = 32, RODATA_MAX = 256 << 20 };

/* What they write before their own messages, and so what stands among an object's constants. */
static const struct {
	const char *text, *name;
} allocators[] = {
	{"<jemalloc>", "jemalloc"},
	{"mimalloc: ", "mimalloc"},
	{"tcmalloc: ", "tcmalloc"},
	{"snmalloc", "snmalloc"},
};

static const char *look_through(int fd, uint64_t offset, uint64_t size)
{
	pl_autofree char *piece = malloc(PIECE);
	const char *found = NULL;

	for (uint64_t at = 0; piece && !found && at < size; at += PIECE - OVERLAP) {
		uint64_t length = size - at < PIECE ? size - at : PIECE;
		ssize_t got = pread(fd, piece, length, (off_t)(offset + at));

		if (got <= 0)
			return NULL;
		for (size_t i = 0; i < sizeof(allocators) / sizeof(allocators[0]) && !found; i++)
			if (memmem(piece, (size_t)got, allocators[i].text, strlen(allocators[i].text)))
				found = allocators[i].name;
	}
	return found;
}

const char *pl_elf_linked_allocator(struct pl_space *space, const struct pl_maps *maps, const struct pl_map *map)
{
	const char *found = NULL;
	uint64_t address, size;
	struct pl_elf *elf;
	size_t strings;
	Elf_Scn *section = NULL;

	if (pl_elf_open(space, maps, map, &elf, NULL) < 0)
		return NULL;
	if (elf->file && pl_elf_section(elf, ".rodata", &address, &size) == 0 && size <= RODATA_MAX &&
		elf_getshdrstrndx(elf->file, &strings) == 0)
		while (!found && (section = elf_nextscn(elf->file, section))) {
			GElf_Shdr header;
			const char *name = gelf_getshdr(section, &header) ? elf_strptr(elf->file, strings, header.sh_name) : NULL;

			if (name && strcmp(name, ".rodata") == 0)
				found = look_through(elf->fd, header.sh_offset, header.sh_size <= RODATA_MAX ? header.sh_size : 0);
		}
	pl_elf_close(elf);
	return found;
}
