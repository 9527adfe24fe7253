/* SPDX-License-Identifier: MIT */
#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core_private.h"
#include "noting.h"
#include "pyleak/arch.h"
#include "pyleak/cleanup.h"
#include "pyleak/units.h"

/* A core file of what is needed: notes, runs of copied memory, and pages that were read. */

enum { PRPSINFO_SIZE = 136, PRPSINFO_PID = 24 };

struct part {
	uint64_t start, end;
	const uint8_t *bytes; /* NULL: to be read from the process */
	unsigned int flags;
};
struct writing {
	int fd;
	struct noting *noting;
	struct pl_maps maps;
	struct part *parts;
	size_t count, capacity;
	uint8_t *notes;
	size_t notes_size;
	struct pl_error *err;
};

static int put(struct writing *writing, const void *bytes, size_t length)
{
	while (length) {
		ssize_t done = write(writing->fd, bytes, length);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return pl_fail(writing->err, done < 0 ? -errno : -ENOSPC, "%s", strerror(done < 0 ? errno : ENOSPC));
		bytes = (const char *)bytes + done;
		length -= (size_t)done;
	}
	return 0;
}

static int add_part(struct writing *writing, struct part part)
{
	if (!writing->parts || writing->count == writing->capacity) {
		size_t capacity = writing->capacity ? 2 * writing->capacity : 1024;
		struct part *grown = reallocarray(writing->parts, capacity, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		writing->parts = grown;
		writing->capacity = capacity;
	}
	writing->parts[writing->count++] = part;
	return 0;
}

static int by_address(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return left < right ? -1 : left > right;
}

static int by_start(const void *a, const void *b)
{
	const struct part *left = a, *right = b;

	return left->start < right->start ? -1 : left->start > right->start;
}

static unsigned int flags_at(const struct pl_maps *maps, uint64_t address)
{
	const struct pl_map *map = pl_maps_find(maps, address);

	return (map && (map->flags & PL_MAP_WRITE) ? PF_W : 0) | (map && (map->flags & PL_MAP_EXEC) ? PF_X : 0) | PF_R;
}

static bool in_runs(const struct pl_memory_piece *runs, size_t count, uint64_t address)
{
	size_t low = 0, high = count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (runs[middle].address + runs[middle].length <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low < count && runs[low].address <= address;
}

/* What was copied, and the pages that were read beside it: neighbours with the same rights are one segment. */
static int make_parts(struct writing *writing, const struct pl_memory_piece *runs, size_t count)
{
	const struct pl_table *table = &writing->noting->pages;
	pl_autofree uint64_t *pages = calloc(table->count + 1, sizeof(*pages));
	size_t found = 0;
	int code = pages ? 0 : -ENOMEM;

	for (size_t i = 0; code == 0 && i < count; i++)
		code = add_part(writing, (struct part){ runs[i].address, runs[i].address + runs[i].length, runs[i].buffer,
			flags_at(&writing->maps, runs[i].address) });
	for (size_t i = 0; code == 0 && table->entries && i <= table->mask; i++)
		if (table->entries[i].key && !in_runs(runs, count, table->entries[i].key))
			pages[found++] = table->entries[i].key;
	if (code == 0 && found)
		qsort(pages, found, sizeof(*pages), by_address);
	for (size_t i = 0; code == 0 && i < found; i++) {
		struct part *last = writing->count > count ? &writing->parts[writing->count - 1] : NULL;
		unsigned int flags = flags_at(&writing->maps, pages[i]);

		if (last && last->end == pages[i] && last->flags == flags)
			last->end += PL_PAGE;
		else
			code = add_part(writing, (struct part){ pages[i], pages[i] + PL_PAGE, NULL, flags });
	}
	if (code == 0 && writing->count)
		qsort(writing->parts, writing->count, sizeof(*writing->parts), by_start);
	return code;
}

static void add_note(FILE *out, const char *name, uint32_t type, const void *bytes, size_t size)
{
	static const char zeros[4];
	const Elf64_Nhdr header = { .n_namesz = (Elf64_Word)strlen(name) + 1, .n_descsz = (Elf64_Word)size, .n_type = type };

	(void)fwrite(&header, sizeof(header), 1, out);
	(void)fwrite(name, header.n_namesz, 1, out);
	(void)fwrite(zeros, (4 - header.n_namesz % 4) % 4, 1, out);
	if (size)
		(void)fwrite(bytes, size, 1, out);
	(void)fwrite(zeros, (4 - size % 4) % 4, 1, out);
}

/* As debuggers read it. */
static void add_files_note(FILE *out, const struct pl_maps *maps)
{
	uint64_t head[2] = { 0, PL_PAGE };
	size_t size;
	char *bytes = NULL;
	FILE *text = open_memstream(&bytes, &size);

	if (!text)
		return;
	for (size_t i = 0; i < maps->count; i++)
		head[0] += maps->items[i].inode != 0;
	(void)fwrite(head, sizeof(head), 1, text);
	for (size_t i = 0; i < maps->count; i++) {
		const uint64_t entry[] = { maps->items[i].start, maps->items[i].end, maps->items[i].offset / PL_PAGE };

		if (maps->items[i].inode)
			(void)fwrite(entry, sizeof(entry), 1, text);
	}
	for (size_t i = 0; i < maps->count; i++)
		if (maps->items[i].inode)
			(void)fprintf(text, "%s%c", maps->items[i].path, '\0');
	if (fclose(text) == 0)
		add_note(out, "CORE", NT_FILE, bytes, size);
	free(bytes);
}

static void add_maps_note(FILE *out, const struct pl_maps *maps)
{
	size_t size;
	char *bytes = NULL;
	FILE *text = open_memstream(&bytes, &size);

	if (!text)
		return;
	for (size_t i = 0; i < maps->count; i++) {
		const struct pl_map *map = &maps->items[i];

		(void)fprintf(text, "%" PRIx64 "-%" PRIx64 " %c%c%c%c %08" PRIx64 " %02x:%02x %" PRIu64 " %s%s\n", map->start, map->end,
			map->flags & PL_MAP_READ ? 'r' : '-', map->flags & PL_MAP_WRITE ? 'w' : '-', map->flags & PL_MAP_EXEC ? 'x' : '-',
			map->flags & PL_MAP_SHARED ? 's' : 'p', map->offset, map->dev_major, map->dev_minor, map->inode, map->path,
			map->flags & PL_MAP_DELETED ? " (deleted)" : "");
	}
	if (fclose(text) == 0)
		add_note(out, CORE_NOTE_NAME, CORE_NOTE_MAPS, bytes, size);
	free(bytes);
}

static int make_notes(struct writing *writing, const struct pl_core_facts *facts)
{
	const struct core_facts_note own = { (uint64_t)writing->noting->space.pid, facts->rss, facts->free, facts->files,
		(uint64_t)(facts->stop_ms * PL_NSEC_PER_MSEC) };
	uint8_t process[PRPSINFO_SIZE] = { 0 };
	const int32_t pid = writing->noting->space.pid;
	const uint64_t auxiliary[] = { AT_PAGESZ, pl_page_size(), AT_NULL, 0 };
	FILE *out = open_memstream((char **)&writing->notes, &writing->notes_size);

	if (!out)
		return -ENOMEM;
	memcpy(process + PRPSINFO_PID, &pid, sizeof(pid));
	add_note(out, "CORE", NT_PRPSINFO, process, sizeof(process));
	add_note(out, "CORE", NT_AUXV, auxiliary, sizeof(auxiliary));
	add_files_note(out, &writing->maps);
	add_maps_note(out, &writing->maps);
	add_note(out, CORE_NOTE_NAME, CORE_NOTE_FACTS, &own, sizeof(own));
	return fclose(out) == 0 ? 0 : -ENOMEM;
}

static int put_headers(struct writing *writing, uint64_t *offset)
{
	/* One for the notes. With very many their number stands in a section header. */
	const uint64_t count = writing->count + 1;
	const bool many = count >= PN_XNUM;
	const uint64_t notes = sizeof(Elf64_Ehdr) + count * sizeof(Elf64_Phdr) + (many ? sizeof(Elf64_Shdr) : 0);
	Elf64_Ehdr header = { .e_type = ET_CORE, .e_machine = PL_ARCH_ELF_MACHINE, .e_version = EV_CURRENT,
		.e_phoff = sizeof(Elf64_Ehdr), .e_ehsize = sizeof(Elf64_Ehdr), .e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = many ? PN_XNUM : (Elf64_Half)count };
	Elf64_Phdr segment = { .p_type = PT_NOTE, .p_offset = notes, .p_filesz = writing->notes_size, .p_align = 4 };
	const Elf64_Shdr section = { .sh_size = 1, .sh_info = (Elf64_Word)count };
	int code;

	memcpy(header.e_ident, ELFMAG, SELFMAG);
	header.e_ident[EI_CLASS] = ELFCLASS64;
	header.e_ident[EI_DATA] = ELFDATA2LSB;
	header.e_ident[EI_VERSION] = EV_CURRENT;
	if (many) {
		header.e_shoff = notes - sizeof(section);
		header.e_shentsize = sizeof(section);
		header.e_shnum = 1;
	}
	*offset = pl_page_end(notes + writing->notes_size);
	code = put(writing, &header, sizeof(header));
	if (code == 0)
		code = put(writing, &segment, sizeof(segment));
	for (size_t i = 0; code == 0 && i < writing->count; i++) {
		const struct part *part = &writing->parts[i];

		segment = (Elf64_Phdr){ .p_type = PT_LOAD, .p_flags = part->flags, .p_offset = *offset, .p_vaddr = part->start,
			.p_filesz = part->end - part->start, .p_memsz = part->end - part->start, .p_align = PL_PAGE };
		*offset += segment.p_filesz;
		code = put(writing, &segment, sizeof(segment));
	}
	if (code == 0 && many)
		code = put(writing, &section, sizeof(section));
	return code == 0 ? put(writing, writing->notes, writing->notes_size) : code;
}

static int put_memory(struct writing *writing)
{
	uint8_t page[PL_PAGE] = { 0 };
	const uint64_t count = writing->count + 1;
	uint64_t at = sizeof(Elf64_Ehdr) + count * sizeof(Elf64_Phdr) + (count >= PN_XNUM ? sizeof(Elf64_Shdr) : 0) + writing->notes_size;
	int code = put(writing, page, pl_page_end(at) - at);

	for (size_t i = 0; code == 0 && i < writing->count; i++) {
		const struct part *part = &writing->parts[i];

		if (part->bytes) {
			code = put(writing, part->bytes, part->end - part->start);
			continue;
		}
		for (uint64_t address = part->start; code == 0 && address < part->end; address += PL_PAGE) {
			memset(page, 0, sizeof(page));
			if (pl_space_read_some(writing->noting->below, address, page, sizeof(page)) < 0)
				return pl_fail(writing->err, -ESRCH, "%s ended while it was read", writing->noting->space.name);
			code = put(writing, page, sizeof(page));
		}
	}
	return code;
}

int pl_core_write(int fd, struct pl_space *noting, const struct pl_memory_piece *runs, size_t count,
	const struct pl_core_facts *facts, struct pl_error *err)
{
	struct writing writing = { .fd = fd, .noting = (struct noting *)noting, .err = err };
	uint64_t offset;
	int code = pl_space_maps(noting, &writing.maps);

	if (code == 0)
		code = writing.noting->failed ? -ENOMEM : make_parts(&writing, runs, count);
	if (code == 0)
		code = make_notes(&writing, facts);
	if (code == 0 && writing.count >= CORE_SEGMENTS_MAX)
		code = -E2BIG;
	if (code < 0)
		(void)pl_fail(err, code, "%s", strerror(-code));
	if (code == 0)
		code = put_headers(&writing, &offset);
	if (code == 0)
		code = put_memory(&writing);
	pl_maps_free(&writing.maps);
	free(writing.parts);
	free(writing.notes);
	return code;
}
