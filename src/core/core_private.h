/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CORE_PRIVATE_H
#define PYLEAK_CORE_PRIVATE_H

#include "pyleak/core.h"

/* The notes that our own cores have beside the usual ones. */
#define CORE_NOTE_NAME "PYLEAK"
enum { CORE_NOTE_MAPS = 1 /* /proc/PID/maps */, CORE_NOTE_FACTS = 2 /* struct core_facts_note */ };
struct core_facts_note {
	uint64_t pid, rss, free, files, stop_ns;
};

enum { CORE_SEGMENTS_MAX = 1 << 20 };
/* Bytes of a file that is mapped. */
struct core_segment {
	uint64_t start, end, file_end; /* addresses; up to file_end it is in the file */
	uint64_t offset;
	unsigned int flags;            /* enum pl_map_flags */
};

/* A file that was mapped, by its number: pl_map.inode is 1 + that. */
struct core_file {
	const char *path;
	int fd; /* -1: not opened yet; -2: it cannot be had */
};

struct core {
	struct pl_space space;
	int fd;
	uint64_t size;
	uint64_t page_size; /* of the kernel that the process had */
	char *sysroot;
	struct core_segment *segments; /* sorted, none overlaps another */
	size_t segment_count;
	struct pl_maps maps;
	struct core_file *files;
	size_t file_count;
	struct pl_core_missing *missing;
	size_t missing_count;
	struct pl_core_facts facts;
};

/* As much as there is. */
size_t core_read_file(int fd, uint64_t offset, void *buffer, size_t length);
/* Reads what there is in the file itself, no more: as much as there is from `address` on. */
ssize_t core_read_own(struct core *core, uint64_t address, void *buffer, size_t length);
/* The first segment that ends behind an address; its place may be segment_count. */
size_t core_segment_at(const struct core *core, uint64_t address);

/* A descriptor, which stays the core's; -ENOENT: it cannot be had, and is among the missing ones. */
int core_file_open(struct core *core, const struct pl_map *map);

/* Program headers and notes: fills segments, maps, files, facts. */
int core_parse(struct core *core, const char *path, struct pl_error *err);

/* If the file is packed, *fd becomes that of a file without a name that has it unpacked. */
int core_unpack(int *fd, const char *path, struct pl_error *err);

#endif
