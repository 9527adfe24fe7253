/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core_private.h"
#include "pyleak/cleanup.h"

/* The space of a core file. */

/* What a file shows at an address. */
static size_t read_mapped(struct core *core, uint64_t address, void *buffer, size_t length)
{
	const struct pl_map *map = pl_maps_find(&core->maps, address);
	size_t next, got;
	struct stat status;
	int fd;

	if (!map || !map->inode)
		return 0;
	/* Up to where the core itself has something. */
	next = core_segment_at(core, address);
	if (next < core->segment_count && core->segments[next].start <= address)
		next++;
	if (length > map->end - address)
		length = map->end - address;
	if (next < core->segment_count && length > core->segments[next].start - address)
		length = core->segments[next].start - address;
	fd = core_file_open(core, map);
	if (fd < 0)
		return 0;
	got = core_read_file(fd, map->offset + (address - map->start), buffer, length);
	/* Behind the end of a file its last page has zeros. */
	if (got < length && fstat(fd, &status) == 0) {
		const uint64_t size = (uint64_t)status.st_size, at = map->offset + (address - map->start) + got;
		const uint64_t end = (size + core->page_size - 1) & ~(core->page_size - 1);

		if (at >= size && at < end) {
			size_t zeros = end - at < length - got ? end - at : length - got;

			memset((char *)buffer + got, 0, zeros);
			got += zeros;
		}
	}
	return got;
}

static ssize_t core_read_some(struct pl_space *space, uint64_t address, void *buffer, size_t length)
{
	struct core *core = (struct core *)space;
	size_t done = 0;

	if (length > SSIZE_MAX)
		return -EINVAL;
	while (done < length && address + done >= address) {
		size_t got = (size_t)core_read_own(core, address + done, (char *)buffer + done, length - done);

		if (!got)
			got = read_mapped(core, address + done, (char *)buffer + done, length - done);
		if (!got)
			break;
		done += got;
	}
	return (ssize_t)done;
}

/* A hole in the file is a page that was never touched. */
static void mark_data(const struct core *core, const struct core_segment *segment, struct pl_range range, uint8_t *pages)
{
	uint64_t from = segment->start > range.start ? segment->start : range.start;
	uint64_t to = segment->file_end < range.end ? segment->file_end : range.end;

	while (from < to) {
		off_t offset = (off_t)(segment->offset + (from - segment->start));
		off_t data = lseek(core->fd, offset, SEEK_DATA), hole;
		uint64_t begin, end;

		if (data < 0 && errno == ENXIO)
			return;
		hole = data < 0 ? -1 : lseek(core->fd, data, SEEK_HOLE);
		begin = data < 0 ? from : from + (uint64_t)(data - offset);
		end = hole < 0 ? to : from + (uint64_t)(hole - offset);
		if (end > to)
			end = to;
		for (uint64_t at = begin & ~(uint64_t)(PL_PAGE - 1); at < end; at += PL_PAGE)
			if (at >= range.start)
				pages[(at - range.start) / PL_PAGE] = PL_RESIDENT;
		from = end > from ? end : to;
	}
}

static void mark_mapped(struct core *core, struct pl_range range, uint8_t *pages)
{
	uint64_t at = range.start;

	while (at < range.end) {
		const struct pl_map *map = pl_maps_find(&core->maps, at);
		uint64_t end = map && map->end < range.end ? map->end : range.end;
		uint8_t byte;

		/* Whether the core has it is asked first: what it has as a hole is zeros, whatever the file says. */
		for (; map && map->inode && at < end; at += PL_PAGE) {
			size_t segment = core_segment_at(core, at);
			bool own = segment < core->segment_count && core->segments[segment].start <= at &&
				at < core->segments[segment].file_end;

			if (!own && read_mapped(core, at, &byte, 1))
				pages[(at - range.start) / PL_PAGE] = PL_RESIDENT;
		}
		at = end > at ? end : at;
		if (!map)
			return;
	}
}

static int core_pages(struct pl_space *space, struct pl_range range, uint8_t *pages)
{
	struct core *core = (struct core *)space;

	memset(pages, 0, (range.end - range.start) / PL_PAGE);
	for (size_t i = core_segment_at(core, range.start); i < core->segment_count && core->segments[i].start < range.end; i++)
		mark_data(core, &core->segments[i], range, pages);
	mark_mapped(core, range, pages);
	return 0;
}

static int core_maps(struct pl_space *space, struct pl_maps *ret)
{
	const struct pl_maps *maps = &((struct core *)space)->maps;

	*ret = (struct pl_maps){ .items = calloc(maps->count + 1, sizeof(*ret->items)) };
	if (!ret->items)
		return -ENOMEM;
	for (size_t i = 0; i < maps->count; i++) {
		ret->items[i] = maps->items[i];
		ret->items[i].path = strdup(maps->items[i].path);
		if (!ret->items[i].path)
			return -ENOMEM;
		ret->count++;
	}
	return 0;
}

static int core_open_mapped(struct pl_space *space, const struct pl_maps *maps, const struct pl_map *map)
{
	int fd = core_file_open((struct core *)space, map);

	(void)maps;
	if (fd < 0)
		return fd;
	fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return fd < 0 ? -errno : fd;
}

static void core_close(struct pl_space *space)
{
	struct core *core = (struct core *)space;

	for (size_t i = 0; i < core->file_count; i++)
		if (core->files[i].fd >= 0)
			(void)close(core->files[i].fd);
	if (core->fd >= 0)
		(void)close(core->fd);
	pl_maps_free(&core->maps);
	free(core->files);
	free(core->missing);
	free(core->segments);
	free(core->sysroot);
	free(core);
}

static const struct pl_space_kind core_kind = {
	.read_some = core_read_some,
	.pages = core_pages,
	.maps = core_maps,
	.open_mapped = core_open_mapped,
	.close = core_close,
};

int pl_space_of_core(const char *path, const char *sysroot, struct pl_space **ret, struct pl_error *err)
{
	struct core *core = calloc(1, sizeof(*core));
	const char *last = strrchr(path, '/');
	struct stat status;
	int code = 0;

	if (!core)
		return pl_fail(err, -ENOMEM, "out of memory");
	core->space.kind = &core_kind;
	(void)snprintf(core->space.name, sizeof(core->space.name), "%s", last && last[1] ? last + 1 : path);
	core->sysroot = strdup(sysroot ? sysroot : "/");
	/* Not a FIFO that nobody writes to. */
	core->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (core->fd < 0 || fstat(core->fd, &status) < 0)
		code = pl_fail(err, -errno, "%s: %s", path, strerror(errno));
	else if (!S_ISREG(status.st_mode))
		code = pl_fail(err, -EINVAL, "%s is not a regular file", path);
	else if (!core->sysroot)
		code = pl_fail(err, -ENOMEM, "out of memory");
	if (code == 0)
		code = core_unpack(&core->fd, path, err);
	if (code == 0)
		code = core_parse(core, path, err);
	if (code < 0) {
		core_close(&core->space);
		return code;
	}
	*ret = &core->space;
	return 0;
}

size_t pl_core_missing(const struct pl_space *space, const struct pl_core_missing **ret)
{
	const struct core *core = (const struct core *)space;

	*ret = core->missing;
	return core->missing_count;
}

void pl_core_facts(const struct pl_space *space, struct pl_core_facts *ret)
{
	*ret = ((const struct core *)space)->facts;
}
