/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <gelf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core_private.h"
#include "pyleak/arch.h"
#include "pyleak/cleanup.h"
#include "pyleak/table.h"
#include "pyleak/units.h"

/* Program headers and notes of a core file. */

enum {
	NOTES_MAX = 1 << 26,     /* bytes of all notes: a thread has some thousand, a mapped file its name */
	NAMED_MAX = 1 << 20,     /* mappings */
	PRPSINFO_PID = 24,
	AUXV_MAX = 64,
	PAGE_MAX = 1 << 16, /* of any kernel */
};
/* Of memory that can be written: what a process has of it is copied and looked through. */
#define WRITABLE_MAX (UINT64_C(1) << 42)

struct parsing {
	struct core *core;
	const char *path;
	struct pl_error *err;
	struct pl_maps named;   /* from NT_FILE */
	struct pl_maps own;     /* from our own note */
	uint64_t stack;         /* an address in the first thread's; 0: not known */
	bool process_known;
};

static int damaged(struct parsing *parsing, const char *what)
{
	return pl_fail(parsing->err, -EBADMSG, "%s is damaged: %s", parsing->path, what);
}

static int by_start(const void *a, const void *b)
{
	const struct core_segment *left = a, *right = b;

	return left->start < right->start ? -1 : left->start > right->start;
}

static int add_segment(struct parsing *parsing, const GElf_Phdr *header)
{
	struct core *core = parsing->core;
	char there[PL_SIZE_TEXT], whole[PL_SIZE_TEXT];

	if (!header->p_memsz)
		return 0;
	if (header->p_vaddr % PL_PAGE || header->p_memsz % PL_PAGE || header->p_filesz > header->p_memsz ||
		header->p_vaddr + header->p_memsz <= header->p_vaddr)
		return damaged(parsing, "a segment is not made of pages");
	if (header->p_offset > INT64_MAX || header->p_filesz > INT64_MAX - header->p_offset)
		return damaged(parsing, "a segment lies nowhere");
	if (header->p_offset + header->p_filesz > core->size) {
		pl_format_size((int64_t)core->size, false, there);
		pl_format_size((int64_t)(header->p_offset + header->p_filesz), false, whole);
		return pl_fail(parsing->err, -EBADMSG,
			"%s is cut: %s of at least %s are there (see 'ulimit -c', and ProcessSizeMax of systemd-coredump)", parsing->path,
			there, whole);
	}
	core->segments[core->segment_count++] = (struct core_segment){
		.start = header->p_vaddr, .end = header->p_vaddr + header->p_memsz, .file_end = header->p_vaddr + header->p_filesz,
		.offset = header->p_offset,
		.flags = (header->p_flags & PF_R ? PL_MAP_READ : 0) | (header->p_flags & PF_W ? PL_MAP_WRITE : 0) |
			(header->p_flags & PF_X ? PL_MAP_EXEC : 0),
	};
	core->facts.bytes += header->p_filesz;
	return 0;
}

static bool ends_in(const char *text, const char *end)
{
	size_t length = strlen(text), wanted = strlen(end);

	return length >= wanted && strcmp(text + length - wanted, end) == 0;
}

static bool is_shared(const char *path)
{
	static const char *const beginnings[] = { "/dev/shm/", "/memfd:", "/SYSV", "/dev/zero", "/dev/dri", "/dev/nvidia" };

	for (size_t i = 0; i < sizeof(beginnings) / sizeof(beginnings[0]); i++)
		if (strncmp(path, beginnings[i], strlen(beginnings[i])) == 0)
			return true;
	return false;
}

