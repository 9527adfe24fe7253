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
	MAX_FACTS = 1 << 14, /* each reference of the text is compared with all of them */
	MAX_STRINGS = 1 << 26,
	MAX_TEXT = 1 << 30,
	CHUNK = 1 << 18,
	STRINGS_BEHIND = 8,
	STARTS = 1 << 10,
	REMEMBERED_STRINGS = 1 << 18, /* names that take longer to read than what is remembered */
};

struct got_fact;

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
	bool starts[STARTS]; /* by a hash of how a name begins: one that is asked for does */
	bool short_names;    /* that can't be told so */
	int fd;		     /* -1: what is not to be had from the file is read from memory */
	bool from_memory;    /* something was */
	struct got_fact *facts;
	size_t fact_count, fact_capacity;
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

/* What the object's file says of a word, wherever it is loaded. */
struct got_fact {
	uint64_t offset; /* from the bias on */
	uint64_t value;	 /* of the symbol */
	uint32_t name;
	bool jump;    /* the PLT jumps through it; of others only the text says how they are used */
	bool defined; /* the symbol, in this object */
	bool loaded;  /* as a value: it may have been copied */
};

/*
 * From the file, if that is at hand: what is read from the process is in its memory from then on, and may be anything. Symbols,
 * strings and relocations are as in the file in segments that are written to as well (patchelf puts them there).
 */
static int read_image(struct reading *reading, uint64_t address, void *ret, size_t size)
{
	const uint64_t offset = address - reading->bias;

	for (size_t i = 0; reading->fd >= 0 && i < reading->header.count; i++) {
		const GElf_Phdr *segment = &reading->header.segments[i];

		if (segment->p_type == PT_LOAD && offset >= segment->p_vaddr &&
			size <= segment->p_filesz && offset - segment->p_vaddr <= segment->p_filesz - size &&
			pread(reading->fd, ret, size, (off_t)(segment->p_offset + (offset - segment->p_vaddr))) == (ssize_t)size)
			return 0;
	}
	reading->from_memory = true;
	return pl_space_read(reading->space, address, ret, size);
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
	return reading->symbols ? read_image(reading, reading->dynamic.symbols, reading->symbols,
					  reading->symbol_count * sizeof(*reading->symbols)) :
				  -ENOMEM;
}

static uint32_t start_hash(const char *text)
{
	uint32_t start;

	memcpy(&start, text, sizeof(start));
	return start * 0x9e3779b1 >> 22;
}

/* By their first characters nearly all names can be told from those that are asked for. */
static void note_starts(struct reading *reading)
{
	for (size_t i = 0; i < reading->name_count; i++) {
		char start[STRINGS_BEHIND] = "";

		(void)strncpy(start, reading->names[i], sizeof(start) - 1);
		reading->starts[start_hash(start)] = true;
		reading->short_names |= strlen(reading->names[i]) + 1 < sizeof(uint32_t);
	}
}

/* The index of the name that the symbol has, or name_count. */
static size_t name_of(const struct reading *reading, const Elf64_Sym *symbol)
{
	size_t i = 0;

	if (symbol->st_name >= reading->dynamic.strings_size ||
		(!reading->short_names && !reading->starts[start_hash(reading->strings + symbol->st_name)]))
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

static int add_fact(struct reading *reading, const struct got_fact *fact)
{
	if (reading->fact_count == MAX_FACTS)
		return -ENOEXEC;
	if (reading->fact_count == reading->fact_capacity) {
		size_t capacity = reading->fact_capacity ? 2 * reading->fact_capacity : 64;
		struct got_fact *facts = reallocarray(reading->facts, capacity, sizeof(*facts));

		if (!facts)
			return -ENOMEM;
		reading->facts = facts;
		reading->fact_capacity = capacity;
	}
	reading->facts[reading->fact_count++] = *fact;
	return 0;
}

static int read_table(struct reading *reading, uint64_t table, uint64_t size)
{
	size_t count = size / sizeof(Elf64_Rela);
	pl_autofree Elf64_Rela *relocations = NULL;
	int code;

	if (!table || !count)
		return 0;
	if (count > MAX_RELOCATIONS)
		return -ENOEXEC;
	relocations = calloc(count, sizeof(*relocations));
	if (!relocations)
		return -ENOMEM;
	code = read_image(reading, table, relocations, count * sizeof(*relocations));
	if (code == 0)
		code = read_symbols(reading, relocations, count);
	for (size_t i = 0; code == 0 && i < count; i++) {
		enum pl_relocation type = pl_arch_relocation((uint32_t)ELF64_R_TYPE(relocations[i].r_info));
		const Elf64_Sym *symbol = &reading->symbols[ELF64_R_SYM(relocations[i].r_info)];
		size_t name = type == PL_RELOCATION_JUMP || type == PL_RELOCATION_GLOBAL ? name_of(reading, symbol) :
											   reading->name_count;

		if (name < reading->name_count)
			code = add_fact(reading, &(struct got_fact){
				.offset = relocations[i].r_offset,
				.value = symbol->st_value,
				.name = (uint32_t)name,
				.jump = type == PL_RELOCATION_JUMP,
				/* Of the words that no PLT jumps through only the text says how they are used, if anything does. */
				.loaded = type != PL_RELOCATION_JUMP && !PL_ARCH_TELLS_REFERENCES,
				.defined = symbol->st_shndx != SHN_UNDEF,
			});
	}
	return code;
}

static void note_reference(void *context, uint64_t target, bool jump)
{
	const struct reading *reading = context;

	for (size_t i = 0; !jump && i < reading->fact_count; i++)
		if (!reading->facts[i].jump && reading->bias + reading->facts[i].offset == target)
			reading->facts[i].loaded = true;
}

static uint64_t text_bytes(const struct reading *reading)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < reading->header.count; i++)
		if (reading->header.segments[i].p_type == PT_LOAD && reading->header.segments[i].p_flags & PF_X)
			sum += reading->header.segments[i].p_filesz;
	return sum;
}

