/* SPDX-License-Identifier: MIT */
#include <elf.h>
#include <errno.h>

#include "pyleak/arch.h"
#include "pyleak/space.h"
#include "python_private.h"

enum {
	PROGRAM_HEADERS_MAX = 64,
	DYNAMIC_MAX = 128,
	CHAIN_MAX = 4096,
	CHAIN_STEP = 32,
	NAME_MAX_BYTES = 64,
};

static void read_segments(struct object *object, const Elf64_Phdr *headers, size_t count)
{
	for (size_t i = 0; i < count && object->segment_count < OBJECT_SEGMENTS_MAX; i++) {
		const Elf64_Phdr *header = &headers[i];
		uint64_t start = header->p_vaddr + object->bias;

		if (header->p_type != PT_LOAD || start + header->p_memsz < start)
			continue;
		object->segments[object->segment_count].start = start;
		object->segments[object->segment_count].end = start + header->p_memsz;
		object->segments[object->segment_count].writable = header->p_flags & PF_W;
		object->segments[object->segment_count++].executable = header->p_flags & PF_X;
	}
}

static void read_dynamic(struct object *object, uint64_t address)
{
	Elf64_Dyn entries[DYNAMIC_MAX];
	ssize_t size = pl_space_read_some(object->space, address, entries, sizeof(entries));

	object->has_dynamic = true;
	for (ssize_t i = 0; i < size / (ssize_t)sizeof(entries[0]) && entries[i].d_tag != DT_NULL; i++) {
		uint64_t value = entries[i].d_un.d_ptr;

		/* glibc relocates these in place, musl does not. */
		if (value < object->map->start)
			value += object->bias;
		switch (entries[i].d_tag) {
		case DT_GNU_HASH: object->gnu_hash = value; break;
		case DT_HASH: object->sysv_hash = value; break;
		case DT_SYMTAB: object->symbols = value; break;
		case DT_STRTAB: object->strings = value; break;
		case DT_SONAME: object->has_soname = true; break;
		default: break;
		}
	}
}

int object_read(struct pl_space *space, const struct pl_map *map, struct object *ret)
{
	struct object object = { .space = space, .map = map };
	Elf64_Phdr headers[PROGRAM_HEADERS_MAX];
	Elf64_Ehdr ehdr;
	size_t count;
	bool first = true;
	int r = pl_space_read(space, map->start, &ehdr, sizeof(ehdr));

	if (r == -EPERM || r == -ESRCH)
		return r;
	if (r < 0 || memcmp(ehdr.e_ident, ELFMAG, SELFMAG) ||
			ehdr.e_ident[EI_CLASS] != ELFCLASS64 || ehdr.e_ident[EI_DATA] != ELFDATA2LSB ||
			ehdr.e_machine != PL_ARCH_ELF_MACHINE || ehdr.e_phentsize != sizeof(headers[0]))
		return -ENOEXEC;
	count = ehdr.e_phnum < PROGRAM_HEADERS_MAX ? ehdr.e_phnum : PROGRAM_HEADERS_MAX;
	if (!count || pl_space_read(space, map->start + ehdr.e_phoff, headers, count * sizeof(headers[0])) < 0)
		return -ENOEXEC;
	for (size_t i = 0; i < count; i++)
		if (headers[i].p_type == PT_LOAD && first) {
			object.bias = map->start + headers[i].p_offset - headers[i].p_vaddr;
			first = false;
		}
	read_segments(&object, headers, count);
	for (size_t i = 0; i < count; i++)
		if (headers[i].p_type == PT_DYNAMIC)
			read_dynamic(&object, headers[i].p_vaddr + object.bias);
	*ret = object;
	return 0;
}

void object_release(struct object *object)
{
	pl_elf_close(object->elf);
	object->elf = NULL;
}

static int check_symbol(const struct object *object, const char *name, uint64_t index, uint64_t *ret)
{
	char text[NAME_MAX_BYTES];
	size_t length = strlen(name) + 1;
	Elf64_Sym symbol;

	if (length > sizeof(text) ||
			pl_space_read(object->space, object->symbols + index * sizeof(symbol), &symbol, sizeof(symbol)) < 0 ||
			symbol.st_shndx == SHN_UNDEF || !symbol.st_value ||
			pl_space_read(object->space, object->strings + symbol.st_name, text, length) < 0 ||
			memcmp(text, name, length) != 0)
		return -ENOENT;
	*ret = symbol.st_value + object->bias;
	return 0;
}

