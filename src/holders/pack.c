/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <zstd.h>

#include "image.h"
#include "pyleak/page.h"

/*
 * Parts of an image that are not needed for now are kept packed: numbers and texts as soon as they have been seen, all of it
 * once the graph is made. What is asked for is unpacked where it was.
 */

enum {
	UNIT_SLACK = IMAGE_UNIT / 16384 * 640, /* of a unit that is full: headers of pools, and what no block fits into at their ends */
	LEVEL = -1 /* speed: most of it are the same few words over and over */
};

struct packed {
	uint32_t size;
	uint8_t bytes[];
};

/* The part of a unit that is in the piece. */
static uint8_t *unit_bytes(const struct image_piece *piece, uint64_t unit, uint64_t *ret_length)
{
	uint64_t from = (piece->start / IMAGE_UNIT + unit) * IMAGE_UNIT, to = from + IMAGE_UNIT;

	from = from > piece->start ? from : piece->start;
	to = to < piece->end ? to : piece->end;
	*ret_length = to - from;
	return piece->bytes + (from - piece->start);
}

static uint64_t unit_count(const struct image_piece *piece)
{
	return (piece->end - 1) / IMAGE_UNIT - piece->start / IMAGE_UNIT + 1;
}

/* The first unit from this one on of which something is there. */
static uint64_t next_unit(const struct image_piece *piece, uint64_t unit)
{
	uint64_t length, page;

	if (unit >= unit_count(piece))
		return unit;
	page = image_next(piece, (uint64_t)(unit_bytes(piece, unit, &length) - piece->bytes) / 4096);
	return page < image_pages(piece) ? image_unit(piece, piece->start + page * 4096) : unit_count(piece);
}

/* Whole pages of this kernel's: madvise() takes others as well, up to their ends, with the units that are in them. */
static void give_back(uint8_t *bytes, uint64_t length)
{
	uint64_t size = pl_page_size(), from = ((uint64_t)bytes + size - 1) & ~(size - 1), to = ((uint64_t)bytes + length) & ~(size - 1);

	if (from < to)
		(void)madvise(bytes + (from - (uint64_t)bytes), to - from, MADV_DONTNEED);
}

int image_pack_unit(struct image *image, struct image_piece *piece, uint64_t unit)
{
	uint8_t buffer[ZSTD_COMPRESSBOUND(IMAGE_UNIT)];
	struct packed *packed;
	uint64_t length;
	uint8_t *bytes = unit_bytes(piece, unit, &length);
	size_t size;

	if (!piece->packed) {
		piece->packed = mmap(NULL, unit_count(piece) * sizeof(struct packed *), PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (piece->packed == MAP_FAILED) {
			piece->packed = NULL;
			return -ENOMEM;
		}
	}
	if (!image->packer)
		image->packer = ZSTD_createCCtx();
	if (piece->packed[unit] || !image->packer)
		return image->packer ? 0 : -ENOMEM;
	size = ZSTD_compressCCtx(image->packer, buffer, sizeof(buffer), bytes, length, LEVEL);
	/* Not where it gains little. */
	if (ZSTD_isError(size) || size > length / 4 * 3)
		return 0;
	packed = malloc(sizeof(*packed) + size);
	if (!packed)
		return -ENOMEM;
	packed->size = (uint32_t)size;
	memcpy(packed->bytes, buffer, size);
	piece->packed[unit] = packed;
	give_back(bytes, length);
	return 0;
}

int image_fill_end(struct image *image, struct image_filling *filling)
{
	if (filling->piece && !filling->piece->file && filling->piece->static_end <= filling->piece->start && !filling->not_all &&
		filling->filled >= IMAGE_UNIT - UNIT_SLACK && filling->code == 0)
		filling->code = image_pack_unit(image, filling->piece, filling->unit);
	filling->filled = 0;
	filling->not_all = false;
	return filling->code;
}

void image_fill(struct image *image, struct image_filling *filling, struct image_piece *piece, uint64_t start, uint64_t end,
	bool pack)
{
	while (start < end) {
		uint64_t unit = image_unit(piece, start), next = (start / IMAGE_UNIT + 1) * IMAGE_UNIT;

		if (unit != filling->unit || piece != filling->piece) {
			(void)image_fill_end(image, filling);
			filling->piece = piece;
			filling->unit = unit;
		}
		next = next < end ? next : end;
		filling->filled += next - start;
		filling->not_all |= !pack;
		start = next;
	}
}

int image_pack(struct image *image)
{
	int code = 0;

	for (size_t i = 0; i < image->count; i++) {
		struct image_piece *piece = &image->pieces[i];
		/* Variables of libraries are few, and asked for often. */
		if (piece->file)
			continue;
		for (uint64_t unit = next_unit(piece, 0); code == 0 && unit < unit_count(piece); unit = next_unit(piece, unit + 1))
			code = image_pack_unit(image, piece, unit);
	}
	return code;
}

void image_unpack(struct image_piece *piece, uint64_t unit)
{
	struct packed *packed = piece->packed[unit];
	uint64_t length;
	uint8_t *bytes = unit_bytes(piece, unit, &length);

	/* It is our own, and fits: there is nothing that could go wrong. */
	(void)ZSTD_decompress(bytes, length, packed->bytes, packed->size);
	free(packed);
	piece->packed[unit] = NULL;
}

void image_unpack_all(struct image *image)
{
	for (size_t i = 0; i < image->count; i++) {
		struct image_piece *piece = &image->pieces[i];

		if (!piece->packed)
			continue;
		for (uint64_t unit = next_unit(piece, 0); unit < unit_count(piece); unit = next_unit(piece, unit + 1))
			if (piece->packed[unit])
				image_unpack(piece, unit);
	}
}

void image_pack_free(struct image *image, struct image_piece *piece)
{
	if (piece->packed) {
		for (uint64_t unit = next_unit(piece, 0); unit < unit_count(piece); unit = next_unit(piece, unit + 1))
			free(piece->packed[unit]);
		(void)munmap(piece->packed, unit_count(piece) * sizeof(struct packed *));
	}
	piece->packed = NULL;
	ZSTD_freeCCtx(image->packer);
	image->packer = NULL;
}
