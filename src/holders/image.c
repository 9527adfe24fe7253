/* SPDX-License-Identifier: MIT */
#include "image.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pyleak/cleanup.h"
#include "pyleak/memory.h"
#include "pyleak/resident.h"

enum {
	AT_ONCE = 1024,        /* pages that are read in one piece */
	PLAIN_RUN_MIN = 32,    /* pages: a shorter run of plain ones is copied again, for what may be written into it */
	PIECES_MAX = 1 << 18,
	HEADERS_MAX = 32,
};
/* Reservations of address space larger than this are no heap (and sanitizers' shadows are). */
#define PIECE_MAX (UINT64_C(1) << 42)

static bool is_wanted(const struct pl_map *map)
{
	return (map->flags & PL_MAP_READ) && (map->flags & PL_MAP_WRITE) && !(map->flags & PL_MAP_SHARED) &&
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

static void piece_free(struct image_piece *piece)
{
	uint64_t pages = (piece->end - piece->start) / PL_PAGE;

	if (piece->owned)
		release(piece->bytes, piece->end - piece->start);
	release(piece->state, pages);
	release(piece->marks, pages * 64);
	release(piece->first, pages * sizeof(*piece->first));
	free(piece->path);
}

void image_free(struct image *image)
{
	for (size_t i = 0; i < image->count; i++)
		piece_free(&image->pieces[i]);
	free(image->pieces);
	*image = (struct image){ 0 };
}

/* Takes what was copied before of the same mapping, which may have grown since. */
static bool take_over(struct image *image, struct image_piece *piece)
{
	struct image_piece *old = image_find(image, piece->start);
	uint64_t before, now = piece->end - piece->start;
	void *bytes, *state;

	if (!old || old->start != piece->start || !old->bytes)
		return false;
	before = old->end - old->start;
	if (before != now) {
		bytes = mremap(old->bytes, before, now, MREMAP_MAYMOVE);
		if (bytes == MAP_FAILED)
			return false;
		old->bytes = bytes;
		old->end = piece->end;
		state = reserve(now / PL_PAGE);
		if (state)
			memcpy(state, old->state, (before < now ? before : now) / PL_PAGE);
		release(old->state, before / PL_PAGE);
		old->state = state;
	}
	piece->bytes = old->bytes;
	piece->state = old->state;
	old->bytes = NULL;
	old->state = NULL;
	return piece->state != NULL;
}

/* Where the object that a file's mapping belongs to ends in memory; 0: not known. */
static uint64_t static_end(const struct image *image, const struct pl_maps *maps, size_t at)
{
	const struct pl_map *first = &maps->items[at];
	uint64_t low = UINT64_MAX, high = 0;
	Elf64_Phdr headers[HEADERS_MAX];
	Elf64_Ehdr header;

	while (at > 0 && (first->offset || !first->inode)) {
		first = &maps->items[--at];
		if (first->inode && first->offset == 0 && first->start < maps->items[at + 1].start)
			break;
	}
	if (first->offset || image->read_only(image, first->start, &header, sizeof(header)) != sizeof(header) ||
		memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || !header.e_phnum || header.e_phnum > HEADERS_MAX ||
		header.e_phentsize != sizeof(headers[0]) ||
		image->read_only(image, first->start + header.e_phoff, headers, header.e_phnum * sizeof(headers[0])) !=
			(ssize_t)(header.e_phnum * sizeof(headers[0])))
		return 0;
	for (size_t i = 0; i < header.e_phnum; i++) {
		if (headers[i].p_type != PT_LOAD)
			continue;
		if (headers[i].p_vaddr < low)
			low = headers[i].p_vaddr;
		if (headers[i].p_vaddr + headers[i].p_memsz > high)
			high = headers[i].p_vaddr + headers[i].p_memsz;
	}
	return high > low && high - low < PIECE_MAX ? first->start + (high - (low & ~(uint64_t)(PL_PAGE - 1))) : 0;
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

		if (!is_wanted(map))
			continue;
		*piece = (struct image_piece){ .start = map->start, .end = map->end, .file = map->inode != 0, .owned = true,
			.heap = strcmp(map->path, "[heap]") == 0, .stack = strcmp(map->path, "[stack]") == 0,
			.path = strdup(map->path) };
		if (i > 0 && !map->inode && !map->path[0] && map->start == maps->items[i - 1].end && maps->items[i - 1].inode)
			piece->static_end = static_end(image, maps, i - 1);
		*ret_count = ++count;
		if (!take_over(image, piece)) {
			piece->bytes = reserve(map->end - map->start);
			piece->state = reserve((map->end - map->start) / PL_PAGE);
		}
		if (!piece->bytes || !piece->state || !piece->path)
			return -ENOMEM;
	}
	return 0;
}

