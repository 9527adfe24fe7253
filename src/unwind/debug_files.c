/* SPDX-License-Identifier: MIT */
#include <elfutils/libdw.h>
#include <elfutils/libdwelf.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "pyleak/cleanup.h"
#include "pyleak/process.h"
#include "unwind_private.h"

/*
 * Where the debug information of an object is, if not in itself. libdwfl has a search of its own (find-debuginfo.c in
 * elfutils), which this follows, but for three things: it asks servers of the environment's choice ($DEBUGINFOD_URLS) and
 * waits for them; it opens whatever the object names, a FIFO too, and waits for that; and it does so with our rights and in
 * our file system, where the name is the process's to choose.
 */

#define DEBUG_FOLDER "/usr/lib/debug"
#define CHECKED_MAX (INT64_C(1) << 30) /* of a file whose checksum is to be made */

/* The debug file that an object or a debug file wants. */
struct wanted {
	const struct pl_unwinder *unwinder;
	const void *id; /* its build ID; NULL: not known */
	size_t id_size;
	uint32_t checksum; /* 0: not known */
};

static bool has_id(int fd, const struct wanted *wanted)
{
	Elf *elf = elf_begin(fd, ELF_C_READ_MMAP_PRIVATE, NULL);
	const void *id;
	bool same = elf && dwelf_elf_gnu_build_id(elf, &id) == (ssize_t)wanted->id_size &&
		    memcmp(id, wanted->id, wanted->id_size) == 0;

	(void)elf_end(elf);
	return same;
}

/* CRC-32 as zlib has it, of the whole file: what .gnu_debuglink says. */
static bool has_checksum(int fd, const struct wanted *wanted)
{
	static unsigned char bytes[65536];
	struct stat status;
	unsigned long sum = crc32(0, NULL, 0);
	ssize_t got;

	if (fstat(fd, &status) < 0 || status.st_size > CHECKED_MAX)
		return false;
	for (off_t at = 0; (got = pread(fd, bytes, sizeof(bytes), at)) > 0; at += got)
		sum = crc32(sum, bytes, (unsigned int)got);
	return got == 0 && sum == wanted->checksum;
}

/* As the process sees it, and if it is where a distribution puts it, as we do. A name alone proves nothing. */
static int try(const struct wanted *wanted, const char *path, char **ret_path)
{
	bool ours = strncmp(path, DEBUG_FOLDER "/", sizeof(DEBUG_FOLDER)) == 0;

	for (int own = 0; own <= ours; own++) {
		int fd = own ? pl_process_open_file(getpid(), path) : pl_process_open_file_as(wanted->unwinder->space->pid, path);

		if (fd < 0)
			continue;
		if ((wanted->id_size ? has_id(fd, wanted) : wanted->checksum && has_checksum(fd, wanted)) &&
			(*ret_path = strdup(path)))
			return fd;
		(void)close(fd);
	}
	return -1;
}

static int __attribute__((format(printf, 3, 4))) try_made(
	const struct wanted *wanted, char **ret_path, const char *format, ...)
{
	char path[PATH_MAX];
	va_list arguments;

	va_start(arguments, format);

	int length = vsnprintf(path, sizeof(path), format, arguments);

	va_end(arguments);
	return length < 0 || (size_t)length >= sizeof(path) ? -1 : try(wanted, path, ret_path);
}

static int try_id(const struct wanted *wanted, char **ret_path)
{
	static const char prefix[] = DEBUG_FOLDER "/.build-id/";
	const unsigned char *id = wanted->id;
	char path[sizeof(prefix) + 2 * 64 + sizeof("/.debug")];
	size_t length = sizeof(prefix) - 1;

	if (wanted->id_size < 3 || wanted->id_size > 64)
		return -1;
	memcpy(path, prefix, length);
	for (size_t i = 0; i < wanted->id_size; i++)
		length += (size_t)sprintf(path + length, i == 1 ? "/%02x" : "%02x", id[i]);
	memcpy(path + length, ".debug", sizeof(".debug"));
	return try(wanted, path, ret_path);
}

/* By the name in .gnu_debuglink, or one that is usual. */
static int try_beside(const struct wanted *wanted, const char *object, const char *link, char **ret_path)
{
	const char *slash = strrchr(object, '/'), *dot = link ? "" : ".debug";
	int folder = slash ? (int)(slash - object) : 0, fd;

	if (!slash)
		return -1;
	if (!link)
		link = slash + 1;
	fd = try_made(wanted, ret_path, "%.*s/%s%s", folder, object, link, dot);
	if (fd < 0)
		fd = try_made(wanted, ret_path, "%.*s/.debug/%s%s", folder, object, link, dot);
	return fd < 0 ? try_made(wanted, ret_path, DEBUG_FOLDER "%.*s/%s%s", folder, object, link, dot) : fd;
}

/* What several debug files share (dwz): named in .gnu_debugaltlink of the one that was found, with its build ID. */
static int try_shared(struct wanted *wanted, const char *debug_file, const char *link, char **ret_path)
{
	const char *slash = strrchr(debug_file, '/'), *base = strrchr(link, '/'), *name;
	pl_autoclose int debug_fd = pl_process_open_file_as(wanted->unwinder->space->pid, debug_file);
	Dwarf *dwarf;
	ssize_t size;
	int fd = -1;

	if (debug_fd < 0)
		debug_fd = pl_process_open_file(getpid(), debug_file);
	dwarf = debug_fd < 0 ? NULL : dwarf_begin(debug_fd, DWARF_C_READ);
	if (!dwarf)
		return -1;
	size = dwelf_dwarf_gnu_debugaltlink(dwarf, &name, &wanted->id);
	wanted->id_size = size > 0 ? (size_t)size : 0;
	if (wanted->id_size && link[0] == '/')
		fd = try(wanted, link, ret_path);
	else if (wanted->id_size && slash)
		fd = try_made(wanted, ret_path, "%.*s/%s", (int)(slash - debug_file), debug_file, link);
	if (wanted->id_size && fd < 0)
		fd = try_made(wanted, ret_path, DEBUG_FOLDER "/.dwz/%s", base ? base + 1 : link);
	if (fd < 0)
		fd = try_id(wanted, ret_path);
	(void)dwarf_end(dwarf);
	return fd;
}

int unwinder_find_debug_file(Dwfl_Module *module, void **user, const char *name, Dwarf_Addr base, const char *object,
	const char *link, GElf_Word checksum, char **ret_path)
{
	const struct pl_unwinder *unwinder = *user;
	struct wanted wanted = {.unwinder = unwinder, .checksum = checksum};
	const unsigned char *id;
	const char *debug_file = NULL;
	GElf_Addr at;
	int size, fd;

	if (!unwinder || !module)
		return -1;
	/* It has a debug file already, and that wants another one. */
	(void)dwfl_module_info(module, NULL, NULL, NULL, NULL, NULL, NULL, &debug_file);
	if (debug_file && link)
		return try_shared(&wanted, debug_file, link, ret_path);
	size = dwfl_module_build_id(module, &id, &at);
	wanted.id = id;
	wanted.id_size = size > 0 ? (size_t)size : 0;
	fd = try_id(&wanted, ret_path);
	return fd < 0 && name[0] == '/' ? try_beside(&wanted, name, link, ret_path) : fd;
}
