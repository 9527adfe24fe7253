/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_MAPS_H
#define PYLEAK_MAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* /proc/PID/maps, parsed. Sorted by address, as the kernel prints it. */

enum pl_map_flags {
	PL_MAP_READ = 1 << 0,
	PL_MAP_WRITE = 1 << 1,
	PL_MAP_EXEC = 1 << 2,
	PL_MAP_SHARED = 1 << 3,
	PL_MAP_DELETED = 1 << 4, /* the kernel appended " (deleted)", which is not part of path */
};

struct pl_map {
	uint64_t start, end; /* [start, end) */
	uint64_t offset;     /* in the file, bytes */
	uint64_t inode;      /* 0: anonymous */
	uint32_t dev_major, dev_minor;
	unsigned int flags;
	char *path; /* owned by the pl_maps; "" for unnamed, "[heap]", "[stack]", "/…" as the tracee names it */
};

struct pl_maps {
	struct pl_map *items;
	size_t count;
};

/* Fills *maps from /proc/PID/maps; free it with pl_maps_free(), also after an error. */
int pl_maps_read(pid_t pid, struct pl_maps *maps);
/* The same from text (which need not end in NUL). -EINVAL names no line: a malformed line is skipped. */
int pl_maps_parse(const char *text, size_t length, struct pl_maps *maps);
void pl_maps_free(struct pl_maps *maps);

/* Bytes that the process may still map: by its RLIMIT_AS, and by the kernel where it does not
 * overcommit. UINT64_MAX: no limit. */
uint64_t pl_address_space_left(pid_t pid);

/* The end of the last of the program's mappings: near it ends what may be mapped at all (the stack is there). */
uint64_t pl_maps_end(const struct pl_maps *maps);
/* The mapping that contains address, or NULL. */
const struct pl_map *pl_maps_find(const struct pl_maps *maps, uint64_t address);
/* A number, not 0, for the file that a mapping shows, to be compared with one that was kept. */
uint32_t pl_map_identity(const struct pl_map *map);
/* Writable memory with no file behind it. */
static inline bool pl_map_is_anonymous(const struct pl_map *map)
{
	return (map->flags & PL_MAP_WRITE) && !(map->flags & PL_MAP_SHARED) && !map->inode;
}
/* Whether two mappings show the same file (device and inode, not the name). */
bool pl_map_same_file(const struct pl_map *a, const struct pl_map *b);

#endif
