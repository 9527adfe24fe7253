/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "../../src/engine/old_pools.c"
#include "random.h"

/*
 * What an allocator that is linked in had mapped before: found by what lies in a process's memory, which here is anything.
 * Objects with data, mappings of nobody, and places that are somebody's lie in a piece of memory of our own, whose words
 * point into it, beside it and nowhere, or say that they are the head of one of glibc's chunks. Built with sanitizers.
 *
 *   fuzz_pools SECONDS SEED     0; or it is ended by what it finds
 */

enum { PAGES = 1536, OBJECTS_MAX = 4, PLACES_MAX = 16 };

#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			(void)fprintf(stderr, "%s:%d: not so: %s (seed %" PRIu64 ")\n", __FILE__, __LINE__, #condition, seed); \
			abort(); \
		} \
	} while (0)

static uint64_t seed;
static uint8_t *memory;

static uint64_t base(void)
{
	return (uint64_t)(uintptr_t)memory;
}

/* -- an address space ------------------------------------------------------------------------------- */

static struct pl_range areas[64];
static size_t area_count;
static bool objects_at[64];

static ssize_t read_some(struct pl_space *space, uint64_t address, void *buffer, size_t length)
{
	const uint64_t end = base() + (uint64_t)PAGES * PL_PAGE;

	(void)space;
	CHECK(length <= PIECE);
	/* What was there a moment ago may have gone. */
	if (address < base() || address >= end || below(64) == 0)
		return below(2) ? -EFAULT : -ESRCH;
	if (length > end - address)
		length = end - address;
	memcpy(buffer, (const void *)(uintptr_t)address, length);
	return (ssize_t)(below(64) ? length : below(length));
}

static int pages(struct pl_space *space, struct pl_range range, uint8_t *ret)
{
	(void)space;
	CHECK(range.start < range.end && range.end - range.start == PL_PAGE);
	*ret = below(8) != 0;
	return below(32) ? 0 : -ESRCH;
}

static const struct pl_space_kind kind = {.read_some = read_some, .pages = pages};

static void add_map(struct pl_maps *maps, uint64_t start, uint64_t page_count, uint64_t inode, unsigned int flags)
{
	static char nothing[] = "", name[] = "/lib/x.so";

	if (!page_count)
		return;
	maps->items[maps->count++] = (struct pl_map){.start = start, .end = start + page_count * PL_PAGE, .inode = inode,
		.offset = inode ? below(3) * PL_PAGE : 0, .flags = flags, .path = inode ? name : nothing};
}

/* Objects (text, data, .bss) and mappings of nobody, in any order. */
static void make_maps(struct pl_maps *maps)
{
	uint64_t at = base(), end = at + (uint64_t)PAGES * PL_PAGE;

	area_count = 0;
	while (at < end && maps->count < 100 && area_count < 60) {
		uint64_t left = (end - at) / PL_PAGE, count = 1 + below(below(4) ? 64 : 1024);

		if (count > left)
			count = left;
		if (below(4) == 0) {
			uint64_t inode = 1 + below(4), parts[3] = {below(4), 1 + below(16), below(8)};

			if (parts[0] + parts[1] + parts[2] > left)
				break;
			areas[area_count] = (struct pl_range){at, at + (parts[0] + parts[1]) * PL_PAGE};
			objects_at[area_count++] = true;
			add_map(maps, at, parts[0], inode, PL_MAP_READ | PL_MAP_EXEC);
			add_map(maps, at + parts[0] * PL_PAGE, parts[1], inode, PL_MAP_READ | PL_MAP_WRITE);
			add_map(maps, at + (parts[0] + parts[1]) * PL_PAGE, parts[2], 0, PL_MAP_READ | PL_MAP_WRITE);
			count = parts[0] + parts[1] + parts[2];
		} else if (below(8)) {
			areas[area_count] = (struct pl_range){at, at + count * PL_PAGE};
			objects_at[area_count++] = false;
			add_map(maps, at, count, 0, PL_MAP_READ | PL_MAP_WRITE | (below(16) ? 0 : PL_MAP_EXEC));
		}
		at += count * PL_PAGE;
	}
}

static uint64_t any_word(void)
{
	switch (below(8)) {
	case 0:
		return next() >> below(64);
	case 1:
		return UINT64_MAX - below(64) * PL_PAGE;
	case 2: /* what glibc says of a chunk with a mapping of its own */
		return below(PAGES) * PL_PAGE | below(8);
	case 3:
		return 0;
	case 4: /* at an edge */
		return area_count ? (below(2) ? areas[below(area_count)].end : areas[below(area_count)].start) + below(3) - 1 : 0;
	default:
		return base() + below((uint64_t)PAGES * PL_PAGE);
	}
}

static void fill(void)
{
	/* Pages that were never touched are there as well. */
	CHECK(madvise(memory, (size_t)PAGES * PL_PAGE, MADV_DONTNEED) == 0);
	for (size_t i = 0; i < area_count; i++) {
		uint64_t count = (areas[i].end - areas[i].start) / PL_PAGE;

		for (uint64_t page = 0; page < count; page++) {
			uint64_t *words = (uint64_t *)(uintptr_t)(areas[i].start + page * PL_PAGE);

			if (below(3) == 0)
				continue;
			words[0] = below(4) ? any_word() : 0;
			words[1] = below(4) ? any_word() : below(64) * PL_PAGE | 2;
			for (uint64_t n = below(32); n > 0; n--)
				words[below(PL_PAGE / sizeof(*words))] = any_word();
		}
	}
}

