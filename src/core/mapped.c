/* SPDX-License-Identifier: MIT */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core_private.h"
#include "pyleak/cleanup.h"

/* The files that a core's process had mapped, where they are now. */

enum { NOT_OPENED = -1, MISSING = -2, ID_MAX = 64, ID_TEXT = 2 * 20 + 1, MISSING_MAX = 1000 };

struct build_id {
	uint8_t bytes[ID_MAX];
	size_t size; /* 0: none */
};

/* The build ID in the first page of an ELF object: compilers and linkers put it there. */
static struct build_id id_of(const uint8_t page[PL_PAGE])
{
	struct build_id id = { .size = 0 };
	Elf64_Ehdr header;

	memcpy(&header, page, sizeof(header));
	if (memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64)
		return id;
	for (size_t i = 0; i < header.e_phnum; i++) {
		Elf64_Phdr segment;
		uint64_t at = header.e_phoff + i * sizeof(segment), end;

		if (header.e_phoff > PL_PAGE || at > PL_PAGE - sizeof(segment))
			break;
		memcpy(&segment, page + at, sizeof(segment));
		if (segment.p_type != PT_NOTE || segment.p_offset >= PL_PAGE || segment.p_offset % 4)
			continue;
		end = segment.p_filesz < PL_PAGE - segment.p_offset ? segment.p_offset + segment.p_filesz : PL_PAGE;
		for (at = segment.p_offset; at + sizeof(Elf64_Nhdr) <= end;) {
			Elf64_Nhdr note;
			uint64_t name, value;

			memcpy(&note, page + at, sizeof(note));
			name = at + sizeof(note);
			value = name + ((note.n_namesz + UINT64_C(3)) & ~UINT64_C(3));
			if (value > end || note.n_descsz > end - value)
				break;
			if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && memcmp(page + name, "GNU", 4) == 0 &&
				note.n_descsz <= ID_MAX) {
				id.size = note.n_descsz;
				memcpy(id.bytes, page + value, id.size);
				return id;
			}
			at = value + ((note.n_descsz + UINT64_C(3)) & ~UINT64_C(3));
		}
	}
	return id;
}

static const char *id_text(const struct build_id *id, char text[ID_TEXT])
{
	size_t size = id->size < (ID_TEXT - 1) / 2 ? id->size : (ID_TEXT - 1) / 2;

	for (size_t i = 0; i < size; i++)
		(void)snprintf(text + 2 * i, 3, "%02x", id->bytes[i]);
	text[2 * size] = '\0';
	return size ? text : "none";
}

/* Nothing in the tree of another machine leads out of it. */
static int open_below(const char *root, const char *path)
{
	pl_autoclose int folder = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct open_how how = { .flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, .resolve = RESOLVE_IN_ROOT };
	pl_autofree char *whole = NULL;
	int fd;

	if (folder < 0)
		return -errno;
	fd = (int)syscall(SYS_openat2, folder, path, &how, sizeof(how));
	if (fd >= 0)
		return fd;
	/* Before Linux 5.6, or within a sandbox that does not know it. */
	if (errno != ENOSYS && errno != EPERM)
		return -errno;
	if (asprintf(&whole, "%s/%s", root, path) < 0)
		return -ENOMEM;
	fd = open(whole, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	return fd < 0 ? -errno : fd;
}

static void __attribute__((format(printf, 3, 4))) note_missing(struct core *core, const char *path, const char *format, ...)
{
	struct pl_core_missing *grown = core->missing_count < MISSING_MAX ?
		reallocarray(core->missing, core->missing_count + 1, sizeof(*grown)) : NULL;

	va_list arguments;

	if (!grown)
		return;
	core->missing = grown;
	grown[core->missing_count].path = path;
	va_start(arguments, format);
	(void)vsnprintf(grown[core->missing_count++].why, sizeof(grown->why), format, arguments);
	va_end(arguments);
}

/* Where the core has the first page of the file. */
static bool first_page(struct core *core, const struct pl_map *map, uint8_t page[PL_PAGE])
{
	for (size_t i = 0; i < core->maps.count && core->maps.items[i].start <= map->start; i++)
		if (core->maps.items[i].offset == 0 && core->maps.items[i].inode == map->inode &&
			core_read_own(core, core->maps.items[i].start, page, PL_PAGE) == PL_PAGE)
			return true;
	return false;
}

static int check(struct core *core, const struct pl_map *map, const char *path, int fd)
{
	uint8_t kept[PL_PAGE], stored[PL_PAGE] = { 0 };
	char one[ID_TEXT], other[ID_TEXT];
	struct build_id kept_id, stored_id;
	struct stat status;

	if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode)) {
		note_missing(core, path, "is no file here");
		return -ENOENT;
	}
	/* Without that nobody knows: but a file of this name there is. */
	if (!first_page(core, map, kept))
		return 0;
	if (pread(fd, stored, sizeof(stored), 0) < 0)
		return -errno;
	kept_id = id_of(kept);
	stored_id = id_of(stored);
	if (kept_id.size ? kept_id.size == stored_id.size && memcmp(kept_id.bytes, stored_id.bytes, kept_id.size) == 0 :
			   memcmp(kept, stored, sizeof(kept)) == 0)
		return 0;
	note_missing(core, path, "is another one here (build ID %s, not %s)", id_text(&stored_id, other), id_text(&kept_id, one));
	return -ENOENT;
}

int core_file_open(struct core *core, const struct pl_map *map)
{
	struct core_file *file;
	int fd;

	if (!map->inode || map->inode > core->file_count)
		return -ENOENT;
	file = &core->files[map->inode - 1];
	if (file->fd != NOT_OPENED)
		return file->fd < 0 ? -ENOENT : file->fd;
	file->fd = MISSING;
	if (file->path[0] != '/')
		return -ENOENT;
	fd = open_below(core->sysroot, file->path);
	if (fd < 0) {
		if (!core->facts.saved)
			note_missing(core, file->path, "is not here (%s)", strerror(-fd));
		return -ENOENT;
	}
	if (check(core, map, file->path, fd) < 0) {
		(void)close(fd);
		return -ENOENT;
	}
	file->fd = fd;
	return fd;
}