static int look_through_text(struct reading *reading)
{
	pl_autofree uint8_t *text = malloc(CHUNK);
	uint64_t low = UINT64_MAX, high = 0;

	if (!PL_ARCH_TELLS_REFERENCES)
		return 0;
	if (!text)
		return -ENOMEM;
	for (size_t i = 0; i < reading->fact_count; i++) {
		uint64_t address = reading->bias + reading->facts[i].offset;

		if (reading->facts[i].jump)
			continue;
		low = address < low ? address : low;
		high = address > high ? address : high;
	}
	for (size_t i = 0; low <= high && i < reading->header.count; i++) {
		const GElf_Phdr *segment = &reading->header.segments[i];

		if (segment->p_type != PT_LOAD || !(segment->p_flags & PF_X))
			continue;
		if (segment->p_memsz > MAX_TEXT)
			return -ENOEXEC;
		/* Chunks overlap by what a reference needs before and in it. */
		for (uint64_t at = 0; at < segment->p_memsz; at += CHUNK - PL_ARCH_REFERENCE_BYTES) {
			uint64_t address = reading->bias + segment->p_vaddr + at, left = segment->p_memsz - at;
			int code = read_image(reading, address, text, left < CHUNK ? left : CHUNK);

			if (code < 0)
				return code;
			pl_arch_find_references(
				text, left < CHUNK ? left : CHUNK, address, low, high, note_reference, reading);
		}
	}
	return 0;
}

/* FNV-1a over what was asked for: facts have the numbers of names. */
static uint64_t hash_names(const struct reading *reading)
{
	uint64_t hash = 0xcbf29ce484222325;

	for (size_t i = 0; i < reading->name_count; i++)
		for (const char *at = reading->names[i];; at++) {
			hash = (hash ^ (uint8_t)*at) * 0x100000001b3;
			if (!*at)
				break;
		}
	return hash;
}

enum { FACT_JUMP = 1, FACT_LOADED = 2, FACT_DEFINED = 4, FACT_FLAGS = 3 /* bits */, FACT_ITEMS = 3 };

/* All of them, or none. */
static bool recall(struct reading *reading)
{
	pl_autofree uint64_t *items = NULL;
	size_t count = 0;

	if (remembered_load(reading->fd, REMEMBERED_REFERENCES, &items, &count) < 0 || count % FACT_ITEMS != 1 ||
		items[0] != hash_names(reading))
		return false;
	for (size_t i = 1; i < count; i += FACT_ITEMS) {
		const struct got_fact fact = {
			.offset = items[i] >> FACT_FLAGS,
			.value = items[i + 2],
			.name = (uint32_t)items[i + 1],
			.jump = items[i] & FACT_JUMP,
			.loaded = items[i] & FACT_LOADED,
			.defined = items[i] & FACT_DEFINED,
		};

		if (items[i + 1] >= reading->name_count || add_fact(reading, &fact) < 0) {
			reading->fact_count = 0;
			return false;
		}
	}
	return true;
}

static void remember(const struct reading *reading)
{
	pl_autofree uint64_t *items = calloc(1 + FACT_ITEMS * reading->fact_count, sizeof(*items));
	size_t count = 1;

	if (!items)
		return;
	items[0] = hash_names(reading);
	for (size_t i = 0; i < reading->fact_count; i++) {
		const struct got_fact *fact = &reading->facts[i];

		if (fact->offset >> (64 - FACT_FLAGS))
			return;
		items[count++] = fact->offset << FACT_FLAGS | (fact->jump ? FACT_JUMP : 0) |
				 (fact->loaded ? FACT_LOADED : 0) | (fact->defined ? FACT_DEFINED : 0);
		items[count++] = fact->name;
		items[count++] = fact->value;
	}
	remembered_store(reading->fd, REMEMBERED_REFERENCES, items, count);
}

