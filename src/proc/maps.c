/* SPDX-License-Identifier: MIT */
#include "pyleak/maps.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"

/* vm.max_map_count is 65530 unless someone raised it; this holds some half a million mappings. */
static const size_t max_text = (size_t)64 << 20;

static int read_text(int fd, char **ret_text, size_t *ret_length)
{
	pl_autofree char *text = NULL;
	size_t length = 0, capacity = 0;

	for (;;) {
		ssize_t got;

		if (length == capacity) {
			char *grown;

			if (capacity >= max_text)
				return -E2BIG;
			capacity = capacity ? 2 * capacity : (size_t)64 << 10;
			grown = realloc(text, capacity);
			if (!grown)
				return -ENOMEM;
			text = grown;
		}
		got = read(fd, text + length, capacity - length);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		length += (size_t)got;
	}
	*ret_text = PL_TAKE(text);
	*ret_length = length;
	return 0;
}

/* Digits of the given base up to `end`, followed by `stop`, which is stepped over. */
static bool take_number(const char **cursor, const char *end, unsigned int base, char stop, uint64_t *ret)
{
	const char *at = *cursor;
	uint64_t value = 0;

	for (; at < end && *at != stop; at++) {
		unsigned int digit = 16;

		if (*at >= '0' && *at <= '9')
			digit = (unsigned int)(*at - '0');
		else if (*at >= 'a' && *at <= 'f')
			digit = (unsigned int)(*at - 'a') + 10;
		if (digit >= base || __builtin_mul_overflow(value, base, &value) ||
			__builtin_add_overflow(value, digit, &value))
			return false;
	}
	if (at == *cursor || at == end)
		return false;
	*cursor = at + 1;
	*ret = value;
	return true;
}

static bool take_flags(const char **cursor, const char *end, unsigned int *ret)
{
	const char *at = *cursor;

	if (end - at < 5 || at[4] != ' ')
		return false;
	*ret = (at[0] == 'r' ? PL_MAP_READ : 0) | (at[1] == 'w' ? PL_MAP_WRITE : 0) | (at[2] == 'x' ? PL_MAP_EXEC : 0) |
	       (at[3] == 's' ? PL_MAP_SHARED : 0);
	*cursor = at + 5;
	return true;
}

/* One line without its newline: "start-end perms offset major:minor inode", spaces, path. 1: malformed. */
static int parse_line(const char *line, size_t length, struct pl_map *map)
{
	static const char deleted[] = " (deleted)";
	const size_t deleted_length = sizeof(deleted) - 1;
	const char *cursor = line, *end = line + length;
	uint64_t major, minor;
	size_t path_length;

	*map = (struct pl_map){0};
	if (!take_number(&cursor, end, 16, '-', &map->start) || !take_number(&cursor, end, 16, ' ', &map->end) ||
		!take_flags(&cursor, end, &map->flags) || !take_number(&cursor, end, 16, ' ', &map->offset) ||
		!take_number(&cursor, end, 16, ':', &major) || !take_number(&cursor, end, 16, ' ', &minor))
		return 1;
	/* The inode ends in a space, or the line, where no name follows. */
	if (!memchr(cursor, ' ', (size_t)(end - cursor))) {
		uint64_t inode = 0;

		if (cursor == end)
			return 1;
		for (; cursor < end; cursor++) {
			if (*cursor < '0' || *cursor > '9' || __builtin_mul_overflow(inode, 10, &inode) ||
				__builtin_add_overflow(inode, (uint64_t)(*cursor - '0'), &inode))
				return 1;
		}
		map->inode = inode;
	} else if (!take_number(&cursor, end, 10, ' ', &map->inode)) {
		return 1;
	}
	if (map->start >= map->end || major > UINT32_MAX || minor > UINT32_MAX)
		return 1;
	map->dev_major = (uint32_t)major;
	map->dev_minor = (uint32_t)minor;
	while (cursor < end && *cursor == ' ')
		cursor++;
	path_length = (size_t)(end - cursor);
	if (path_length > deleted_length && *cursor == '/' &&
		memcmp(end - deleted_length, deleted, deleted_length) == 0) {
		map->flags |= PL_MAP_DELETED;
		path_length -= deleted_length;
	}
	map->path = strndup(cursor, path_length);
	return map->path ? 0 : -ENOMEM;
}

int pl_maps_parse(const char *text, size_t length, struct pl_maps *maps)
{
	const char *end = text + length;
	size_t capacity = 0;

	*maps = (struct pl_maps){0};
	while (text < end) {
		const char *newline = memchr(text, '\n', (size_t)(end - text));
		const char *stop = newline ? newline : end;
		struct pl_map map;
		int r = parse_line(text, (size_t)(stop - text), &map);

		text = newline ? newline + 1 : end;
		if (r < 0)
			return r;
		if (r > 0)
			continue;
		/* The kernel gives the text a page at a time; a mapping that changed in between may come again. */
		if (maps->count && map.start < maps->items[maps->count - 1].end) {
			free(map.path);
			continue;
		}
		if (maps->count == capacity) {
			size_t wanted = capacity ? 2 * capacity : 128;
			struct pl_map *grown = reallocarray(maps->items, wanted, sizeof(*grown));

			if (!grown) {
				free(map.path);
				return -ENOMEM;
			}
			maps->items = grown;
			capacity = wanted;
		}
		maps->items[maps->count++] = map;
	}
	return 0;
}

int pl_maps_read(pid_t pid, struct pl_maps *maps)
{
	pl_autofree char *text = NULL;
	pl_autoclose int fd = -1;
	char path[48];
	size_t length = 0;
	int r;

	*maps = (struct pl_maps){0};
	(void)snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	r = fd < 0 ? -errno : read_text(fd, &text, &length);
	if (r == -ENOENT)
		return -ESRCH;
	if (r == -EACCES)
		return -EPERM;
	if (r < 0)
		return r;
	return pl_maps_parse(text, length, maps);
}

void pl_maps_free(struct pl_maps *maps)
{
	for (size_t i = 0; i < maps->count; i++)
		free(maps->items[i].path);
	free(maps->items);
	*maps = (struct pl_maps){0};
}

uint64_t pl_maps_end(const struct pl_maps *maps)
{
	/* "[vsyscall]" is the kernel's. */
	for (size_t i = maps->count; i > 0; i--)
		if (maps->items[i - 1].end <= INT64_MAX)
			return maps->items[i - 1].end;
	return 0;
}

const struct pl_map *pl_maps_find(const struct pl_maps *maps, uint64_t address)
{
	size_t low = 0, high = maps->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct pl_map *map = &maps->items[middle];

		if (address < map->start)
			high = middle;
		else if (address >= map->end)
			low = middle + 1;
		else
			return map;
	}
	return NULL;
}

uint32_t pl_map_identity(const struct pl_map *map)
{
	uint64_t device = (uint64_t)map->dev_major << 32 | map->dev_minor;
	uint64_t hash = (map->inode ^ device * 0x9e3779b97f4a7c15ULL) * 0x9e3779b97f4a7c15ULL;

	return (uint32_t)(hash >> 32) | 1;
}

bool pl_map_same_file(const struct pl_map *a, const struct pl_map *b)
{
	return a->inode != 0 && a->inode == b->inode && a->dev_major == b->dev_major && a->dev_minor == b->dev_minor;
}
