/* SPDX-License-Identifier: MIT */
#include "elf_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pyleak/cleanup.h"
#include "pyleak/space.h"

/*
 * An object whose file cannot be had is read the way ld.so sees it: program headers, PT_DYNAMIC, and from there the
 * dynamic symbols. All of it is the process's to overwrite, so every size has a limit of our own.
 */
enum {
	MAX_SEGMENTS = 256,
	MAX_DYNAMIC_BYTES = 1 << 16,
	MAX_DYNAMIC_SYMBOLS = 1 << 20,
	MAX_STRINGS = 1 << 26,
	SYMBOLS_AT_ONCE = 1024,
};

int pl_elf_header_from_memory(struct pl_space *space, uint64_t address, struct pl_elf_header *header)
{
	pl_autofree Elf64_Phdr *segments = NULL;
	Elf64_Ehdr ehdr;
	int r = pl_space_read(space, address, &ehdr, sizeof(ehdr));

	if (r < 0)
		return r;
	if (memcmp(ehdr.e_ident, ELFMAG, SELFMAG) != 0 || ehdr.e_ident[EI_CLASS] != ELFCLASS64 ||
		ehdr.e_ident[EI_DATA] != ELFDATA2LSB || ehdr.e_phentsize != sizeof(Elf64_Phdr) || ehdr.e_phnum == 0 ||
		ehdr.e_phnum > MAX_SEGMENTS)
		return -ENOEXEC;
	segments = calloc(ehdr.e_phnum, sizeof(*segments));
	header->segments = calloc(ehdr.e_phnum, sizeof(*header->segments));
	if (!segments || !header->segments)
		return -ENOMEM;
	r = pl_space_read(space, address + ehdr.e_phoff, segments, ehdr.e_phnum * sizeof(*segments));
	if (r < 0)
		return r;
	header->type = ehdr.e_type;
	header->machine = ehdr.e_machine;
	header->class = ELFCLASS64;
	header->count = ehdr.e_phnum;
	for (size_t i = 0; i < header->count; i++) {
		header->segments[i] = (GElf_Phdr){
			.p_type = segments[i].p_type,
			.p_flags = segments[i].p_flags,
			.p_offset = segments[i].p_offset,
			.p_vaddr = segments[i].p_vaddr,
			.p_filesz = segments[i].p_filesz,
			.p_memsz = segments[i].p_memsz,
		};
	}
	return 0;
}

struct image {
	struct pl_space *space;
	uint64_t bias, start, end; /* [start, end): of the PT_LOADs, at file addresses */
	bool file;                 /* it is the file's own, which nobody has relocated, wherever the process maps it */
};

/* glibc relocates the pointers of the dynamic section in place, musl leaves them as in the file. 0: points nowhere. */
static uint64_t dynamic_pointer(const struct image *image, uint64_t value)
{
	if (!image->file && value >= image->bias + image->start && value < image->bias + image->end)
		return value;
	if (value >= image->start && value < image->end)
		return image->bias + value;
	return 0;
}

/* DT_GNU_HASH does not say how many symbols there are: the last one is the end of the chain that begins last. */
static int count_by_gnu_hash(const struct image *image, uint64_t table, uint32_t *ret_count)
{
	struct {
		uint32_t bucket_count, first_symbol, bloom_count, bloom_shift;
	} header;
	pl_autofree uint32_t *words = NULL;
	uint64_t buckets, chains;
	uint32_t last = 0, at;
	int r = pl_space_read(image->space, table, &header, sizeof(header));

	if (r < 0)
		return r;
	if (header.bucket_count > MAX_DYNAMIC_SYMBOLS || header.bloom_count > MAX_DYNAMIC_SYMBOLS)
		return -ENOEXEC;
	buckets = table + sizeof(header) + 8 * (uint64_t)header.bloom_count;
	chains = buckets + 4 * (uint64_t)header.bucket_count;
	words = calloc((size_t)header.bucket_count + SYMBOLS_AT_ONCE, sizeof(*words));
	if (!words)
		return -ENOMEM;
	r = pl_space_read(image->space, buckets, words, header.bucket_count * sizeof(*words));
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < header.bucket_count; i++) {
		if (words[i] > last)
			last = words[i];
	}
	if (last < header.first_symbol) {
		*ret_count = header.first_symbol; /* nothing is exported */
		return header.first_symbol > MAX_DYNAMIC_SYMBOLS ? -ENOEXEC : 0;
	}
	for (at = last; at < MAX_DYNAMIC_SYMBOLS;) {
		ssize_t got = pl_space_read_some(image->space, chains + 4 * (uint64_t)(at - header.first_symbol), words,
			SYMBOLS_AT_ONCE * sizeof(*words));

		if (got < 4)
			return got < 0 ? (int)got : -EFAULT;
		for (size_t i = 0; i < (size_t)got / 4; i++, at++) {
			if (words[i] & 1) {
				*ret_count = at + 1;
				return 0;
			}
		}
	}
	return -ENOEXEC;
}

