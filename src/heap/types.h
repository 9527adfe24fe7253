/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HEAP_TYPES_H
#define PYLEAK_HEAP_TYPES_H

#include "blocks.h"
#include "pyleak/table.h"

/* The types that objects were found to be of, by their address. */

enum type_contents { CONTENTS_NONE, CONTENTS_AT_16, CONTENTS_AT_24, CONTENTS_AT_32, CONTENTS_AT_40, CONTENTS_DICT };

struct type {
	char *name;
	uint64_t flags, basic_size;
	enum type_contents contents;
	uint64_t count, size;
};

struct types {
	const struct pl_python *python;
	const struct pl_maps *maps;
	uint64_t metatype;      /* &PyType_Type */
	struct pl_table known;  /* address → 1 + its place in items; 0: it is no type */
	struct type *items;
	size_t count, capacity;
	bool failed; /* out of memory */
};

/* 0 or -errno; release in any case. */
int types_open(struct types *types, const struct pl_python *python, const struct pl_maps *maps);
void types_close(struct types *types);

/* Where in a block an object begins, and its type; NULL: there is none in it. */
struct type *types_of_block(struct types *types, const struct block *block, size_t *ret_offset);

/* Addresses of memory that belongs to the object alone; how many. */
enum { CONTENTS_MAX = 3 };
size_t types_contents(const struct types *types, const struct type *type, const struct block *block, size_t offset,
		      uint64_t addresses[CONTENTS_MAX]);

#endif