/* NT_FILE: how many, the unit of offsets, {start, end, offset} of each, then their names. */
static int read_files(struct parsing *parsing, const uint8_t *bytes, size_t size)
{
	static const char deleted[] = " (deleted)";
	uint64_t head[2], entry[3];
	const char *names, *end = (const char *)bytes + size;

	if (size < sizeof(head) || parsing->named.items)
		return 0;
	memcpy(head, bytes, sizeof(head));
	if (head[0] > NAMED_MAX || head[0] > (size - sizeof(head)) / sizeof(entry) || !head[1] || head[1] > 1 << 20)
		return damaged(parsing, "its list of mapped files is too long");
	names = (const char *)bytes + sizeof(head) + head[0] * sizeof(entry);
	parsing->named.items = calloc(head[0] + 1, sizeof(*parsing->named.items));
	if (!parsing->named.items)
		return pl_fail(parsing->err, -ENOMEM, "out of memory");
	for (uint64_t i = 0; i < head[0]; i++) {
		struct pl_map *map = &parsing->named.items[parsing->named.count];
		size_t length = strnlen(names, (size_t)(end - names));

		memcpy(entry, bytes + sizeof(head) + i * sizeof(entry), sizeof(entry));
		if (names + length == end || entry[0] % PL_PAGE || entry[1] % PL_PAGE || entry[0] >= entry[1] ||
			entry[2] > (uint64_t)INT64_MAX / head[1])
			return damaged(parsing, "its list of mapped files is none");
		*map = (struct pl_map){ .start = entry[0], .end = entry[1], .offset = entry[2] * head[1], .inode = 1,
			.path = strdup(names) };
		if (!map->path)
			return pl_fail(parsing->err, -ENOMEM, "out of memory");
		parsing->named.count++;
		if (ends_in(map->path, deleted)) {
			map->path[length - strlen(deleted)] = '\0';
			map->flags |= PL_MAP_DELETED;
		}
		if (is_shared(map->path))
			map->flags |= PL_MAP_SHARED;
		names += length + 1;
	}
	return 0;
}

static void read_auxiliary(struct parsing *parsing, const uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i < AUXV_MAX && (i + 1) * 16 <= size; i++) {
		uint64_t entry[2];

		memcpy(entry, bytes + i * 16, sizeof(entry));
		if (entry[0] == AT_RANDOM)
			parsing->stack = entry[1];
		else if (entry[0] == AT_PAGESZ && entry[1] >= PL_PAGE && entry[1] <= PAGE_MAX && !(entry[1] & (entry[1] - 1)))
			parsing->core->page_size = entry[1];
	}
}

static int read_own(struct parsing *parsing, uint32_t type, const uint8_t *bytes, size_t size)
{
	struct core *core = parsing->core;
	struct core_facts_note facts;
	int code;

	if (type == CORE_NOTE_MAPS && !parsing->own.items) {
		core->facts.saved = true;
		code = pl_maps_parse((const char *)bytes, size, &parsing->own);
		return code < 0 ? pl_fail(parsing->err, code, "out of memory") : 0;
	}
	if (type != CORE_NOTE_FACTS || size < sizeof(facts))
		return 0;
	memcpy(&facts, bytes, sizeof(facts));
	core->facts.rss = facts.rss;
	core->facts.free = facts.free;
	core->facts.files = facts.files;
	core->facts.stop_ms = (double)facts.stop_ns / PL_NSEC_PER_MSEC;
	core->space.pid = (pid_t)(facts.pid & INT32_MAX);
	return 0;
}

static int read_note(struct parsing *parsing, const char *name, size_t name_size, uint32_t type, const uint8_t *bytes, size_t size)
{
	int32_t pid;

	if (name_size == sizeof(CORE_NOTE_NAME) && memcmp(name, CORE_NOTE_NAME, sizeof(CORE_NOTE_NAME)) == 0)
		return read_own(parsing, type, bytes, size);
	if (name_size != 5 || memcmp(name, "CORE", 5) != 0)
		return 0;
	parsing->process_known = true;
	switch (type) {
	case NT_FILE:
		return read_files(parsing, bytes, size);
	case NT_PRPSINFO:
		if (size < PRPSINFO_PID + sizeof(pid))
			return 0;
		memcpy(&pid, bytes + PRPSINFO_PID, sizeof(pid));
		parsing->core->space.pid = pid > 0 ? pid : 0;
		return 0;
	case NT_AUXV:
		read_auxiliary(parsing, bytes, size);
		return 0;
	default:
		return 0;
	}
}

