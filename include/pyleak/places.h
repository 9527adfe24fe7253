/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_PLACES_H
#define PYLEAK_PLACES_H

#include <stddef.h>
#include <stdint.h>

#include "pyleak/account.h"

/*
 * What of the resident size lies where: mapped files, shared memory, and memory of the process's own beside Python's arenas,
 * the C library's heaps and the stacks. By name, so that what grew can be named.
 */
enum pl_place_kind {
	PL_PLACE_FILE,    /* a file's pages, as they are on disk or will be: the kernel can drop them */
	PL_PLACE_SHARED,  /* shared memory, tmpfs: it cannot */
	PL_PLACE_DATA,    /* pages of an object or a file that the process has written for itself, .bss too */
	PL_PLACE_OWN,     /* anonymous memory; the name is what the process gave it ("[anon:…]"), or "" */
	PL_PLACE_LARGE,   /* anonymous: a large block of the C library's malloc */
	PL_PLACE_KINDS,
};
struct pl_place {
	enum pl_place_kind kind;
	char *name;           /* a path, or as above */
	int64_t size;         /* bytes in memory; of all but files, but for what rows have there */
	uint64_t start, end;  /* while there is one for each mapping: see pl_places_merge() */
};
struct pl_places {
	struct pl_place *items; /* by kind and name */
	size_t count;
	int64_t shared_tracked; /* bytes of shared memory that rows have */
	int64_t heap_tracked; /* bytes of tracked blocks in the C library's heaps; below 0: not known */
};

void pl_places_free(struct pl_places *places);
int pl_places_copy(const struct pl_places *places, struct pl_places *ret); /* 0, -ENOMEM */
/* One item for each kind and name. */
void pl_places_merge(struct pl_places *places);
/* Adds those of another process; both merged. 0, -ENOMEM. */
int pl_places_add(struct pl_places *sum, const struct pl_places *one);

/* What grew between two moments, largest first. The names are those of `now` or `before`. */
enum { PL_PLACES_GROWN = 16 };
struct pl_places_growth {
	struct pl_place items[PL_PLACES_GROWN]; /* size: by how much, perhaps below 0 */
	size_t count;
	int64_t own; /* of DATA, OWN and LARGE together: memory that is in no row */
};
void pl_places_grown(const struct pl_places *before, const struct pl_places *now, struct pl_places_growth *ret);

/* Takes what the places explain out of the unexplained rest: memory of the process's own in no row, and what is in use in
 * the C library's heap without being in a row. NULL: not known, and nothing is taken. */
void pl_places_explain(const struct pl_places *before, const struct pl_places *now, const struct pl_account *account_before,
		       const struct pl_account *account_now, struct pl_rss_growth *growth, struct pl_places_growth *ret);

#endif
