/* SPDX-License-Identifier: MIT */
#include "pyleak/landing.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "pyleak/memory.h"
#include "words.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

_Static_assert(sizeof(struct pl_landing_header) == 64, "room for later versions");
_Static_assert(sizeof(struct pl_landing_header) + PL_LANDING_CAPACITY * sizeof(struct pl_landing_row) <= PL_LANDING_STUBS,
	"the rows fit in front of the stubs");
_Static_assert(PL_LANDING_STUBS + PL_LANDING_CAPACITY * PL_LANDING_STUB_SIZE <= PL_LANDING_WORDS, "the stubs fit");
_Static_assert((int)PL_LANDING_STUB_SIZE == (int)PL_ARCH_STUB_BYTES, "what is between them is the stubs'");
_Static_assert(PL_LANDING_WORDS + PL_LANDING_CAPACITY * 8 <= PL_LANDING_SIZE, "the words fit");

/* The first pages of an address: what a page holds that was mapped and not filled, and what is compared with it. */
static const uint8_t nothing[PL_LANDING_WORDS];

static void make_stub(uint32_t row, uint8_t stub[PL_LANDING_STUB_SIZE])
{
	pl_arch_stub((int32_t)(PL_LANDING_WORDS + row * 8) - (int32_t)(PL_LANDING_STUBS + row * PL_LANDING_STUB_SIZE), stub);
}

enum look { FREE, UNFILLED, FILLED, STRANGE };

/* Whether exactly the two pages are mapped here, as they should be. *ret_whole: not so if only the first call was made. */
static bool is_mapped(const struct pl_maps *maps, uint64_t base, bool *ret_whole)
{
	const struct pl_map *code = pl_maps_find(maps, base), *words = pl_maps_find(maps, base + PL_LANDING_WORDS);
	const uint32_t access = PL_MAP_READ | PL_MAP_WRITE | PL_MAP_EXEC | PL_MAP_SHARED;

	*ret_whole = false;
	if (!code || !words || code->start != base || words->end != base + PL_LANDING_SIZE || code->inode || words->inode ||
		(code->flags & access) != (PL_MAP_READ | PL_MAP_EXEC))
		return false;
	*ret_whole = code != words && (words->flags & access) == (PL_MAP_READ | PL_MAP_WRITE);
	return *ret_whole || code == words;
}

/* Whether a page is one that this version could have made. Its words are not looked at: what they hold is looked at
 * before each is changed. */
static bool is_sound(const uint8_t *page, struct pl_landing *landing)
{
	struct pl_landing_header header;

	memcpy(&header, page, sizeof(header));
	if (header.version != PL_LANDING_VERSION || header.capacity != PL_LANDING_CAPACITY ||
		header.count > PL_LANDING_CAPACITY)
		return false;
	memcpy(landing->rows, page + sizeof(header), sizeof(landing->rows));
	for (uint32_t i = 0; i < header.count; i++) {
		uint8_t stub[PL_LANDING_STUB_SIZE];

		make_stub(i, stub);
		if (memcmp(page + PL_LANDING_STUBS + (size_t)i * PL_LANDING_STUB_SIZE, stub, sizeof(stub)) != 0)
			return false;
		for (uint32_t j = 0; j < i; j++)
			if (landing->rows[j].original == landing->rows[i].original && landing->rows[j].kind == landing->rows[i].kind)
				return false;
	}
	landing->count = landing->there = header.count;
	return true;
}

static int look_at(pid_t pid, const struct pl_maps *maps, uint64_t base, struct pl_landing *ret, enum look *ret_look)
{
	uint8_t page[PL_LANDING_FILLED];
	bool whole;
	int code;

	*ret = (struct pl_landing){.base = base};
	*ret_look = FREE;
	for (size_t i = 0; i < maps->count; i++)
		if (maps->items[i].start < base + PL_LANDING_SIZE && maps->items[i].end > base)
			*ret_look = STRANGE;
	if (*ret_look == FREE || !is_mapped(maps, base, &whole))
		return 0;
	code = pl_memory_read(pid, base, page, sizeof(page));
	if (code < 0)
		return code;
	/* Its magic goes in last: until then nothing leads here. Rows may have been written. */
	if (memcmp(page, nothing, sizeof(((struct pl_landing_header *)0)->magic)) == 0)
		*ret_look = UNFILLED;
	else if (whole && memcmp(page, PL_LANDING_MAGIC, sizeof(((struct pl_landing_header *)0)->magic)) == 0 &&
		is_sound(page, ret))
		*ret_look = FILLED;
	return 0;
}

static uint64_t place_at(const struct pl_maps *maps, unsigned int i)
{
	return (pl_maps_end(maps) > PL_LANDING_BASE ? PL_LANDING_BASE : PL_LANDING_LOW_BASE) + i * (uint64_t)PL_LANDING_STRIDE;
}

int pl_landing_find(pid_t pid, const struct pl_maps *maps, struct pl_landing *ret)
{
	struct pl_landing place = {0};
	int code = 0;

	for (unsigned int i = 0; code == 0 && i < PL_LANDING_PLACES; i++) {
		enum look look;

		code = look_at(pid, maps, place_at(maps, i), ret, &look);
		ret->mapped = code == 0 && look == FILLED;
		if (ret->mapped)
			return 0;
		if (code == 0 && !place.base && (look == FREE || look == UNFILLED))
			place.base = ret->base;
	}
	*ret = place;
	return code;
}