static int gnu_lookup(const struct object *object, const char *name, uint64_t *ret)
{
	struct {
		uint32_t buckets, first_symbol, bloom_words, bloom_shift;
	} header;
	uint64_t bloom, at = object->gnu_hash + sizeof(header), chains;
	uint32_t hash = 5381, bucket;

	for (const char *c = name; *c; c++)
		hash = hash * 33 + (uint8_t)*c;
	if (pl_space_read(object->space, object->gnu_hash, &header, sizeof(header)) < 0 || !header.buckets ||
			!header.bloom_words || header.bloom_shift > 31 ||
			pl_space_read_u64(object->space, at + 8 * (hash / 64 % header.bloom_words), &bloom) < 0)
		return -ENOENT;
	if (!(bloom >> hash % 64 & 1) || !(bloom >> (hash >> header.bloom_shift) % 64 & 1))
		return -ENOENT;
	at += 8 * (uint64_t)header.bloom_words;
	chains = at + 4 * (uint64_t)header.buckets;
	if (pl_space_read(object->space, at + 4 * (uint64_t)(hash % header.buckets), &bucket, sizeof(bucket)) < 0 ||
			bucket < header.first_symbol)
		return -ENOENT;
	for (uint32_t i = 0; i < CHAIN_MAX; i += CHAIN_STEP) {
		uint32_t chain[CHAIN_STEP];
		ssize_t size = pl_space_read_some(object->space, chains + 4 * ((uint64_t)bucket - header.first_symbol + i),
			chain, sizeof(chain));

		for (uint32_t j = 0; (ssize_t)((j + 1) * sizeof(chain[0])) <= size; j++) {
			if ((chain[j] | 1) == (hash | 1) &&
					check_symbol(object, name, (uint64_t)bucket + i + j, ret) == 0)
				return 0;
			if (chain[j] & 1)
				return -ENOENT;
		}
		if (size < (ssize_t)sizeof(chain))
			break;
	}
	return -ENOENT;
}

static int sysv_lookup(const struct object *object, const char *name, uint64_t *ret)
{
	struct {
		uint32_t buckets, chains;
	} header;
	uint64_t at = object->sysv_hash + sizeof(header);
	uint32_t hash = 0, index;

	for (const char *c = name; *c; c++) {
		hash = (hash << 4) + (uint8_t)*c;
		hash = (hash ^ (hash >> 24 & 0xf0)) & 0x0fffffff;
	}
	if (pl_space_read(object->space, object->sysv_hash, &header, sizeof(header)) < 0 || !header.buckets ||
			pl_space_read(object->space, at + 4 * (uint64_t)(hash % header.buckets), &index, sizeof(index)) < 0)
		return -ENOENT;
	at += 4 * (uint64_t)header.buckets;
	for (int i = 0; i < CHAIN_MAX && index && index < header.chains; i++) {
		if (check_symbol(object, name, index, ret) == 0)
			return 0;
		if (pl_space_read(object->space, at + 4 * (uint64_t)index, &index, sizeof(index)) < 0)
			break;
	}
	return -ENOENT;
}

int object_export(const struct object *object, const char *name, uint64_t *ret)
{
	if (object->symbols && object->strings && object->gnu_hash)
		return gnu_lookup(object, name, ret);
	if (object->symbols && object->strings && object->sysv_hash)
		return sysv_lookup(object, name, ret);
	return -ENOENT;
}

bool object_exports(const struct object *object, const char *name)
{
	uint64_t address;

	return object_export(object, name, &address) == 0;
}

int object_local(const struct object *object, const char *name, uint64_t *ret)
{
	if (!object->elf)
		return -ENOENT;
	return pl_elf_symbol_prefix(object->elf, name, ret, NULL);
}

bool object_is_data(const struct object *object, uint64_t address)
{
	for (size_t i = 0; i < object->segment_count; i++)
		if (object->segments[i].writable && !object->segments[i].executable &&
				address >= object->segments[i].start && address < object->segments[i].end)
			return true;
	return false;
}

int object_code_read(void *object, uint64_t address, void *buffer, size_t length)
{
	return pl_space_read(((struct object *)object)->space, address, buffer, length);
}

bool object_code_is_data(void *object, uint64_t address)
{
	return object_is_data(object, address);
}
