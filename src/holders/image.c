/* SPDX-License-Identifier: MIT */
#include "image.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pyleak/cleanup.h"
#include "pyleak/page.h"
#include "pyleak/probe.h"

enum {
	AT_ONCE = IMAGE_PART,  /* pages that are read in one piece */
	PLAIN_RUN_MIN = 32,    /* pages: a shorter run of plain ones is copied again, for what may be written into it */
	PIECES_MAX = 1 << 18,
	HEADERS_MAX = 32,
};
/* Reservations of address space larger than this are no heap (and sanitizers' shadows are). */
#define PIECE_MAX (UINT64_C(1) << 42)
/* Of a mapping with more pages most may be nothing: what is there is asked for first. */
#define SPARSE_MIN (UINT64_C(1) << 18)

/* Tables of a probe in it are pyleak's: much address space, and full of what looks like addresses. */
static bool is_ours(const struct pl_maps *maps, const struct pl_map *map)
{
	if (pl_maps_end(maps) <= PL_PROBE_BASE)
		return map->start >= PL_PROBE_LOW_BASE &&
			map->start < PL_PROBE_LOW_TABLES_BASE + PL_PROBE_LOW_PLACES * (uint64_t)PL_PROBE_LOW_TABLES_STRIDE;
	return (map->start >= PL_PROBE_BASE && map->start - PL_PROBE_BASE < PL_PROBE_PLACES * (uint64_t)PL_PROBE_STRIDE) ||
		(map->start >= PL_PROBE_TABLES_BASE &&
			map->start - PL_PROBE_TABLES_BASE < PL_PROBE_PLACES * (uint64_t)PL_PROBE_TABLES_STRIDE);
}

static bool is_wanted(const struct pl_maps *maps, const struct pl_map *map)
{
	return !is_ours(maps, map) && (map->flags & PL_MAP_READ) && (map->flags & PL_MAP_WRITE) && !(map->flags & PL_MAP_SHARED) &&
		map->end - map->start <= PIECE_MAX;
}

