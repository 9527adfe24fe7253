/* SPDX-License-Identifier: MIT */
#include "elf_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Larger than any table met (Chromium's with 3 million); a lie about the size must not take all memory. */
enum { MAX_SYMBOLS = 1 << 23 };

/* Which of several symbols with one name is meant: the linker's choice first, a file's own static last. */
enum { RANK_LOCAL, RANK_HIDDEN_VERSION, RANK_GLOBAL };

static uint32_t hash_name(const char *name)
{
	uint32_t hash = 2166136261u; /* FNV-1a */

	for (; *name; name++)
		hash = (hash ^ (unsigned char)*name) * 16777619u;
	return hash;
}

int pl_elf_symbols_add(struct pl_elf_symbols *symbols, const GElf_Sym *symbol, bool hidden_version)
{
	unsigned char type = GELF_ST_TYPE(symbol->st_info);
	struct pl_elf_symbol_entry *entry;

	/* SHN_ABS and SHN_COMMON have no address in the image, TLS ones an offset, and an IFUNC's is its resolver's. */
	if (symbol->st_shndx == SHN_UNDEF || symbol->st_shndx == SHN_ABS || symbol->st_shndx == SHN_COMMON ||
		symbol->st_name == 0 || symbol->st_name >= symbols->strings_size)
		return 0;
	if (type != STT_NOTYPE && type != STT_OBJECT && type != STT_FUNC)
		return 0;
	if (symbols->count == symbols->capacity) {
		uint32_t wanted = symbols->capacity ? 2 * symbols->capacity : 1024;
		struct pl_elf_symbol_entry *grown;

		if (symbols->count >= MAX_SYMBOLS)
			return -E2BIG;
		grown = reallocarray(symbols->items, wanted, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		symbols->items = grown;
		symbols->capacity = wanted;
	}
	entry = &symbols->items[symbols->count++];
	*entry = (struct pl_elf_symbol_entry){
		.value = symbol->st_value,
		.size = symbol->st_size,
		.name = symbol->st_name,
		.rank = GELF_ST_BIND(symbol->st_info) == STB_LOCAL ? RANK_LOCAL
			: hidden_version			   ? RANK_HIDDEN_VERSION
								   : RANK_GLOBAL,
		.function = type == STT_FUNC,
	};
	return 0;
}

int pl_elf_symbols_index(struct pl_elf_symbols *symbols)
{
	uint32_t size = 64;

	if (symbols->count == 0)
		return 0;
	while (size < symbols->count)
		size *= 2;
	symbols->buckets = calloc(size, sizeof(*symbols->buckets));
	if (!symbols->buckets)
		return -ENOMEM;
	symbols->mask = size - 1;
	for (uint32_t i = symbols->count; i-- > 0;) {
		uint32_t *bucket =
			&symbols->buckets[hash_name(symbols->strings + symbols->items[i].name) & symbols->mask];

		symbols->items[i].next = *bucket;
		*bucket = i + 1;
	}
	return 0;
}

const struct pl_elf_symbol_entry *pl_elf_symbols_find(const struct pl_elf_symbols *symbols, const char *name)
{
	const struct pl_elf_symbol_entry *best = NULL;
	uint32_t next;

	if (!symbols->buckets)
		return NULL;
	for (next = symbols->buckets[hash_name(name) & symbols->mask]; next; next = symbols->items[next - 1].next) {
		const struct pl_elf_symbol_entry *entry = &symbols->items[next - 1];

		if ((!best || entry->rank > best->rank) && strcmp(symbols->strings + entry->name, name) == 0)
			best = entry;
	}
	return best;
}

/* gcc and clang append ".lto_priv.0", ".constprop.1", ".isra.0", ".llvm.123" to a whole function or object, but
 * ".cold" and ".part.0" to a piece that was cut out of one. */
static bool names_whole(const char *suffix)
{
	return *suffix == '.' && strncmp(suffix, ".cold", 5) != 0 && strncmp(suffix, ".part.", 6) != 0;
}

const struct pl_elf_symbol_entry *pl_elf_symbols_find_prefix(const struct pl_elf_symbols *symbols, const char *prefix)
{
	const struct pl_elf_symbol_entry *exact = pl_elf_symbols_find(symbols, prefix);
	size_t length = strlen(prefix);

	if (exact)
		return exact;
	for (uint32_t i = 0; i < symbols->count; i++) {
		const char *name = symbols->strings + symbols->items[i].name;

		if (strncmp(name, prefix, length) == 0 && names_whole(name + length))
			return &symbols->items[i];
	}
	return NULL;
}

const struct pl_elf_symbol_entry *pl_elf_symbols_at(const struct pl_elf_symbols *symbols, uint64_t value)
{
	const struct pl_elf_symbol_entry *best = NULL;

	for (uint32_t i = 0; i < symbols->count; i++) {
		const struct pl_elf_symbol_entry *entry = &symbols->items[i];

		if (entry->function && value >= entry->value && value - entry->value < entry->size &&
			(!best || entry->rank > best->rank))
			best = entry;
	}
	return best;
}

void pl_elf_symbols_free(struct pl_elf_symbols *symbols)
{
	if (!symbols)
		return;
	free(symbols->items);
	free(symbols->buckets);
	free(symbols->owned_strings);
	free(symbols);
}

#define SECTION_MAX (UINT64_C(512) << 20)
#define SECTION_USUAL (UINT64_C(16) << 20)
#define COMPRESSION_MAX 16

/* libelf takes the memory that a section says it has. A file may say anything, and be of holes: what has no blocks on its
 * disk is not read beyond what every library has. (A file system that compresses has fewer blocks than bytes.) */
static bool is_credible(const struct pl_elf_symbols *symbols, Elf_Scn *section)
{
	GElf_Shdr header;

	return gelf_getshdr(section, &header) && header.sh_size <= SECTION_MAX &&
	       (header.sh_size <= SECTION_USUAL || header.sh_size / COMPRESSION_MAX <= symbols->file_bytes);
}

static Elf_Data *section_data(const struct pl_elf_symbols *symbols, Elf_Scn *section)
{
	if (section && !is_credible(symbols, section))
		return NULL;

	Elf_Data *data = section ? elf_getdata(section, NULL) : NULL;

	return data && data->d_buf ? data : NULL;
}

static Elf_Scn *find_section(Elf *file, uint32_t type, GElf_Shdr *header)
{
	Elf_Scn *section = NULL;

	while ((section = elf_nextscn(file, section))) {
		if (gelf_getshdr(section, header) && header->sh_type == type)
			return section;
	}
	return NULL;
}

int pl_elf_symbols_from_file(Elf *file, uint32_t section_type, struct pl_elf_symbols *symbols)
{
	GElf_Shdr header, versions_header;
	Elf_Scn *section = find_section(file, section_type, &header);
	Elf_Data *data = section_data(symbols, section);
	Elf_Data *strings, *versions = NULL;
	size_t strings_size;
	int r;

	if (!data || header.sh_entsize == 0)
		return -ENOENT;
	strings = section_data(symbols, elf_getscn(file, header.sh_link));
	if (!strings)
		return -ENOENT;
	strings_size = strings->d_size;
	while (strings_size && ((const char *)strings->d_buf)[strings_size - 1] != '\0')
		strings_size--;
	symbols->strings = strings->d_buf;
	symbols->strings_size = strings_size;
	if (section_type == SHT_DYNSYM)
		versions = section_data(symbols, find_section(file, SHT_GNU_versym, &versions_header));
	for (int i = 1; i < MAX_SYMBOLS; i++) {
		GElf_Sym symbol;
		GElf_Versym version = 0;

		if (!gelf_getsym(data, i, &symbol))
			break;
		if (versions && !gelf_getversym(versions, i, &version))
			version = 0;
		r = pl_elf_symbols_add(symbols, &symbol, version & 0x8000);
		if (r < 0)
			return r;
	}
	return pl_elf_symbols_index(symbols);
}