/* -- whose memory there is, by what the engine knows ------------------------------------------------ */

static struct pl_range places[PLACES_MAX];
static size_t place_count;

static int by_where(const void *a, const void *b)
{
	const struct pl_range *left = a, *right = b;

	return (left->start > right->start) - (left->start < right->start);
}

static void make_places(void)
{
	place_count = below(PLACES_MAX + 1);
	for (size_t i = 0; i < place_count; i++) {
		places[i].start = base() + below(PAGES) * PL_PAGE;
		places[i].end = places[i].start + (1 + below(below(2) ? 8 : 256)) * PL_PAGE;
	}
	qsort(places, place_count, sizeof(*places), by_where);
}

static int give_places(void *context, struct pl_range **ret, size_t *ret_count)
{
	(void)context;
	if (below(32) == 0)
		return -ESRCH;
	*ret = calloc(place_count + 1, sizeof(**ret));
	if (!*ret)
		return -ENOMEM;
	memcpy(*ret, places, place_count * sizeof(**ret));
	*ret_count = place_count;
	return 0;
}

static bool is_in_an_island(struct pl_range range)
{
	for (size_t i = 0; i < area_count; i++)
		if (!objects_at[i] && range.start >= areas[i].start && range.end <= areas[i].end)
			return true;
	return false;
}

/* Of one look after the other the mappings differ; what was found before stays. */
static void check(const struct old_pools *pools, bool first)
{
	for (size_t i = 0; i < pools->count; i++) {
		CHECK(pools->items[i].owner < pools->owner_count);
		CHECK(pools->items[i].range.start < pools->items[i].range.end);
		CHECK(!i || pools->items[i - 1].range.end <= pools->items[i].range.start);
		CHECK(!first || is_in_an_island(pools->items[i].range));
		CHECK(old_pools_at(pools, pools->items[i].range.start) == &pools->items[i]);
		CHECK(old_pools_at(pools, pools->items[i].range.end - 1) == &pools->items[i]);
	}
}

static void one(uint64_t *ret_found)
{
	struct pl_space space = {.kind = &kind, .pid = getpid()};
	struct old_pools pools = {.places = give_places};
	struct pl_sites *sites = pl_sites_new();
	struct pl_map items[128];
	struct pl_maps maps = {.items = items};
	struct pooled_object objects[OBJECTS_MAX];
	uint64_t within[64] = {0};
	size_t count = 0;

	CHECK(sites);
	make_maps(&maps);
	make_places();
	fill();
	for (size_t i = 0; i < area_count && count < OBJECTS_MAX; i++)
		if (objects_at[i])
			objects[count++] = (struct pooled_object){areas[i].start, "jemalloc"};
	/* One that is nowhere, one that is no object. */
	if (count < OBJECTS_MAX && below(4) == 0)
		objects[count++] = (struct pooled_object){any_word(), "mimalloc"};
	for (int look = 0; look < 3; look++) {
		int code = find(&pools, &space, &maps, sites, objects, look ? count : below(count + 1));

		CHECK(code == 0 || code == -ENOMEM);
		check(&pools, look == 0);
		/* It goes on, and on. */
		for (int i = 0; i < 8; i++)
			memory[below((uint64_t)PAGES * PL_PAGE)] = 1;
		for (size_t i = 0; i < pools.owner_count && i < 64; i++)
			within[i] = below(4) ? below(1 << 20) : 0;
		CHECK(pools.owner_count <= 64);

		int64_t grown = old_pools_grown(&pools, getpid(), sites, within), most = 0, least = 0;

		for (size_t i = 0; i < pools.count; i++)
			most += (int64_t)(pools.items[i].range.end - pools.items[i].range.start);
		for (size_t i = 0; i < pools.owner_count; i++)
			least -= (int64_t)(pools.owners[i].before + within[i]);
		CHECK(grown >= least && grown <= most);
		for (size_t i = 0; i < pools.owner_count; i++) {
			const struct pl_totals *totals = pl_sites_totals(sites, pools.owners[i].site);

			CHECK(totals->allocated_size >= totals->freed_size);
		}
		make_places();
	}
	*ret_found += pools.count != 0;
	old_pools_free(&pools);
	pl_sites_free(sites);
}

int main(int argc, char **argv)
{
	const time_t end = time(NULL) + (argc > 1 ? atoi(argv[1]) : 10);
	uint64_t rounds = 0, found = 0;

	seed = argc > 2 ? strtoull(argv[2], NULL, 10) | 1 : 1;
	memory = mmap(NULL, (size_t)PAGES * PL_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return 1;
	for (; time(NULL) < end; rounds++, seed += 2) {
		state = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
		one(&found);
	}
	(void)printf("%" PRIu64 " address spaces, pools found in %" PRIu64 "\n", rounds, found);
	return found ? 0 : 1;
}
