/* SPDX-License-Identifier: MIT */
#include "pyleak/got.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "elf_private.h"
#include "pyleak/arch.h"
#include "pyleak/cleanup.h"
#include "pyleak/space.h"

/* All of it is the process's to overwrite. The largest object met has 30 MB of relocations, most of them
 * relative ones, which are not read. */
enum {
	MAX_RELOCATIONS = 1 << 21,
	MAX_SYMBOLS = 1 << 22,
	MAX_STRINGS = 1 << 26,
	MAX_TEXT = 1 << 30,
	CHUNK = 1 << 18,
};

struct reading {
	struct pl_space *space;
	const struct pl_maps *maps;
	struct pl_got *got;
	struct pl_elf_header header;
	uint64_t bias;
	struct pl_elf_dynamic dynamic;
	const char *const *names;
	size_t name_count;
	char *strings;
	Elf64_Sym *symbols;
	uint32_t symbol_count;
};

uint64_t pl_got_object_start(const struct pl_map *map)
{
	return map->inode && map->offset == 0 && map->flags & PL_MAP_READ && !(map->flags & PL_MAP_SHARED) ? map->start : 0;
}

int pl_got_add_word(struct pl_got *got, const struct pl_got_word *word)
{
	if (got->word_count == got->word_capacity) {
		size_t capacity = got->word_capacity ? 2 * got->word_capacity : 256;
		struct pl_got_word *words = reallocarray(got->words, capacity, sizeof(*words));

		if (!words)
			return -ENOMEM;
		got->words = words;
		got->word_capacity = capacity;
	}
	got->words[got->word_count++] = *word;
	return 0;
}

static struct pl_got_object *add_object(struct pl_got *got)
{
	if (got->object_count == got->object_capacity) {
		size_t capacity = got->object_capacity ? 2 * got->object_capacity : 64;
		struct pl_got_object *objects = reallocarray(got->objects, capacity, sizeof(*objects));

		if (!objects)
			return NULL;
		got->objects = objects;
		got->object_capacity = capacity;
	}
	got->objects[got->object_count] = (struct pl_got_object){0};
	return &got->objects[got->object_count++];
}

/* Symbols are looked at as far as the relocations refer to them: nothing says how many there are. */
static int read_symbols(struct reading *reading, const Elf64_Rela *relocations, size_t count)
{
	uint32_t last = 0;

	for (size_t i = 0; i < count; i++)
		if (ELF64_R_SYM(relocations[i].r_info) > last)
			last = (uint32_t)ELF64_R_SYM(relocations[i].r_info);
	if (last >= MAX_SYMBOLS)
		return -ENOEXEC;
	if (last < reading->symbol_count)
		return 0;
	free(reading->symbols);
	reading->symbol_count = last + 1;
	reading->symbols = calloc(reading->symbol_count, sizeof(*reading->symbols));
	return reading->symbols ? pl_space_read(reading->space, reading->dynamic.symbols, reading->symbols,
					  reading->symbol_count * sizeof(*reading->symbols)) :
				  -ENOMEM;
}

/* The index of the name that the symbol has, or name_count. */
static size_t name_of(const struct reading *reading, const Elf64_Sym *symbol)
{
	size_t i = 0;

	if (symbol->st_name >= reading->dynamic.strings_size)
		return reading->name_count;
	while (i < reading->name_count && strcmp(reading->strings + symbol->st_name, reading->names[i]) != 0)
		i++;
	return i;
}

static bool is_code(const struct reading *reading, uint64_t address)
{
	const struct pl_map *map = pl_maps_find(reading->maps, address);

	return map && map->flags & PL_MAP_EXEC;
}

