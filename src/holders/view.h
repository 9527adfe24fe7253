/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HOLDERS_VIEW_H
#define PYLEAK_HOLDERS_VIEW_H

#include "image.h"
#include "pyleak/graph.h"
#include "pyleak/heap_layout.h"
#include "pyleak/python.h"
#include "pyleak/table.h"

/*
 * The objects in an image, by number: 1 is the one with the lowest address. (0 is what holds all roots: see graph.h.)
 *
 * An object is known by its header: it names its type, which must be one in every respect; its count of references is
 * plausible; the collector's header before it, if its type has one, is linked with neighbours that link back. All of the
 * image is looked through, so it does not matter which allocator gave the memory out.
 */

enum kind {
	KIND_OTHER, KIND_LIST, KIND_TUPLE, KIND_DICT, KIND_SET, KIND_TEXT, KIND_BYTES, KIND_INT, KIND_TYPE, KIND_WEAK,
	KIND_FRAME, KIND_GENERATOR, KIND_DEQUE, KIND_CACHE, KIND_CACHE_LINK, KIND_MEMORYVIEW, KIND_CONTEXTVAR, KIND_CYTHON,
	KIND_ENUMERATE, KIND_MODULE, KIND_ARRAY, KIND_BYTEARRAY, KIND_NDARRAY, KIND_CODE, KIND_FUNCTION, KIND_CELL, KIND_PLAIN,
	KIND_TIME,
	KIND_BUILTIN, /* its words that lead to no object lead to nothing of its own */
};

/* tp_flags */
#define FLAG_INLINE_VALUES (UINT64_C(1) << 2) /* 3.13+ */
#define FLAG_MANAGED_WEAKREF (UINT64_C(1) << 3)
#define FLAG_MANAGED_DICT (UINT64_C(1) << 4)
#define FLAG_HEAP_TYPE (UINT64_C(1) << 9)
#define FLAG_READY (UINT64_C(1) << 12)
#define FLAG_COLLECTED (UINT64_C(1) << 14)
#define FLAG_INT (UINT64_C(1) << 24)
#define FLAG_LIST (UINT64_C(1) << 25)
#define FLAG_TUPLE (UINT64_C(1) << 26)
#define FLAG_BYTES (UINT64_C(1) << 27)
#define FLAG_TEXT (UINT64_C(1) << 28)
#define FLAG_DICT (UINT64_C(1) << 29)
#define FLAG_TYPE (UINT64_C(1) << 31)

struct type {
	uint64_t address, flags, basic_size, item_size, base;
	int64_t weak_list, dict; /* tp_weaklistoffset, tp_dictoffset: 0, none */
	enum kind kind;
	char *name;       /* tp_name; of a class its module's name before it */
	uint32_t object;  /* its own number, or NO_OBJECT */
};

/* Where objects lie is told by the marks of the image, page by page: it takes no room for each of them. */
struct object_pages {
	uint32_t count, capacity;
	struct object_page {
		uint64_t start;
		const uint64_t *marks; /* MARKS words; NULL: of number 0, which is none */
		uint32_t first;        /* object */
	} *items;
	/* The page that was asked for last, whose objects are `from` to `to`: where in it each of them lies, in 8 bytes. */
	uint32_t last, from, to;
	uint64_t start;
	uint16_t slots[512];
};
enum { MARKS = 8 };

struct view {
	const struct pl_python *python;
	struct pl_heap_layout layout;
	struct image *image;
	bool glibc; /* chunks of its malloc tell how large a block is */

	struct pl_table known; /* address → 1 + place in types; 0: it is none */
	struct type *types;
	uint32_t type_count, type_capacity;
	uint64_t metatype;

	uint32_t count;       /* of objects, number 0 included */
	struct object_pages *pages; /* with objects in them; see address_of() */
	uint32_t *type_of;    /* place in types */
	uint32_t *sizes;      /* with header and what it owns; UINT32_MAX at most */
	uint8_t *rest;        /* references that are counted and not found, until the roots have been found; see edges.h */
	struct pl_table many; /* and of those that have very many: object → how many */
	struct pl_graph graph;
	uint64_t *atoms;      /* a bit for each: what refers to nothing, and never ends (None, small numbers): nobody holds it */
	uint32_t interned;    /* the dict of interned strings; 0: not seen */
	struct pl_table claimed; /* blocks that an object owns, by their address */
	struct torn {
		uint64_t addresses[16];
		uint32_t count; /* at most those */
	} torn; /* containers that were being resized: not all that they count was there */
	bool blocks_known;    /* what fills no block is no object */
	uint32_t no_blocks;
	bool numbered;        /* the image knows the objects' numbers */
	bool failed;          /* out of memory */
};