/* A word that can be an address of what a process allocates. */
static bool can_point(uint64_t word)
{
	return word - 4096 < (UINT64_C(1) << 47) - 4096 && word >= UINT64_C(1) << 20 && word % 8 == 0;
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
	ssize_t got = pl_memory_read_some(image->pid, piece->start + page * PL_PAGE, piece->bytes + page * PL_PAGE,
		length * PL_PAGE);

	if (got < 0)
		return got == -EFAULT ? 0 : (int)got;
	image->copied += (uint64_t)got;
	memset(piece->state + page, PAGE_COPIED, (size_t)got / PL_PAGE);
	return 0;
}

static int copy_piece(struct image *image, struct image_piece *piece, int pagemap, bool again)
{
	uint8_t present[AT_ONCE], leave[AT_ONCE];
	uint64_t count = (piece->end - piece->start) / PL_PAGE;

	for (uint64_t at = 0; at < count; at += AT_ONCE) {
		uint64_t length = count - at < AT_ONCE ? count - at : AT_ONCE, run;
		const struct pl_range range = { piece->start + at * PL_PAGE, piece->start + (at + length) * PL_PAGE };
		int code = pl_resident_pages(pagemap, range, present);

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
				if (!present[i])
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

static ssize_t read_process(const struct image *image, uint64_t address, void *buffer, size_t length)
{
	return pl_memory_read_some(image->pid, address, buffer, length);
}

int image_copy(struct image *image, bool again)
{
	pl_autoclose int pagemap = pl_resident_open(image->pid);
	struct image_piece *pieces = NULL;
	struct pl_maps maps = { 0 };
	size_t count = 0;
	int code = pagemap < 0 ? pagemap : pl_maps_read(image->pid, &maps);

	image->read_only = read_process;
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
		code = copy_piece(image, &pieces[i], pagemap, again);
	return code;
}

bool image_read(struct image *image, uint64_t address, void *buffer, size_t length)
{
	const uint8_t *bytes = image_at(image, address, length);

	if (bytes) {
		memcpy(buffer, bytes, length);
		return true;
	}
	return image->read_only && image->read_only(image, address, buffer, length) == (ssize_t)length;
}

bool image_text(struct image *image, uint64_t address, char *text, size_t max)
{
	const struct image_piece *piece = image_find(image, address);
	ssize_t got;

	if (piece) {
		got = (ssize_t)(max - 1 < piece->end - address ? max - 1 : piece->end - address);
		memcpy(text, piece->bytes + (address - piece->start), (size_t)got);
	} else {
		got = image->read_only ? image->read_only(image, address, text, max - 1) : -1;
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
		uint64_t pages = (piece->end - piece->start) / PL_PAGE;

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

		for (uint64_t page = 0; page < (piece->end - piece->start) / PL_PAGE; page++) {
			if (piece->state[page] == PAGE_ABSENT)
				continue;
			piece->first[page] = number;
			for (int word = 0; word < 8; word++)
				number += (uint32_t)__builtin_popcountll(piece->marks[page * 8 + word]);
		}
	}
	return number;
}

void image_unmark(struct image_piece *piece)
{
	for (uint64_t page = 0; page < (piece->end - piece->start) / PL_PAGE; page++)
		if (piece->state[page] != PAGE_ABSENT)
			memset(piece->marks + page * 8, 0, 64);
}
