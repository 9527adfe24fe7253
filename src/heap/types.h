/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HEAP_TYPES_H
#define PYLEAK_HEAP_TYPES_H

#include "blocks.h"
#include "pyleak/table.h"

/* The types that objects were found to be of, by their address. */

/* What an object has beside its own block. */
enum type_contents {
	CONTENTS_NONE,
	CONTENTS_AT_16, /* what the word there points to; … */
	CONTENTS_AT_24,
	CONTENTS_AT_32,
	CONTENTS_AT_40,
	CONTENTS_WORDS, /* what any of its words points to, as far as that is no object */
	CONTENTS_DICT,
	CONTENTS_DEQUE,
	CONTENTS_ORDERED,
};
#define FLAG_MANAGED_DICT (UINT64_C(1) << 4)
/* By the type's name, and by its flags. */
enum type_contents contents_named(const char *name);
enum type_contents contents_flagged(uint64_t flags);

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
	struct link_page *pages; /* of the collector's links that were read last */
};

/* 0 or -errno; release in any case. */
int types_open(struct types *types, const struct pl_python *python, const struct pl_maps *maps);
void types_close(struct types *types);

/* Where in a block an object begins, and its type; NULL: there is none in it. */
struct type *types_of_block(struct types *types, const struct block *block, size_t *ret_offset);

/* Calls `own` with the addresses of memory that belongs to the object alone. */
struct contents_visitor {
	void (*own)(void *context, uint64_t address);
	void *context;
	uint64_t links_left; /* of chains that may yet be followed, in all */
};
void contents_visit(const struct types *types, const struct type *type, const struct block *block, size_t offset,
		    struct contents_visitor *visitor);

#endif