/* The type at an address; NULL: none is there. Pointers hold until the next call. */
struct type *type_at(struct view *view, uint64_t address);
void types_free(struct view *view);

/* Finds all objects: fills pages, type_of, rest, and sizes of the objects alone. */
int objects_find(struct view *view);

/* Whether an object fills a block of an allocator's that is known, as it must: there are things that only look like objects
 * (on stacks; what was moved away and lies there still). */
bool fills_block(const struct view *view, const struct image_piece *piece, uint64_t address, const struct type *type);

/* References that an object counts; REFERENCES_IMMORTAL; 0: it is none that is alive. */
#define REFERENCES_IMMORTAL INT64_MAX
int64_t references_of(const struct view *view, const uint8_t *object);

/* Bytes that an object of this type has at least: a type written in C, which may be the last of its library's data, has less
 * than what classes have. */
static inline uint64_t least_size(const struct view *view, const struct type *type)
{
	return type->kind == KIND_TYPE ? (uint64_t)view->layout.type_size : type->basic_size;
}
/* Bytes of an object without the headers before it, 0 if that cannot be; `left` are there. */
uint64_t body_size(struct view *view, const struct type *type, const uint8_t *object, uint64_t left);
/* Whether the collector has a header before it: types written in C have none, whatever `type` says. */
bool has_collector(const struct view *view, const struct type *type, const uint8_t *object);
/* Bytes of the headers before an object of this type. */
uint32_t headers_size(const struct view *view, const struct type *type, const uint8_t *object);

static inline const struct type *type_of(const struct view *view, uint32_t object)
{
	return &view->types[view->type_of[object]];
}

/* The next object lies at an address, in ascending order; only number 0 is in no piece. -ENOMEM. */
int place_object(struct view *view, const struct image_piece *piece, uint64_t address);
/* Makes the page that an object lies on the last one. */
void turn_page(struct object_pages *pages, uint32_t object);

static inline uint64_t address_of(const struct view *view, uint32_t object)
{
	struct object_pages *pages = view->pages;

	if (object - pages->from >= pages->to - pages->from)
		turn_page(pages, object);
	return pages->start + (uint64_t)pages->slots[object - pages->from] * 8;
}

/* ob_size */
static inline int64_t items_of(const struct view *view, const uint8_t *object)
{
	return (int64_t)word_of(object, (uint64_t)view->layout.head);
}

/* 3.11+: slots that the frame of a code object has: locals, and its stack. */
uint64_t frame_slots(struct view *view, uint64_t code);

/* A table of keys of a dict. */
struct keys {
	uint64_t entries;  /* address of the first */
	uint64_t count;    /* of entries that were used at some time */
	uint64_t usable;   /* and of those that may yet be */
	uint32_t stride, key, value; /* of an entry: bytes, and where key and value are in it */
	uint64_t size;     /* of the table */
};
bool keys_read(const struct view *view, uint64_t address, struct keys *ret);
/* That of a dict. While one is made larger, its entries are not counted: then as many as the dict has. */
bool keys_of_dict(const struct view *view, const uint8_t *object, struct keys *ret);

/* The size of the block in use of pymalloc's or malloc's that begins at an address; 0: none does that is known. *ret_usable, if
 * it is wanted: how much of it is whoever's it is. */
uint64_t block_size(const struct view *view, uint64_t address, uint64_t *ret_usable);
/* Whether an object begins in a block of so many bytes, behind the headers that one can have. */
bool block_has_object(const struct view *view, uint64_t address, uint64_t usable);

/* How many bytes an array or an ndarray itself says that its data have; 0: none that are its own. */
uint64_t data_size(const struct view *view, const struct type *type, const uint8_t *object);

/* Notes a container of which not all was there that it counts: it was being resized, or only looks so. */
void torn_note(struct view *view, uint64_t address, uint64_t counted, uint64_t there);
/* Whether one of those is another one by now, in a process that goes on. */
bool torn_is_other_now(struct view *view);

/* Which blocks of a pool of pymalloc's are free. */
struct pool_map {
	uint64_t start, end; /* of its blocks; end is that of the pool */
	uint32_t size;       /* of a block */
	uint64_t free[32];   /* a bit for each */
};
/* False: there is no pool at the address; `end` is where the next could be. */
bool pool_map(const struct view *view, uint64_t address, struct pool_map *ret);

static inline bool pool_has_free(const struct pool_map *map, uint64_t address)
{
	uint64_t number = (address - map->start) / map->size;

	return address >= map->start && number < 64 * sizeof(map->free) / sizeof(map->free[0]) && (map->free[number / 64] >> number % 64 & 1);
}

#endif