static int read_table(struct reading *reading, uint64_t table, uint64_t size)
{
	size_t count = size / sizeof(Elf64_Rela);
	pl_autofree Elf64_Rela *relocations = NULL;
	struct pl_got_object *object = &reading->got->objects[reading->got->object_count - 1];
	int code;

	if (!table || !count)
		return 0;
	if (count > MAX_RELOCATIONS)
		return -ENOEXEC;
	relocations = calloc(count, sizeof(*relocations));
	if (!relocations)
		return -ENOMEM;
	code = pl_space_read(reading->space, table, relocations, count * sizeof(*relocations));
	if (code == 0)
		code = read_symbols(reading, relocations, count);
	for (size_t i = 0; code == 0 && i < count; i++) {
		enum pl_relocation type = pl_arch_relocation((uint32_t)ELF64_R_TYPE(relocations[i].r_info));
		const Elf64_Sym *symbol = &reading->symbols[ELF64_R_SYM(relocations[i].r_info)];
		size_t name = type == PL_RELOCATION_JUMP || type == PL_RELOCATION_GLOBAL ? name_of(reading, symbol) :
											   reading->name_count;
		struct pl_got_word word = {
			.address = reading->bias + relocations[i].r_offset,
			.object = (uint32_t)reading->got->object_count - 1,
			.name = (uint32_t)name,
			/* Of the words that no PLT jumps through only the text says how they are used. */
			.kind = type == PL_RELOCATION_JUMP ? PL_GOT_JUMPED : PL_GOT_UNSURE,
		};

		if (name == reading->name_count)
			continue;
		if (type == PL_RELOCATION_JUMP && symbol->st_shndx == SHN_UNDEF && symbol->st_value)
			word.stub = reading->bias + symbol->st_value;
		if (word.address & 7 || word.address < object->start || word.address >= object->end ||
			pl_space_read_u64(reading->space, word.address, &word.value) < 0 || !is_code(reading, word.value)) {
			object->unready++;
			continue;
		}
		/* Within the object it is the function, or the PLT that leads to the dynamic linker: libc itself, whose own
		 * calls can be taken over by another's malloc, defines what it calls so. */
		word.bound = word.value < object->start || word.value >= object->end ||
			     (symbol->st_shndx != SHN_UNDEF && word.value == reading->bias + symbol->st_value);
		code = pl_got_add_word(reading->got, &word);
	}
	return code;
}

struct references {
	struct pl_got_word *words;
	size_t count;
};

static void note_reference(void *context, uint64_t target, bool jump)
{
	const struct references *references = context;

	for (size_t i = 0; !jump && i < references->count; i++)
		if (references->words[i].kind == PL_GOT_UNSURE && references->words[i].address == target)
			references->words[i].kind = PL_GOT_LOADED; /* it may have been copied */
}

static void look_for_loads(const uint8_t *text, size_t size, uint64_t address, struct pl_got_word *words, size_t count)
{
	struct references references = {words, count};
	uint64_t low = UINT64_MAX, high = 0;

	for (size_t i = 0; i < count; i++) {
		if (words[i].kind != PL_GOT_UNSURE)
			continue;
		low = words[i].address < low ? words[i].address : low;
		high = words[i].address > high ? words[i].address : high;
	}
	pl_arch_find_references(text, size, address, low, high, note_reference, &references);
}

/* From the file, if that is at hand: what is read from the process is in its memory from then on. */
static int read_text(
	const struct reading *reading, int fd, const GElf_Phdr *segment, uint64_t at, uint8_t *text, size_t size)
{
	if (fd >= 0 && at + size <= segment->p_filesz &&
		pread(fd, text, size, (off_t)(segment->p_offset + at)) == (ssize_t)size)
		return 0;
	return pl_space_read(reading->space, reading->bias + segment->p_vaddr + at, text, size);
}

