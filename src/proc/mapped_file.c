/* SPDX-License-Identifier: MIT */
#include "mapped_file.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "pyleak/memory.h"
#include "pyleak/process.h"

static int open_regular(int fd)
{
	struct stat status;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode))
		return fd;
	(void)close(fd);
	return -EINVAL;
}

static bool same_identity(int fd, const struct pl_map *map)
{
	struct stat status;

	return fstat(fd, &status) == 0 && status.st_ino == map->inode && major(status.st_dev) == map->dev_major &&
	       minor(status.st_dev) == map->dev_minor;
}

/*
 * maps and stat(2) name different devices for one file on btrfs, and different inodes too on overlayfs before
 * Linux 6.8 (maps tells of the lower file): every container. There the first page decides: it holds the ELF header, the
 * program headers, and in any modern build the build ID.
 */
static bool same_first_page(pid_t pid, const struct pl_maps *maps, const struct pl_map *map, int fd)
{
	unsigned char mapped[4096], stored[4096];
	const struct pl_map *first = NULL;
	ssize_t length;

	for (size_t i = 0; i < maps->count && maps->items[i].start <= map->start; i++) {
		if (maps->items[i].offset == 0 && pl_map_same_file(&maps->items[i], map))
			first = &maps->items[i];
	}
	if (!first)
		return false;
	length = pread(fd, stored, sizeof(stored), 0);
	return length >= (ssize_t)sizeof(Elf64_Ehdr) &&
	       pl_memory_read(pid, first->start, mapped, (size_t)length) == 0 &&
	       memcmp(mapped, stored, (size_t)length) == 0;
}

static int open_map_file(pid_t pid, const struct pl_map *map)
{
	char path[96];

	(void)snprintf(path, sizeof(path), "/proc/%d/map_files/%lx-%lx", (int)pid, (unsigned long)map->start,
		(unsigned long)map->end);
	return open_regular(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK));
}

static int open_program(pid_t pid)
{
	char path[48];

	(void)snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
	return open_regular(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK));
}

static int open_by_name(pid_t pid, const struct pl_map *map)
{
	int fd = pl_process_open_file(pid, map->path);

	if (fd < 0)
		errno = -fd;
	return open_regular(fd);
}

/* A process in a chroot of our own mount namespace: maps gives its names as seen from our root. */
static int open_by_own_name(const struct pl_map *map)
{
	return open_regular(open(map->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK));
}

int mapped_file_open(pid_t pid, const struct pl_maps *maps, const struct pl_map *map)
{
	int fd;

	if (map->inode == 0)
		return -ENOENT;
	fd = open_map_file(pid, map);
	if (fd >= 0)
		return fd;
	fd = open_program(pid);
	if (fd >= 0 && (same_identity(fd, map) || same_first_page(pid, maps, map, fd)))
		return fd;
	for (int own = 0; own < 2; own++) {
		if (fd >= 0)
			(void)close(fd);
		if (map->path[0] != '/')
			return -ENOENT;
		fd = own ? open_by_own_name(map) : open_by_name(pid, map);
		if (fd < 0)
			continue;
		if (same_identity(fd, map))
			return fd;
		if (!(map->flags & PL_MAP_DELETED) && same_first_page(pid, maps, map, fd))
			return fd;
	}
	if (fd >= 0)
		(void)close(fd);
	return -ENOENT;
}