static int read_notes(struct parsing *parsing, Elf *elf, const GElf_Phdr *header)
{
	const uint8_t *bytes;
	Elf_Data *data;
	size_t at = 0;

	if (!header->p_filesz)
		return 0;
	if (header->p_filesz > NOTES_MAX)
		return damaged(parsing, "its notes are too long");
	if (header->p_offset > parsing->core->size || header->p_filesz > parsing->core->size - header->p_offset)
		return damaged(parsing, "its notes are cut");
	data = elf_getdata_rawchunk(elf, (int64_t)header->p_offset, header->p_filesz, ELF_T_NHDR);
	if (!data || !data->d_buf)
		return damaged(parsing, "its notes cannot be read");
	bytes = data->d_buf;
	while (at < data->d_size) {
		size_t name, value;
		GElf_Nhdr note;
		int code;

		at = gelf_getnote(data, at, &note, &name, &value);
		if (!at || name > data->d_size || note.n_namesz > data->d_size - name || value > data->d_size ||
			note.n_descsz > data->d_size - value)
			return damaged(parsing, "a note is none");
		code = read_note(parsing, (const char *)bytes + name, note.n_namesz, note.n_type, bytes + value, note.n_descsz);
		if (code < 0)
			return code;
	}
	return 0;
}

static int read_headers(struct parsing *parsing, Elf *elf)
{
	struct core *core = parsing->core;
	int code = 0;
	GElf_Ehdr header;
	size_t count;

	if (elf_kind(elf) != ELF_K_ELF || !gelf_getehdr(elf, &header))
		return pl_fail(parsing->err, -ENOEXEC, "%s is no core file, and no heap that --save wrote", parsing->path);
	if (header.e_type != ET_CORE)
		return pl_fail(parsing->err, -ENOEXEC, "%s is a program or library, not a core file of one", parsing->path);
	if (gelf_getclass(elf) != ELFCLASS64 || header.e_machine != PL_ARCH_ELF_MACHINE)
		return pl_fail(parsing->err, -ENOTSUP, "%s is of another kind of machine: this pyleak reads those of " PL_ARCH_NAME,
			parsing->path);
	if (elf_getphdrnum(elf, &count) < 0 || !count)
		return damaged(parsing, "it has no program headers, or they are cut");
	if (count > CORE_SEGMENTS_MAX)
		return pl_fail(parsing->err, -E2BIG, "%s has %zu segments, more than any process has", parsing->path, count);
	core->segments = calloc(count, sizeof(*core->segments));
	if (!core->segments)
		return pl_fail(parsing->err, -ENOMEM, "out of memory");
	for (size_t i = 0; code == 0 && i < count; i++) {
		GElf_Phdr segment;

		if (!gelf_getphdr(elf, (int)i, &segment))
			return damaged(parsing, "its program headers are cut");
		if (segment.p_type == PT_LOAD)
			code = add_segment(parsing, &segment);
		else if (segment.p_type == PT_NOTE)
			code = read_notes(parsing, elf, &segment);
	}
	if (code < 0)
		return code;
	if (!core->segment_count)
		return damaged(parsing, "it has no memory");
	qsort(core->segments, core->segment_count, sizeof(*core->segments), by_start);
	for (size_t i = 1; i < core->segment_count; i++)
		if (core->segments[i].start < core->segments[i - 1].end)
			return damaged(parsing, "two of its segments overlap");
	return 0;
}

static int add_map(struct core *core, const struct pl_map *map, const char *path)
{
	struct pl_map *added = &core->maps.items[core->maps.count];

	*added = *map;
	added->path = strdup(path);
	if (!added->path)
		return -ENOMEM;
	core->maps.count++;
	return 0;
}

/* What a file was mapped for: as the segment says that is in it. gdb leaves out those that hold nothing of their own; code is
 * the most probable. */
static unsigned int flags_of(const struct core *core, const struct pl_map *file)
{
	size_t at = core_segment_at(core, file->start);

	if (core->segments && at < core->segment_count && core->segments[at].start < file->end)
		return file->flags | core->segments[at].flags;
	return file->flags | PL_MAP_READ | PL_MAP_EXEC;
}