static int count_by_hash(const struct image *image, uint64_t table, uint32_t *ret_count)
{
	uint32_t header[2]; /* nbucket, nchain */
	int r = pl_space_read(image->space, table, header, sizeof(header));

	if (r < 0)
		return r;
	*ret_count = header[1];
	return header[1] > MAX_DYNAMIC_SYMBOLS ? -ENOEXEC : 0;
}

/* `fd`: the file that it is read from; -1: from memory. */
static int read_dynamic(const struct image *image, const struct pl_elf_header *header, int fd, struct pl_elf_dynamic *ret)
{
	const GElf_Phdr *segment = NULL;
	pl_autofree Elf64_Dyn *entries = NULL;
	size_t size;
	int r;

	for (size_t i = 0; i < header->count && !segment; i++) {
		if (header->segments[i].p_type == PT_DYNAMIC)
			segment = &header->segments[i];
	}
	if (!segment)
		return -ENOENT; /* a static program */
	size = segment->p_memsz < MAX_DYNAMIC_BYTES ? segment->p_memsz : MAX_DYNAMIC_BYTES;
	entries = calloc(1, size + sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	if (fd >= 0)
		r = segment->p_filesz >= size && pread(fd, entries, size, (off_t)segment->p_offset) == (ssize_t)size ? 0 : -ENOEXEC;
	else
		r = pl_space_read(image->space, image->bias + segment->p_vaddr, entries, size);
	if (r < 0)
		return r;
	*ret = (struct pl_elf_dynamic){0};
	for (size_t i = 0; i < size / sizeof(*entries) && entries[i].d_tag != DT_NULL; i++) {
		uint64_t value = entries[i].d_un.d_val;

		switch (entries[i].d_tag) {
		case DT_SYMTAB:
			ret->symbols = dynamic_pointer(image, value);
			break;
		case DT_STRTAB:
			ret->strings = dynamic_pointer(image, value);
			break;
		case DT_STRSZ:
			ret->strings_size = value;
			break;
		case DT_HASH:
			ret->hash = dynamic_pointer(image, value);
			break;
		case DT_GNU_HASH:
			ret->gnu_hash = dynamic_pointer(image, value);
			break;
		case DT_VERSYM:
			ret->versions = dynamic_pointer(image, value);
			break;
		case DT_JMPREL:
			ret->jumps = dynamic_pointer(image, value);
			break;
		case DT_PLTRELSZ:
			ret->jumps_size = value;
			break;
		case DT_RELA:
			ret->relocations = dynamic_pointer(image, value);
			break;
		case DT_RELASZ:
			ret->relocations_size = value;
			break;
		case DT_RELACOUNT:
			ret->relative_count = value;
			break;
		default:
			break;
		}
	}
	if (!ret->symbols || !ret->strings || ret->strings_size == 0 || ret->strings_size > MAX_STRINGS)
		return -ENOEXEC;
	return 0;
}

int pl_elf_dynamic_read(struct pl_space *space, const struct pl_elf_header *header, uint64_t bias, struct pl_elf_dynamic *ret)
{
	struct image image = {.space = space, .bias = bias};

	if (header->class != ELFCLASS64 || !pl_elf_extent(header, &image.start, &image.end))
		return -ENOEXEC;
	return read_dynamic(&image, header, -1, ret);
}

int pl_elf_dynamic_from_file(int fd, const struct pl_elf_header *header, uint64_t bias, struct pl_elf_dynamic *ret)
{
	struct image image = {.bias = bias, .file = true};

	if (header->class != ELFCLASS64 || !pl_elf_extent(header, &image.start, &image.end))
		return -ENOEXEC;
	return read_dynamic(&image, header, fd, ret);
}

bool pl_elf_header_is_of(int fd, const struct pl_elf_header *header)
{
	pl_autofree Elf64_Phdr *segments = NULL;
	Elf64_Ehdr ehdr;
	size_t size;

	if (pread(fd, &ehdr, sizeof(ehdr), 0) != (ssize_t)sizeof(ehdr) || memcmp(ehdr.e_ident, ELFMAG, SELFMAG) != 0 ||
		ehdr.e_ident[EI_CLASS] != ELFCLASS64 || ehdr.e_phentsize != sizeof(*segments) ||
		ehdr.e_phnum != header->count || ehdr.e_type != header->type)
		return false;
	size = header->count * sizeof(*segments);
	segments = malloc(size);
	if (!segments || pread(fd, segments, size, (off_t)ehdr.e_phoff) != (ssize_t)size)
		return false;
	for (size_t i = 0; i < header->count; i++) {
		const GElf_Phdr *segment = &header->segments[i];

		if (segments[i].p_type != segment->p_type || segments[i].p_flags != segment->p_flags ||
			segments[i].p_offset != segment->p_offset || segments[i].p_vaddr != segment->p_vaddr ||
			segments[i].p_filesz != segment->p_filesz || segments[i].p_memsz != segment->p_memsz)
			return false;
	}
	return true;
}

static int read_symbols(
	const struct image *image, const struct pl_elf_dynamic *dynamic, uint32_t count, struct pl_elf_symbols *symbols)
{
	pl_autofree Elf64_Sym *raw = calloc(SYMBOLS_AT_ONCE, sizeof(*raw));
	pl_autofree uint16_t *versions = calloc(SYMBOLS_AT_ONCE, sizeof(*versions));

	if (!raw || !versions)
		return -ENOMEM;
	for (uint32_t at = 0; at < count; at += SYMBOLS_AT_ONCE) {
		uint32_t batch = count - at < SYMBOLS_AT_ONCE ? count - at : SYMBOLS_AT_ONCE;
		int r = pl_space_read(image->space, dynamic->symbols + at * sizeof(*raw), raw, batch * sizeof(*raw));

		if (r < 0)
			return r;
		if (dynamic->versions) {
			r = pl_space_read(image->space, dynamic->versions + at * sizeof(*versions), versions,
				batch * sizeof(*versions));
			if (r < 0)
				return r;
		}
		for (uint32_t i = 0; i < batch; i++) {
			GElf_Sym symbol = {
				.st_name = raw[i].st_name,
				.st_info = raw[i].st_info,
				.st_other = raw[i].st_other,
				.st_shndx = raw[i].st_shndx,
				.st_value = raw[i].st_value,
				.st_size = raw[i].st_size,
			};

			r = pl_elf_symbols_add(symbols, &symbol, versions[i] & 0x8000);
			if (r < 0)
				return r;
		}
	}
	return pl_elf_symbols_index(symbols);
}

int pl_elf_symbols_from_memory(
	struct pl_space *space, const struct pl_elf_header *header, uint64_t bias, struct pl_elf_symbols *symbols)
{
	struct image image = {.space = space, .bias = bias};
	struct pl_elf_dynamic dynamic;
	uint32_t count = 0;
	int r;

	if (header->class != ELFCLASS64 || !pl_elf_extent(header, &image.start, &image.end))
		return -ENOEXEC;
	r = read_dynamic(&image, header, -1, &dynamic);
	if (r < 0)
		return r;
	if (dynamic.hash)
		r = count_by_hash(&image, dynamic.hash, &count);
	else
		r = dynamic.gnu_hash ? count_by_gnu_hash(&image, dynamic.gnu_hash, &count) : -ENOENT;
	if (r < 0)
		return r;
	symbols->owned_strings = malloc(dynamic.strings_size);
	if (!symbols->owned_strings)
		return -ENOMEM;
	r = pl_space_read(space, dynamic.strings, symbols->owned_strings, dynamic.strings_size);
	if (r < 0)
		return r;
	symbols->owned_strings[dynamic.strings_size - 1] = '\0';
	symbols->strings = symbols->owned_strings;
	symbols->strings_size = dynamic.strings_size;
	return read_symbols(&image, &dynamic, count, symbols);
}