uint64_t pl_landing_present(pid_t pid)
{
	struct pl_maps maps = {0};
	uint64_t found = 0;
	int code = pl_maps_read(pid, &maps);

	for (unsigned int i = 0; code == 0 && !found && i < PL_LANDING_PLACES; i++) {
		uint64_t base = place_at(&maps, i);
		const struct pl_map *map = pl_maps_find(&maps, base);

		found = map && map->start == base && !map->inode ? base : 0;
	}
	pl_maps_free(&maps);
	return found;
}

uint32_t pl_landing_row(struct pl_landing *landing, uint64_t original, uint32_t kind)
{
	if (!landing->base)
		return PL_LANDING_CAPACITY;
	for (uint32_t i = 0; i < landing->count; i++)
		if (landing->rows[i].original == original && landing->rows[i].kind == kind)
			return i;
	if (landing->count < PL_LANDING_CAPACITY)
		landing->rows[landing->count++] = (struct pl_landing_row){.original = original, .kind = kind};
	else
		return PL_LANDING_CAPACITY;
	return landing->count - 1;
}

uint32_t pl_landing_row_at(const struct pl_landing *landing, uint64_t address)
{
	uint64_t distance = address - landing->base - PL_LANDING_STUBS;

	return landing->base && distance % PL_LANDING_STUB_SIZE == 0 && distance / PL_LANDING_STUB_SIZE < landing->count ?
		       (uint32_t)(distance / PL_LANDING_STUB_SIZE) :
		       PL_LANDING_CAPACITY;
}

static int map_pages(struct carrier *carrier, const struct pl_landing *landing)
{
	bool whole, there = is_mapped(&carrier->maps, landing->base, &whole);
	int64_t got;
	int code = 0;

	if (there && whole)
		return 0;
	/* All of it executable and unwritable first, then the words over its end: never both. */
	if (!there) {
		code = carrier_call(carrier, SYS_mmap,
			(const uint64_t[6]){landing->base, PL_LANDING_SIZE, PROT_READ | PROT_EXEC,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, (uint64_t)-1, 0},
			&got);
		/* A kernel before 4.17 takes the address as a hint. */
		if (code == 0 && (uint64_t)got != landing->base) {
			(void)carrier_call(
				carrier, SYS_munmap, (const uint64_t[6]){(uint64_t)got, PL_LANDING_SIZE, 0, 0, 0, 0}, NULL);
			code = -EEXIST;
		}
	}
	return code < 0 ? code :
			  carrier_call(carrier, SYS_mmap,
				  (const uint64_t[6]){landing->base + PL_LANDING_WORDS, PL_LANDING_SIZE - PL_LANDING_WORDS,
					  PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, (uint64_t)-1, 0},
				  NULL);
}

/* Words, stubs and rows of those that are new; they count when the count is written. */
static int write_rows(struct carrier *carrier, const struct pl_landing *landing)
{
	uint8_t stubs[PL_LANDING_CAPACITY][PL_LANDING_STUB_SIZE];
	uint64_t words[PL_LANDING_CAPACITY];
	uint32_t first = landing->there, count = landing->count - first;
	int code;

	for (uint32_t i = 0; i < count; i++) {
		words[i] = landing->rows[first + i].original;
		make_stub(first + i, stubs[i]);
	}
	code = carrier_write(carrier, pl_landing_word(landing, first), words, count * sizeof(words[0]));
	if (code == 0)
		code = carrier_write(carrier, pl_landing_stub(landing, first), stubs, count * sizeof(stubs[0]));
	if (code == 0)
		code = carrier_write(carrier,
			landing->base + sizeof(struct pl_landing_header) + first * sizeof(struct pl_landing_row),
			&landing->rows[first], count * sizeof(landing->rows[0]));
	return code;
}

static int write_count(struct carrier *carrier, const struct pl_landing *landing)
{
	const struct pl_landing_header header = {
		.magic = PL_LANDING_MAGIC,
		.version = PL_LANDING_VERSION,
		.capacity = PL_LANDING_CAPACITY,
		.count = landing->count,
	};
	int code;

	if (landing->mapped)
		return carrier_write(carrier, landing->base + offsetof(struct pl_landing_header, count), &header.count,
			sizeof(header.count));
	code = carrier_write(carrier, landing->base + sizeof(header.magic), (const uint8_t *)&header + sizeof(header.magic),
		sizeof(header) - sizeof(header.magic));
	return code < 0 ? code : carrier_write(carrier, landing->base, header.magic, sizeof(header.magic));
}

int landing_prepare(struct carrier *carrier, struct pl_landing *landing, struct pl_error *err)
{
	uint32_t count;
	int code = 0;

	if (!landing || landing->there == landing->count)
		return 0;
	/* Another pyleak may have added rows since this one looked. */
	if (landing->mapped && (pl_memory_read(carrier->pid, landing->base + offsetof(struct pl_landing_header, count), &count,
					sizeof(count)) < 0 ||
				       count != landing->there))
		return pl_fail(err, -EAGAIN, "the landing page of process %d was changed by another pyleak: try again",
			(int)carrier->pid);
	if (!landing->mapped)
		code = carrier_hold(carrier, err);
	if (code == 0 && !landing->mapped)
		code = map_pages(carrier, landing);
	/* What nobody is led to yet is written while nobody is held. */
	if (code == 0)
		code = carrier_rest(carrier);
	if (code == 0)
		code = write_rows(carrier, landing);
	if (code == 0)
		code = write_count(carrier, landing);
	if (code < 0)
		return pl_fail(err, code, "the landing page could not be made in process %d: %s", (int)carrier->pid, strerror(-code));
	landing->mapped = true;
	landing->there = landing->count;
	return 0;
}
