/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_SPACE_H
#define PYLEAK_SPACE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "pyleak/maps.h"
#include "pyleak/memory.h"
#include "pyleak/resident.h"

/*
 * An address space to be read: that of a live process, or of anything else that has kept one (a copy in memory, a core
 * file). The rooms that read structs of the interpreter, ELF objects and heaps take one of these, and do not know which
 * kind it is. Those that stop or change a process have its pid.
 *
 * Everything read is hostile. What a live space says is true at the moment it is read, piece by piece; one that is not
 * live does not change.
 *
 * A kind is a struct that begins with a struct pl_space, and a struct pl_space_kind:
 */
struct pl_space;
struct pl_space_kind {
	/* As much as is there from `address` on: the number of bytes (maybe 0), or -errno as pl_memory_read_some(). */
	ssize_t (*read_some)(struct pl_space *space, uint64_t address, void *buffer, size_t length);
	/* Many small pieces, all or nothing. NULL: they are read one by one. */
	int (*read_pieces)(struct pl_space *space, const struct pl_memory_piece *pieces, size_t count);
	/* See pl_space_pages(): with PL_SWAPPED for what is only to be had from swap. */
	int (*pages)(struct pl_space *space, struct pl_range range, uint8_t *pages);
	/* See pl_space_next(). NULL: it is found by `pages`. */
	int (*next)(struct pl_space *space, struct pl_range range, struct pl_range *ret);
	int (*maps)(struct pl_space *space, struct pl_maps *ret);
	/* See pl_space_open_mapped(). */
	int (*open_mapped)(struct pl_space *space, const struct pl_maps *maps, const struct pl_map *map);
	void (*close)(struct pl_space *space);
};
struct pl_space {
	const struct pl_space_kind *kind;
	pid_t pid;     /* of the process that it is, or was */
	char name[64]; /* for messages: "process 4711", "core.4711" */
};

/* That of a live process. Opens nothing yet. 0 or -ENOMEM. */
int pl_space_of_process(pid_t pid, struct pl_space **ret);
void pl_space_close(struct pl_space *space); /* NULL is allowed */

/* Exactly length bytes. 0; -EFAULT: (partly) not there; -ESRCH: gone; -EPERM. */
int pl_space_read(struct pl_space *space, uint64_t address, void *buffer, size_t length);
/* As much as is there: the number of bytes (maybe 0), or -errno as above. */
ssize_t pl_space_read_some(struct pl_space *space, uint64_t address, void *buffer, size_t length);
/* All or nothing; of a live process in one system call. */
int pl_space_read_pieces(struct pl_space *space, const struct pl_memory_piece *pieces, size_t count);

static inline int pl_space_read_u64(struct pl_space *space, uint64_t address, uint64_t *ret)
{
	return pl_space_read(space, address, ret, sizeof(*ret));
}

/* One byte for each page of the range: 1, it is there to be read; 0, it is not, or (live) only from swap. 0 or -errno
 * (-ESRCH, -EPERM); of an empty range, whether that can be had at all. */
int pl_space_pages(struct pl_space *space, struct pl_range range, uint8_t *pages);
/* The same, but what has been swapped out counts as there: reading it takes the time that the swap takes. */
int pl_space_pages_or_swapped(struct pl_space *space, struct pl_range range, uint8_t *pages);

/* The first pages of the range that are there to be read, swapped out or not, or some of them; it begins at the end of
 * the range if there are none. For large ranges that are no file's, of which little is there: see pl_resident_runs().
 * 0 or -errno. */
int pl_space_next(struct pl_space *space, struct pl_range range, struct pl_range *ret);

/* What is mapped; free it with pl_maps_free(), also after an error. 0, -ESRCH, -EPERM, -ENOMEM. */
int pl_space_maps(struct pl_space *space, struct pl_maps *ret);

/*
 * The file that `map` (of `maps`) shows, read-only: a descriptor, or -errno (-ENOENT: none that is this very file can be
 * had). Of a live process it is opened by what is mapped, not by what the name leads to: first /proc/PID/map_files/…,
 * then /proc/PID/exe for the main program, then /proc/PID/root/<path> if device and inode, or the first page, agree.
 */
int pl_space_open_mapped(struct pl_space *space, const struct pl_maps *maps, const struct pl_map *map);

#endif
