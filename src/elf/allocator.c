/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "elf_private.h"
#include "pyleak/cleanup.h"

enum { PIECE = 1 << 20, OVERLAP = 32, RODATA_MAX = 256 << 20 };

/* What they write before their own messages, and so what stands among an object's constants. All of them have `common`, so
 * many bytes behind their beginning. */
static const char common[] = "malloc";
static const struct {
	const char *text, *name;
	size_t before;
} allocators[] = {
	{"<jemalloc>", "jemalloc", 3},
	{"mimalloc: ", "mimalloc", 2},
	{"tcmalloc: ", "tcmalloc", 2},
	{"snmalloc", "snmalloc", 2},
};

enum { ALLOCATORS = sizeof(allocators) / sizeof(allocators[0]), TEXT_MAX = 64 };

static unsigned int look_at_piece(const char *piece, size_t size)
{
	const char *end = piece + size, *at = piece;
	unsigned int found = 0;

	for (; (at = memmem(at, (size_t)(end - at), common, strlen(common))); at++)
		for (unsigned int i = 0; i < ALLOCATORS; i++) {
			const char *start = at - allocators[i].before;
			size_t length = strlen(allocators[i].text);

			if (at - piece >= (ptrdiff_t)allocators[i].before && (size_t)(end - start) >= length &&
				memcmp(start, allocators[i].text, length) == 0)
				found |= 1U << i;
		}
	return found;
}

/* A bit for each that is there. */
static unsigned int look_through(int fd, uint64_t offset, uint64_t size)
{
	pl_autofree char *piece = malloc(PIECE);
	unsigned int found = 0;

	for (uint64_t at = 0; piece && at < size; at += PIECE - OVERLAP) {
		uint64_t length = size - at < PIECE ? size - at : PIECE;
		ssize_t got = pread(fd, piece, length, (off_t)(offset + at));

		if (got <= 0)
			break;
		found |= look_at_piece(piece, (size_t)got);
	}
	return found;
}

/* The same, and remembered for the next time. */
static unsigned int look_or_recall(int fd, uint64_t offset, uint64_t size)
{
	pl_autofree uint64_t *facts = NULL;
	unsigned int found;
	uint64_t fact;
	size_t count;

	if (size < REMEMBERED_BYTES)
		return look_through(fd, offset, size);
	if (remembered_load(fd, REMEMBERED_ALLOCATOR, &facts, &count) == 0 && count == 1 && facts[0] < 1 << ALLOCATORS)
		return (unsigned int)facts[0];
	fact = found = look_through(fd, offset, size);
	remembered_store(fd, REMEMBERED_ALLOCATOR, &fact, 1);
	return found;
}

/* libarrow has two, and which of them is used is for the program to choose. */
static const char *name_of(unsigned int found)
{
	static char texts[1 << ALLOCATORS][TEXT_MAX];
	char *text = texts[found];
	size_t length = 0;

	for (unsigned int i = 0; i < ALLOCATORS; i++)
		if (found >> i & 1)
			length += (size_t)snprintf(
				text + length, TEXT_MAX - length, "%s%s", length ? " or " : "", allocators[i].name);
	return found ? text : NULL;
}

const char *pl_elf_linked_allocator(struct pl_space *space, const struct pl_maps *maps, const struct pl_map *map)
{
	unsigned int found = 0;
	uint64_t address, size;
	struct pl_elf *elf;
	size_t strings;
	Elf_Scn *section = NULL;

	if (pl_elf_open(space, maps, map, &elf, NULL) < 0)
		return NULL;
	if (elf->file && pl_elf_section(elf, ".rodata", &address, &size) == 0 && size <= RODATA_MAX &&
		elf_getshdrstrndx(elf->file, &strings) == 0)
		while ((section = elf_nextscn(elf->file, section))) {
			GElf_Shdr header;
			const char *name = gelf_getshdr(section, &header) ? elf_strptr(elf->file, strings, header.sh_name) : NULL;

			if (name && strcmp(name, ".rodata") == 0)
				found |= look_or_recall(elf->fd, header.sh_offset, header.sh_size <= RODATA_MAX ? header.sh_size : 0);
		}
	pl_elf_close(elf);
	return name_of(found);
}
