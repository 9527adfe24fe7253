/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HOLDERS_IMAGE_H
#define PYLEAK_HOLDERS_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "pyleak/error.h"
#include "pyleak/space.h"

/*
 * The writable memory of a process as it was at one moment. Pieces are sorted and lie where the mappings lay; what was not
 * in memory reads as zeros. Objects are marked in it: a bit for each 8 bytes, so that an address leads to the number
 * of its object without a table.
 */
struct image_piece {
	uint64_t start, end;  /* multiples of PAGE */
	uint8_t *bytes;       /* end − start */
	uint8_t *state;       /* of each page: enum page_state */
	uint8_t *parts;       /* of each part: 1, some of its pages are, or were, not absent */
	uint64_t *marks;      /* 8 words for each page; NULL until image_marks() */
	struct packed **packed; /* of each unit (pack.c): what has its bytes; NULL: they are where they belong */
	uint32_t *first;      /* of each page: the number of the first object that begins in it or later */
	bool file, heap, stack; /* it shows a file; it is [heap]; a stack of the kernel's making */
	uint64_t static_end;    /* up to here it is .bss of a file's: an arena can lie right behind, in the same mapping */
	bool owned;           /* bytes are this process's own mapping (not a file's) */
	char *path;
};
/* A reservation of a terabyte has 2^28 pages: they are not gone through one by one (image_next()). */
enum { IMAGE_PART = 1024 /* pages */ };
enum page_state { PAGE_ABSENT, PAGE_COPIED, PAGE_PLAIN /* copied once, and nothing in it can be a pointer */ };

struct image {
	struct pl_space *space; /* borrowed: its read-only memory is read when it is asked for */
	struct image_piece *pieces;
	size_t count;
	uint64_t copied; /* bytes, in the last copy */
	struct image_piece *last; /* the one that was found last */
	struct ZSTD_CCtx_s *packer;
};

/*
 * Copies the writable private memory of a space, as far as it is there. Called twice: while the process runs, which brings our
 * own memory into being and says how long it takes, and once more while it is stopped. The second time pages are left out
 * that lie in large runs without a pointer (pixels, texts, numbers). 0, -ESRCH, -EPERM, -ENOMEM.
 */
int image_copy(struct image *image, bool again);
void image_free(struct image *image);
/* The pages that are there, in runs. */
int image_runs(const struct image *image, struct pl_memory_piece **ret, size_t *ret_count);

/* Variables of the program and of libraries: what a file has there, and the part behind that has none. */
static inline bool is_static(const struct image_piece *piece, uint64_t address)
{
	return piece->file || address < piece->static_end;
}

static inline uint64_t image_pages(const struct image_piece *piece)
{
	return (piece->end - piece->start) / 4096;
}

/* The first page from this one on that is there; image_pages(): none is. */
static inline uint64_t image_next(const struct image_piece *piece, uint64_t page)
{
	const uint64_t count = image_pages(piece);

	while (page < count) {
		const uint8_t *part = piece->parts + page / IMAGE_PART;

		if (*part) {
			if (piece->state[page] != PAGE_ABSENT)
				return page;
			page++;
			continue;
		}
		part = memchr(part, 1, (count - 1) / IMAGE_PART + 1 - page / IMAGE_PART);
		page = part ? (uint64_t)(part - piece->parts) * IMAGE_PART : count;
	}
	return count;
}