static void *reserve(uint64_t length)
{
	void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

static void release(void *memory, uint64_t length)
{
	if (memory)
		(void)munmap(memory, length);
}

static uint64_t part_count(uint64_t pages)
{
	return (pages + IMAGE_PART - 1) / IMAGE_PART;
}

/* Both for each page and for each part. */
static void reserve_states(struct image_piece *piece)
{
	piece->state = reserve(image_pages(piece));
	piece->parts = reserve(part_count(image_pages(piece)));
}

static void piece_free(struct image_piece *piece)
{
	uint64_t pages = image_pages(piece);

	if (piece->owned)
		release(piece->bytes, piece->end - piece->start);
	release(piece->state, pages);
	release(piece->parts, part_count(pages));
	release(piece->marks, pages * 64);
	release(piece->first, pages * sizeof(*piece->first));
	free(piece->path);
}

void image_free(struct image *image)
{
	for (size_t i = 0; i < image->count; i++) {
		image_pack_free(image, &image->pieces[i]);
		piece_free(&image->pieces[i]);
	}
	free(image->pieces);
	*image = (struct image){ 0 };
}

/* Of a mapping that was larger or smaller. */
static void take_states(struct image_piece *piece, const struct image_piece *old, uint64_t before)
{
	const uint64_t pages = before / PL_PAGE < image_pages(piece) ? before / PL_PAGE : image_pages(piece);

	memcpy(piece->parts, old->parts, part_count(pages));
	for (uint64_t part = 0; part < part_count(pages); part++) {
		const uint64_t from = part * IMAGE_PART, length = pages - from < IMAGE_PART ? pages - from : IMAGE_PART;

		if (piece->parts[part])
			memcpy(piece->state + from, old->state + from, length);
	}
}

/* Takes what was copied before of the same mapping, which may have grown since. */
static bool take_over(struct image *image, struct image_piece *piece)
{
	struct image_piece *old = image_find(image, piece->start);
	uint64_t before, now = piece->end - piece->start;
	void *bytes;

	if (!old || old->start != piece->start || !old->bytes)
		return false;
	before = old->end - old->start;
	if (before != now) {
		bytes = mremap(old->bytes, before, now, MREMAP_MAYMOVE);
		if (bytes == MAP_FAILED)
			return false;
		old->bytes = bytes;
		old->end = piece->end;
		reserve_states(piece);
		if (piece->state && piece->parts)
			take_states(piece, old, before);
		release(old->state, before / PL_PAGE);
		release(old->parts, part_count(before / PL_PAGE));
	} else {
		piece->state = old->state;
		piece->parts = old->parts;
	}
	piece->bytes = old->bytes;
	old->bytes = NULL;
	old->state = NULL;
	old->parts = NULL;
	return piece->state && piece->parts;
}

/* Where the object that a file's mapping belongs to ends in memory; 0: not known. */
static uint64_t static_end(struct image *image, const struct pl_maps *maps, size_t at)
{
	const struct pl_map *first = &maps->items[at];
	uint64_t low = UINT64_MAX, low_offset = 0, high = 0;
	Elf64_Phdr headers[HEADERS_MAX];
	Elf64_Ehdr header;

	while (at > 0 && (first->offset || !first->inode)) {
		first = &maps->items[--at];
		if (first->inode && first->offset == 0 && first->start < maps->items[at + 1].start)
			break;
	}
	if (first->offset || pl_space_read(image->space, first->start, &header, sizeof(header)) < 0 ||
		memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || !header.e_phnum || header.e_phnum > HEADERS_MAX ||
		header.e_phentsize != sizeof(headers[0]) ||
		pl_space_read(image->space, first->start + header.e_phoff, headers, header.e_phnum * sizeof(headers[0])) < 0)
		return 0;
	for (size_t i = 0; i < header.e_phnum; i++) {
		if (headers[i].p_type != PT_LOAD)
			continue;
		if (headers[i].p_vaddr < low) {
			low = headers[i].p_vaddr;
			low_offset = headers[i].p_offset;
		}
		if (headers[i].p_vaddr + headers[i].p_memsz > high)
			high = headers[i].p_vaddr + headers[i].p_memsz;
	}
	return high > low && high - low < PIECE_MAX ? first->start + low_offset + (high - low) : 0;
}

static int make_pieces(struct image *image, const struct pl_maps *maps, struct image_piece **ret, size_t *ret_count)
{
	struct image_piece *pieces = calloc(maps->count + 1, sizeof(*pieces));
	size_t count = 0;

	if (!pieces)
		return -ENOMEM;
	*ret = pieces;
	for (size_t i = 0; i < maps->count && count < PIECES_MAX; i++) {
		const struct pl_map *map = &maps->items[i];
		struct image_piece *piece = &pieces[count];

		if (!is_wanted(maps, map))
			continue;
		*piece = (struct image_piece){ .start = map->start, .end = map->end, .file = map->inode != 0, .owned = true,
			.heap = strcmp(map->path, "[heap]") == 0, .stack = strcmp(map->path, "[stack]") == 0,
			.path = strdup(map->path) };
		if (i > 0 && !map->inode && !map->path[0] && map->start == maps->items[i - 1].end && maps->items[i - 1].inode)
			piece->static_end = static_end(image, maps, i - 1);
		*ret_count = ++count;
		if (!take_over(image, piece)) {
			piece->bytes = reserve(map->end - map->start);
			reserve_states(piece);
		}
		if (!piece->bytes || !piece->state || !piece->parts || !piece->path)
			return -ENOMEM;
	}
	return 0;
}

/* A word that can be an address of what a process allocates. */
static bool can_point(uint64_t word)
{
	return word - 4096 < (UINT64_C(1) << PL_ADDRESS_BITS) - 4096 && word >= UINT64_C(1) << 20 && word % 8 == 0;
}

/* Whether a page has something in it, and nothing that can be a pointer. */
static bool is_plain(const uint8_t *page)
{
	uint64_t any = 0;

	for (size_t i = 0; i < PL_PAGE; i += 8) {
		uint64_t word = word_of(page, i);

		any |= word;
		if (can_point(word))
			return false;
	}
	return any != 0;
}

static bool in_plain_run(const uint8_t *state, uint64_t page, uint64_t count)
{
	uint64_t before = 0, after = 0;

	while (before < PLAIN_RUN_MIN && before <= page && state[page - before] == PAGE_PLAIN)
		before++;
	while (after < PLAIN_RUN_MIN && page + after < count && state[page + after] == PAGE_PLAIN)
		after++;
	return before + after > PLAIN_RUN_MIN;
}

static int copy_run(struct image *image, struct image_piece *piece, uint64_t page, uint64_t length)
{
	ssize_t got = pl_space_read_some(image->space, piece->start + page * PL_PAGE, piece->bytes + page * PL_PAGE,
		length * PL_PAGE);

	if (got < 0)
		return got == -EFAULT ? 0 : (int)got;
	image->copied += (uint64_t)got;
	memset(piece->state + page, PAGE_COPIED, (size_t)got / PL_PAGE);
	if (got >= PL_PAGE)
		piece->parts[page / IMAGE_PART] = 1;
	return 0;
}

static int copy_piece(struct image *image, struct image_piece *piece, bool again)
{
	uint8_t present[AT_ONCE] = { 0 }, leave[AT_ONCE];
	uint64_t count = image_pages(piece);
	struct pl_range there = { piece->start, piece->file || count < SPARSE_MIN ? piece->end : piece->start };

	for (uint64_t at = 0; at < count; at += AT_ONCE) {
		uint64_t length = count - at < AT_ONCE ? count - at : AT_ONCE, run;
		const struct pl_range range = { piece->start + at * PL_PAGE, piece->start + (at + length) * PL_PAGE };
		int code = 0;

		if (range.start >= there.end)
			code = pl_space_next(image->space, (struct pl_range){ range.start, piece->end }, &there);
		if (code == 0 && range.end <= there.start && !piece->parts[at / IMAGE_PART])
			continue;
		if (code == 0)
			code = pl_space_pages_or_swapped(image->space, range, present);
		if (code < 0)
			return code;
		for (uint64_t i = 0; i < length; i++) {
			leave[i] = !present[i] || (again && piece->state[at + i] == PAGE_PLAIN && in_plain_run(piece->state, at + i, count));
			/* It was given back meanwhile. */
			if (!present[i] && piece->state[at + i] != PAGE_ABSENT)
				memset(piece->bytes + (at + i) * PL_PAGE, 0, PL_PAGE);
		}
		for (uint64_t i = 0; i < length; i += run) {
			run = 1;
			if (leave[i]) {
				/* Where it is so already, its own page need not be there either. */
				if (!present[i] && piece->state[at + i] != PAGE_ABSENT)
					piece->state[at + i] = PAGE_ABSENT;
				continue;
			}
			while (i + run < length && !leave[i + run])
				run++;
			code = copy_run(image, piece, at + i, run);
			if (code < 0)
				return code;
		}
		for (uint64_t i = 0; !again && i < length; i++)
			if (piece->state[at + i] == PAGE_COPIED && is_plain(piece->bytes + (at + i) * PL_PAGE))
				piece->state[at + i] = PAGE_PLAIN;
	}
	return 0;
}

int image_copy(struct image *image, bool again)
{
	struct image_piece *pieces = NULL;
	struct pl_maps maps = { 0 };
	size_t count = 0;
	int code = pl_space_maps(image->space, &maps);

	/* Before the new ones take over what the old ones have. */
	for (size_t i = 0; i < image->count; i++)
		image_pack_free(image, &image->pieces[i]);
	if (code == 0)
		code = make_pieces(image, &maps, &pieces, &count);
	pl_maps_free(&maps);
	for (size_t i = 0; i < image->count; i++)
		piece_free(&image->pieces[i]);
	free(image->pieces);
	image->pieces = pieces;
	image->count = count;
	image->last = NULL;
	image->copied = 0;
	for (size_t i = 0; code == 0 && i < count; i++)
		code = copy_piece(image, &pieces[i], again);
	return code;
}

int image_runs(const struct image *image, struct pl_memory_piece **ret, size_t *ret_count)
{
	struct pl_memory_piece *runs = NULL;
	size_t count = 0, capacity = 0;

	for (size_t i = 0; i < image->count; i++) {
		const struct image_piece *piece = &image->pieces[i];
		uint64_t pages = image_pages(piece), run;

		for (uint64_t page = image_next(piece, 0); page < pages; page = image_next(piece, page + run)) {
			run = 1;
			while (page + run < pages && piece->state[page + run] != PAGE_ABSENT)
				run++;
			if (count == capacity) {
				struct pl_memory_piece *grown;

				capacity = capacity ? 2 * capacity : 1024;
				grown = reallocarray(runs, capacity, sizeof(*grown));
				if (!grown) {
					free(runs);
					return -ENOMEM;
				}
				runs = grown;
			}
			runs[count++] = (struct pl_memory_piece){ piece->start + page * PL_PAGE, piece->bytes + page * PL_PAGE, run * PL_PAGE };
		}
	}
	*ret = runs;
	*ret_count = count;
	return 0;
}

bool image_read(struct image *image, uint64_t address, void *buffer, size_t length)
{
	const uint8_t *bytes = image_at(image, address, length);

	if (bytes) {
		memcpy(buffer, bytes, length);
		return true;
	}
	return pl_space_read(image->space, address, buffer, length) == 0;
}

bool image_text(struct image *image, uint64_t address, char *text, size_t max)
{
	struct image_piece *piece = image_find(image, address);
	ssize_t got;

	if (piece) {
		got = (ssize_t)(max - 1 < piece->end - address ? max - 1 : piece->end - address);
		image_need(piece, address, (uint64_t)got);
		memcpy(text, piece->bytes + (address - piece->start), (size_t)got);
	} else {
		got = pl_space_read_some(image->space, address, text, max - 1);
	}
	if (got <= 0)
		return false;
	text[got] = '\0';
	return true;
}

int image_marks(struct image *image)
{
	for (size_t i = 0; i < image->count; i++) {
		struct image_piece *piece = &image->pieces[i];
		uint64_t pages = image_pages(piece);

		piece->marks = reserve(pages * 64);
		piece->first = reserve(pages * sizeof(*piece->first));
		if (!piece->marks || !piece->first)
			return -ENOMEM;
	}
	return 0;
}

uint32_t image_number(struct image *image, uint32_t first)
{
	uint32_t number = first;

	for (size_t i = 0; i < image->count; i++) {
		struct image_piece *piece = &image->pieces[i];

		for (uint64_t page = image_next(piece, 0); page < image_pages(piece); page = image_next(piece, page + 1)) {
			piece->first[page] = number;
			for (int word = 0; word < 8; word++)
				number += (uint32_t)__builtin_popcountll(piece->marks[page * 8 + word]);
		}
	}
	return number;
}

void image_unmark(struct image_piece *piece)
{
	for (uint64_t page = image_next(piece, 0); page < image_pages(piece); page = image_next(piece, page + 1))
		memset(piece->marks + page * 8, 0, 64);
}