static int read_tables(struct reading *reading)
{
	const struct pl_elf_dynamic *dynamic = &reading->dynamic;
	/* Relative relocations come first, are the most, and have no symbol. */
	uint64_t relative = dynamic->relative_count * sizeof(Elf64_Rela);
	int code;

	if (relative > dynamic->relocations_size || dynamic->relative_count > UINT32_MAX)
		relative = 0;
	/* The start of a name is looked at as one word. */
	reading->strings = calloc(1, dynamic->strings_size + STRINGS_BEHIND);
	if (!reading->strings)
		return -ENOMEM;
	code = read_image(reading, dynamic->strings, reading->strings, dynamic->strings_size);
	if (code < 0)
		return code;
	reading->strings[dynamic->strings_size - 1] = '\0';
	note_starts(reading);
	code = read_table(reading, dynamic->jumps, dynamic->jumps_size);
	return code == 0 ? read_table(reading, dynamic->relocations + relative, dynamic->relocations_size - relative) : code;
}

/* What the process has in a word. */
static int add_word(struct reading *reading, const struct got_fact *fact)
{
	struct pl_got_object *object = &reading->got->objects[reading->got->object_count - 1];
	struct pl_got_word word = {
		.address = reading->bias + fact->offset,
		.object = (uint32_t)reading->got->object_count - 1,
		.name = fact->name,
		.kind = fact->loaded ? PL_GOT_LOADED : PL_GOT_JUMPED,
	};

	if (fact->jump && !fact->defined && fact->value)
		word.stub = reading->bias + fact->value;
	if (word.address & 7 || word.address < object->start || word.address >= object->end ||
		pl_space_read_u64(reading->space, word.address, &word.value) < 0 || !is_code(reading, word.value)) {
		object->unready++;
		return 0;
	}
	/* Within the object it is the function, or the PLT that leads to the dynamic linker: libc itself, whose own
	 * calls can be taken over by another's malloc, defines what it calls so. */
	word.bound = word.value < object->start || word.value >= object->end ||
		     (fact->defined && word.value == reading->bias + fact->value);
	return pl_got_add_word(reading->got, &word);
}

static int read_words(struct reading *reading)
{
	struct pl_got_object *object = &reading->got->objects[reading->got->object_count - 1];
	const struct pl_elf_dynamic *dynamic = &reading->dynamic;
	uint64_t start, end;
	bool large;
	int code = 0;

	if (!pl_elf_extent(&reading->header, &start, &end) || dynamic->strings_size > MAX_STRINGS)
		return -ENOEXEC;
	object->start = reading->bias + start;
	object->end = reading->bias + end;
	large = reading->fd >= 0 && (text_bytes(reading) >= REMEMBERED_BYTES || dynamic->strings_size >= REMEMBERED_STRINGS);
	if (!large || !recall(reading)) {
		code = read_tables(reading);
		if (code == 0)
			code = look_through_text(reading);
		/* What is remembered is of all processes that have the file. */
		if (code == 0 && large && !reading->from_memory)
			remember(reading);
	}
	for (size_t i = 0; code == 0 && i < reading->fact_count; i++)
		code = add_word(reading, &reading->facts[i]);
	return code;
}

/* The file goes by its own tables alone: what is remembered of it must not be what a process has made of its memory. */
static int read_dynamic(struct reading *reading, const struct pl_map *map)
{
	reading->fd = pl_space_open_mapped(reading->space, reading->maps, map);
	if (reading->fd >= 0 && pl_elf_header_is_of(reading->fd, &reading->header) &&
		pl_elf_dynamic_from_file(reading->fd, &reading->header, reading->bias, &reading->dynamic) == 0)
		return 0;
	if (reading->fd >= 0)
		(void)close(reading->fd);
	reading->fd = -1;
	return pl_elf_dynamic_read(reading->space, &reading->header, reading->bias, &reading->dynamic);
}

int pl_got_add(struct pl_space *space, const struct pl_maps *maps, const struct pl_map *map, const char *const *names,
	size_t name_count, struct pl_got *got)
{
	struct reading reading = {
		.space = space, .maps = maps, .got = got, .names = names, .name_count = name_count, .fd = -1};
	size_t words = got->word_count, objects = got->object_count;
	int code = name_count > PL_GOT_NAMES_MAX ? -EINVAL :
		   pl_got_object_start(map)      ? pl_elf_header_from_memory(space, map->start, &reading.header) : -ENOEXEC;

	if (code == 0 && pl_elf_place(&reading.header, maps, map, &reading.bias) < 0)
		code = -EAGAIN;
	if (code == 0)
		code = read_dynamic(&reading, map);
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
	free(reading.facts);
	if (reading.fd >= 0)
		(void)close(reading.fd);
	return code == -ENOENT ? -ENOEXEC : code == -EFAULT ? -EAGAIN : code;
}

void pl_got_free(struct pl_got *got)
{
	free(got->objects);
	free(got->words);
	*got = (struct pl_got){0};
}