/* The piece that an address lies in, or NULL. */
static inline struct image_piece *image_find(struct image *image, uint64_t address)
{
	size_t low = 0, high = image->count;

	if (image->last && address >= image->last->start && address < image->last->end)
		return image->last;
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (image->pieces[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == image->count || image->pieces[low].start > address)
		return NULL;
	return image->last = &image->pieces[low];
}

/* Units of an image, which begin at multiples of their size, as pymalloc's pools do; each can be packed by itself. No kernel's
 * page is larger: pages are given back as wholes. */
enum { IMAGE_UNIT = PL_PAGE_MAX > 16384 ? PL_PAGE_MAX : 16384 };
static inline uint64_t image_unit(const struct image_piece *piece, uint64_t address)
{
	return address / IMAGE_UNIT - piece->start / IMAGE_UNIT;
}
/* -ENOMEM. Whoever goes on reads by image_at(), or calls image_need() before. */
int image_pack_unit(struct image *image, struct image_piece *piece, uint64_t unit);
/* Packs those units that are full of what is told, in ascending order, and all of which may be packed. */
struct image_filling {
	struct image_piece *piece;
	uint64_t unit, filled;
	bool not_all;
	int code;
};
void image_fill(struct image *image, struct image_filling *filling, struct image_piece *piece, uint64_t start, uint64_t end,
	bool pack);
int image_fill_end(struct image *image, struct image_filling *filling);
int image_pack(struct image *image); /* all that is no library's */
void image_unpack(struct image_piece *piece, uint64_t unit);
void image_unpack_all(struct image *image);
void image_pack_free(struct image *image, struct image_piece *piece);

/* Brings back what is packed of a range that begins in the piece. */
static inline void image_need(struct image_piece *piece, uint64_t address, uint64_t length)
{
	uint64_t unit, last;

	if (!piece->packed || !length)
		return;
	last = length < piece->end - address ? address + length - 1 : piece->end - 1;
	last = image_unit(piece, last);
	for (unit = image_unit(piece, address); unit <= last; unit++)
		if (piece->packed[unit])
			image_unpack(piece, unit);
}

/* `length` bytes at an address in one piece, or NULL. */
/* Whether all of it is there; nothing is unpacked for that, however much it is. */
static inline bool image_has(struct image *image, uint64_t address, uint64_t length)
{
	const struct image_piece *piece = image_find(image, address);

	return piece && length <= piece->end - address;
}

static inline const uint8_t *image_at(struct image *image, uint64_t address, uint64_t length)
{
	struct image_piece *piece = image_find(image, address);

	if (!piece || length > piece->end - address)
		return NULL;
	image_need(piece, address, length);
	return piece->bytes + (address - piece->start);
}

static inline uint64_t word_of(const uint8_t *bytes, uint64_t offset)
{
	uint64_t word;

	memcpy(&word, bytes + offset, sizeof(word));
	return word;
}

static inline uint32_t half_of(const uint8_t *bytes, uint64_t offset)
{
	uint32_t word;

	memcpy(&word, bytes + offset, sizeof(word));
	return word;
}

/* 0 where there is nothing. */
static inline uint64_t image_word(struct image *image, uint64_t address)
{
	const uint8_t *bytes = image_at(image, address, 8);

	return bytes ? word_of(bytes, 0) : 0;
}

/* From the pieces, or from read-only memory. */
bool image_read(struct image *image, uint64_t address, void *buffer, size_t length);
/* A C string of at most max − 1 bytes. False: there is none. */
bool image_text(struct image *image, uint64_t address, char *text, size_t max);

/* Where the numbers of objects are kept: image_marks(), then image_mark() for each object in ascending order, then
 * image_number(), which numbers them from `first` on and returns the number after the last. */
int image_marks(struct image *image);
static inline void image_mark(struct image_piece *piece, uint64_t address)
{
	uint64_t slot = (address - piece->start) / 8;

	piece->marks[slot / 64] |= UINT64_C(1) << slot % 64;
}
/* Forgets the marks of a piece. */
void image_unmark(struct image_piece *piece);
uint32_t image_number(struct image *image, uint32_t first);

#define NO_OBJECT UINT32_MAX
/* The number of the object that begins at an address; NO_OBJECT: none does. */
static inline uint32_t image_object(struct image *image, uint64_t address)
{
	const struct image_piece *piece;
	const uint64_t *marks;
	uint64_t page, slot;
	uint32_t number;

	if (address % 8 || address < 4096)
		return NO_OBJECT;
	piece = image_find(image, address);
	if (!piece)
		return NO_OBJECT;
	page = (address - piece->start) / 4096;
	slot = (address - piece->start) / 8 % 512;
	marks = piece->marks + page * 8;
	if (!(marks[slot / 64] >> slot % 64 & 1))
		return NO_OBJECT;
	number = piece->first[page];
	for (uint64_t i = 0; i < slot / 64; i++)
		number += (uint32_t)__builtin_popcountll(marks[i]);
	return number + (uint32_t)__builtin_popcountll(marks[slot / 64] & ((UINT64_C(1) << slot % 64) - 1));
}

#endif