/* From the list of mapped files, and from the segments that belong to none. */
static int make_maps(struct parsing *parsing)
{
	struct core *core = parsing->core;
	size_t file = 0;
	int code = 0;

	for (size_t i = 1; i < parsing->named.count; i++)
		if (parsing->named.items[i].start < parsing->named.items[i - 1].end)
			return damaged(parsing, "its list of mapped files is not in order");
	core->maps.items = calloc(core->segment_count + parsing->named.count + 1, sizeof(*core->maps.items));
	if (!core->maps.items)
		return pl_fail(parsing->err, -ENOMEM, "out of memory");
	for (size_t i = 0; code == 0 && i <= core->segment_count; i++) {
		const struct core_segment *segment = i < core->segment_count ? &core->segments[i] : NULL;
		/* What is not in the file is nowhere. */
		struct pl_map map = { .start = segment ? segment->start : 0, .end = segment ? segment->file_end : 0,
			.flags = segment ? segment->flags : 0 };
		bool is_file = false;

		for (; code == 0 && file < parsing->named.count && (!segment || parsing->named.items[file].start < segment->end); file++) {
			struct pl_map named = parsing->named.items[file];

			named.flags = flags_of(core, &named);
			code = add_map(core, &named, named.path);
		}
		is_file = core->maps.count && core->maps.items[core->maps.count - 1].end > map.start;
		if (code == 0 && segment && !is_file && map.end > map.start)
			code = add_map(core, &map, parsing->stack >= map.start && parsing->stack < map.end ? "[stack]" : "");
	}
	return code < 0 ? pl_fail(parsing->err, code, "out of memory") : 0;
}

/* Those of our own note, once they are what they must be. */
static int take_own_maps(struct parsing *parsing)
{
	struct core *core = parsing->core;
	uint64_t last = 0;

	for (size_t i = 0; i < parsing->own.count; i++) {
		struct pl_map *map = &parsing->own.items[i];

		if (map->start < last || map->start >= map->end || map->start % PL_PAGE || map->end % PL_PAGE || map->offset % PL_PAGE)
			return damaged(parsing, "its list of mappings is not in order");
		last = map->end;
	}
	core->maps = parsing->own;
	parsing->own = (struct pl_maps){ 0 };
	return 0;
}

static uint64_t hash_of(const char *text)
{
	uint64_t hash = UINT64_C(14695981039346656037);

	for (; *text; text++)
		hash = (hash ^ (uint8_t)*text) * UINT64_C(1099511628211);
	return hash ? hash : 1;
}

/* Numbers the files by their names. */
static int number_files(struct parsing *parsing)
{
	struct core *core = parsing->core;
	struct pl_table table = { 0 };
	uint64_t writable = 0;
	int code = 0;

	core->files = calloc(core->maps.count + 1, sizeof(*core->files));
	if (!core->files)
		return pl_fail(parsing->err, -ENOMEM, "out of memory");
	for (size_t i = 0; code == 0 && i < core->maps.count; i++) {
		struct pl_map *map = &core->maps.items[i];
		struct pl_table_entry *entry;

		if ((map->flags & PL_MAP_WRITE) && !(map->flags & PL_MAP_SHARED))
			writable += map->end - map->start;
		map->dev_major = map->dev_minor = 0;
		if (!map->inode)
			continue;
		entry = pl_table_insert(&table, hash_of(map->path));
		if (!entry) {
			code = -ENOMEM;
			break;
		}
		if (!entry->value[0] || strcmp(core->files[entry->value[0] - 1].path, map->path) != 0) {
			core->files[core->file_count++] = (struct core_file){ map->path, -1 };
			entry->value[0] = core->file_count;
		}
		map->inode = entry->value[0];
	}
	pl_table_free(&table);
	if (code < 0)
		return pl_fail(parsing->err, code, "out of memory");
	return writable > WRITABLE_MAX ? damaged(parsing, "it claims more memory than there is") : 0;
}

int core_parse(struct core *core, const char *path, struct pl_error *err)
{
	struct parsing parsing = { .core = core, .path = path, .err = err };
	struct stat status;
	int code;
	Elf *elf;

	if (elf_version(EV_CURRENT) == EV_NONE)
		return pl_fail(err, -ENOSYS, "libelf is older than the header that it was compiled with");
	if (fstat(core->fd, &status) < 0)
		return pl_fail(err, -errno, "%s: %s", path, strerror(errno));
	core->size = (uint64_t)status.st_size;
	core->page_size = PL_PAGE;
	/* Not ELF_C_READ_MMAP: whoever owns the file could truncate it and have us die of SIGBUS. */
	elf = elf_begin(core->fd, ELF_C_READ, NULL);
	if (!elf)
		return pl_fail(err, -ENOEXEC, "%s is no core file, and no heap that --save wrote", path);
	code = read_headers(&parsing, elf);
	(void)elf_end(elf);
	if (code == 0)
		code = parsing.own.items ? take_own_maps(&parsing) : make_maps(&parsing);
	if (code == 0)
		code = number_files(&parsing);
	pl_maps_free(&parsing.named);
	pl_maps_free(&parsing.own);
	return code;
}