/* How the last `count` words are referred to. */
static int look_at_text(struct reading *reading, size_t count)
{
	struct pl_got *got = reading->got;
	struct pl_got_word *words = got->words + got->word_count - count;
	pl_autofree uint8_t *text = malloc(CHUNK);
	pl_autoclose int fd = -1;
	bool unsure = false;

	for (size_t i = 0; i < count; i++)
		unsure |= words[i].kind == PL_GOT_UNSURE;
	if (!unsure)
		return 0;
	if (!text)
		return -ENOMEM;
	fd = pl_space_open_mapped(reading->space, reading->maps, got->objects[got->object_count - 1].map);
	for (size_t i = 0; i < reading->header.count; i++) {
		const GElf_Phdr *segment = &reading->header.segments[i];

		if (segment->p_type != PT_LOAD || !(segment->p_flags & PF_X))
			continue;
		if (segment->p_memsz > MAX_TEXT)
			return -ENOEXEC;
		/* Chunks overlap by what a reference needs before and in it. */
		for (uint64_t at = 0; at < segment->p_memsz; at += CHUNK - PL_ARCH_REFERENCE_BYTES) {
			uint64_t address = reading->bias + segment->p_vaddr + at, left = segment->p_memsz - at;
			int code = read_text(reading, fd, segment, at, text, left < CHUNK ? left : CHUNK);

			if (code < 0)
				return code;
			look_for_loads(text, left < CHUNK ? left : CHUNK, address, words, count);
		}
	}
	for (size_t i = 0; i < count; i++)
		if (words[i].kind == PL_GOT_UNSURE)
			words[i].kind = PL_GOT_JUMPED;
	return 0;
}

static int read_words(struct reading *reading)
{
	const struct pl_elf_dynamic *dynamic = &reading->dynamic;
	/* Relative relocations come first, are the most, and have no symbol. */
	uint64_t relative = dynamic->relative_count * sizeof(Elf64_Rela), start, end;
	struct pl_got_object *object = &reading->got->objects[reading->got->object_count - 1];
	size_t before = reading->got->word_count;
	int code;

	if (relative > dynamic->relocations_size || dynamic->relative_count > UINT32_MAX)
		relative = 0;
	if (!pl_elf_extent(&reading->header, &start, &end))
		return -ENOEXEC;
	object->start = reading->bias + start;
	object->end = reading->bias + end;
	if (dynamic->strings_size > MAX_STRINGS)
		return -ENOEXEC;
	reading->strings = malloc(dynamic->strings_size);
	if (!reading->strings)
		return -ENOMEM;
	code = pl_space_read(reading->space, dynamic->strings, reading->strings, dynamic->strings_size);
	if (code < 0)
		return code;
	reading->strings[dynamic->strings_size - 1] = '\0';
	code = read_table(reading, dynamic->jumps, dynamic->jumps_size);
	if (code == 0)
		code = read_table(reading, dynamic->relocations + relative, dynamic->relocations_size - relative);
	return code == 0 ? look_at_text(reading, reading->got->word_count - before) : code;
}

int pl_got_add(struct pl_space *space, const struct pl_maps *maps, const struct pl_map *map, const char *const *names,
	size_t name_count, struct pl_got *got)
{
	struct reading reading = {.space = space, .maps = maps, .got = got, .names = names, .name_count = name_count};
	size_t words = got->word_count, objects = got->object_count;
	int code = name_count > PL_GOT_NAMES_MAX ? -EINVAL :
		   pl_got_object_start(map)      ? pl_elf_header_from_memory(space, map->start, &reading.header) : -ENOEXEC;

	if (code == 0 && pl_elf_place(&reading.header, maps, map, &reading.bias) < 0)
		code = -EAGAIN;
	if (code == 0)
		code = pl_elf_dynamic_read(space, &reading.header, reading.bias, &reading.dynamic);
	if (code == 0 && !add_object(got))
		code = -ENOMEM;
	if (code == 0) {
		got->objects[objects].map = map;
		got->objects[objects].identity = pl_map_identity(map);
		code = read_words(&reading);
	}
	if (code < 0) {
		got->word_count = words;
		got->object_count = objects;
	}
	free(reading.header.segments);
	free(reading.strings);
	free(reading.symbols);
	return code == -ENOENT ? -ENOEXEC : code == -EFAULT ? -EAGAIN : code;
}

void pl_got_free(struct pl_got *got)
{
	free(got->objects);
	free(got->words);
	*got = (struct pl_got){0};
}
