/* SPDX-License-Identifier: MIT */
#include "old_pools.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pyleak/cleanup.h"
#include "pyleak/log.h"
#include "pyleak/table.h"

enum {
	RUNS = 128,
	PIECE = 1 << 16,
	ISLAND_MIN = 64 << 10, /* what an allocator maps at once is larger: jemalloc 2 MiB, mimalloc 4 MiB or 1 GiB */
	BLOCK_SHIFT = 21,      /* of what the data point to, so much around that is looked through */
	BLOCKS_MAX = 256,
	BYTES_MAX = 64 << 20,
	GLIBC_BITS = 7,
	GLIBC_MMAPPED = 2,
};

/* Anonymous memory of an owner that is not known. */
struct island {
	struct pl_range range;
	uint32_t owner; /* + 1; 0: none */
};

struct search {
	struct pl_space *space;
	int pagemap;
	struct island *islands;
	size_t count, capacity;
	size_t place; /* of those that are cut out: all before are below */
	struct pl_table blocks; /* that were looked through or are to be */
	struct {
		uint64_t start;
		uint32_t owner;
	} queue[BLOCKS_MAX];
	size_t queued;
	uint64_t left; /* bytes that may yet be looked through */
};

void old_pools_free(struct old_pools *pools)
{
	free(pools->items);
	free(pools->owners);
	free(pools->first);
	*pools = (struct old_pools){0};
}

/* A block that glibc has mapped by itself says how large it is: that is a block, and not a pool. */
static uint64_t glibc_chunk(const struct search *search, struct pl_range range)
{
	uint64_t words[2];
	uint8_t page;

	if (range.end - range.start < PL_PAGE ||
		pl_space_pages(search->space, (struct pl_range){range.start, range.start + PL_PAGE}, &page) < 0 || !page ||
		pl_space_read(search->space, range.start, words, sizeof(words)) < 0 || words[0] ||
		(words[1] & GLIBC_BITS) != GLIBC_MMAPPED)
		return 0;
	words[1] &= ~(uint64_t)GLIBC_BITS;
	return words[1] % PL_PAGE == 0 && words[1] <= range.end - range.start ? words[1] : 0;
}

static int add_island(struct search *search, struct pl_range range)
{
	uint64_t chunk;

	while (range.end > range.start && (chunk = glibc_chunk(search, range)))
		range.start += chunk;
	if (range.end < range.start + ISLAND_MIN)
		return 0;
	if (search->count == search->capacity) {
		size_t capacity = search->capacity ? 2 * search->capacity : 64;
		struct island *islands = reallocarray(search->islands, capacity, sizeof(*islands));

		if (!islands)
			return -ENOMEM;
		search->islands = islands;
		search->capacity = capacity;
	}
	search->islands[search->count++] = (struct island){.range = range};
	return 0;
}

/* What is left of a range without those of a list, which begin in order. */
static int cut(struct search *search, struct pl_range range, const struct pl_range *without, size_t count)
{
	int code = 0;

	/* Ranges come in order, too. */
	while (search->place < count && without[search->place].end <= range.start)
		search->place++;
	for (size_t i = search->place; code == 0 && i < count && without[i].start < range.end; i++) {
		if (without[i].end <= range.start)
			continue;
		if (without[i].start > range.start)
			code = add_island(search, (struct pl_range){range.start, without[i].start});
		range.start = without[i].end;
	}
	return code == 0 && range.start < range.end ? add_island(search, range) : code;
}

/* The data of an object are mappings of its file, and what follows them without one (.bss). */
static bool follows_data(const struct pl_maps *maps, size_t i)
{
	const struct pl_map *map = &maps->items[i], *before = i ? map - 1 : NULL;

	return before && before->inode && before->end == map->start && pl_map_is_anonymous(map) && !map->path[0];
}

static int find_islands(struct search *search, const struct pl_maps *maps, const struct pl_range *places, size_t count)
{
	int code = 0;

	for (size_t i = 0; code == 0 && i < maps->count; i++) {
		const struct pl_map *map = &maps->items[i];

		if (pl_map_is_anonymous(map) && !map->path[0] && !(map->flags & PL_MAP_EXEC) && !follows_data(maps, i))
			code = cut(search, (struct pl_range){map->start, map->end}, places, count);
	}
	return code;
}

static struct island *island_at(const struct search *search, uint64_t address)
{
	size_t low = 0, high = search->count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (search->islands[middle].range.end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low < search->count && address >= search->islands[low].range.start ? &search->islands[low] : NULL;
}

/* `data`: it is the object's own, and where it points to is looked at next. */
static void look_at_word(struct search *search, uint64_t word, uint32_t owner, bool data)
{
	struct island *island = island_at(search, word);
	uint64_t block = word >> BLOCK_SHIFT;

	if (!island)
		return;
	if (!island->owner)
		island->owner = owner + 1;
	if (!data || island->owner != owner + 1 || search->queued == BLOCKS_MAX || pl_table_find(&search->blocks, block + 1) ||
		!pl_table_insert(&search->blocks, block + 1))
		return;
	search->queue[search->queued].start = block << BLOCK_SHIFT;
	search->queue[search->queued++].owner = owner;
}

static void look_at_run(struct search *search, struct pl_range run, uint32_t owner, bool data)
{
	uint64_t words[PIECE / sizeof(uint64_t)];

	for (uint64_t at = run.start; at < run.end && search->left; at += PIECE) {
		uint64_t length = run.end - at < PIECE ? run.end - at : PIECE;

		if (pl_space_read(search->space, at, words, length) < 0)
			return;
		search->left -= length < search->left ? length : search->left;
		for (size_t i = 0; i < length / sizeof(*words); i++)
			look_at_word(search, words[i], owner, data);
	}
}

/* `own`: see pl_resident_runs(); data of a file that nobody wrote point to nothing that was mapped since. */
static void look_through(struct search *search, struct pl_range range, uint32_t owner, bool data)
{
	struct pl_range runs[RUNS];
	uint64_t end;
	size_t count;

	while (range.start < range.end && search->left) {
		if (pl_resident_runs(search->pagemap, range, data, runs, RUNS, &count, &end) < 0 || end <= range.start)
			return;
		for (size_t i = 0; i < count; i++)
			look_at_run(search, runs[i], owner, data);
		range.start = end;
	}
}

static void look_at_object(struct search *search, const struct pl_maps *maps, uint64_t start, uint32_t owner)
{
	const struct pl_map *first = pl_maps_find(maps, start);
	bool ours = false;

	for (size_t i = first ? (size_t)(first - maps->items) : maps->count; i < maps->count; i++) {
		const struct pl_map *map = &maps->items[i];

		if (map->inode && !pl_map_same_file(map, first))
			break;
		ours = map->inode != 0 || (ours && follows_data(maps, i));
		if (ours && map->flags & PL_MAP_WRITE)
			look_through(search, (struct pl_range){map->start, map->end}, owner, true);
	}
}

static void look_at_blocks(struct search *search)
{
	for (size_t i = 0; i < search->queued; i++) {
		uint64_t at = search->queue[i].start, end = at + (UINT64_C(1) << BLOCK_SHIFT);

		while (at < end) {
			const struct island *island = island_at(search, at);
			uint64_t next = island && island->range.end < end ? island->range.end : end;

			if (island)
				look_through(search, (struct pl_range){at, next}, search->queue[i].owner, false);
			/* The next one may begin within. */
			at = island ? next : at + PL_PAGE;
		}
	}
}

/* An object with an allocator. */
struct pooled_object {
	uint64_t start;
	const char *allocator;
};

static int add_owner(struct old_pools *pools, const struct pl_maps *maps, struct pl_sites *sites,
	const struct pooled_object *object)
{
	const struct pl_map *map = pl_maps_find(maps, object->start);
	struct old_pool_owner *owners;
	struct pl_native_caller caller = {0};

	if (!map)
		return 0;
	owners = reallocarray(pools->owners, pools->owner_count + 1, sizeof(*owners));
	if (!owners)
		return -ENOMEM;
	pools->owners = owners;
	caller.module = pl_sites_string(sites, map->path);
	caller.symbol = pl_sites_string(sites, object->allocator);
	if (!caller.module || !caller.symbol)
		return -ENOMEM;
	owners[pools->owner_count] = (struct old_pool_owner){
		.start = object->start,
		.module = caller.module,
		.allocator = caller.symbol,
		.site = pl_sites_intern_pool(sites, NULL, 0, false, &caller),
	};
	return owners[pools->owner_count++].site == UINT32_MAX ? -ENOMEM : 0;
}

static bool is_known(const struct old_pools *pools, uint64_t start)
{
	for (size_t i = 0; i < pools->owner_count; i++)
		if (pools->owners[i].start == start)
			return true;
	return false;
}

static int by_address(const void *a, const void *b)
{
	const struct old_pool *left = a, *right = b;

	return (left->range.start > right->range.start) - (left->range.start < right->range.start);
}

static int keep(struct old_pools *pools, const struct search *search)
{
	size_t found = 0, first = pools->count;
	struct old_pool *items;

	for (size_t i = 0; i < search->count; i++)
		found += search->islands[i].owner != 0;
	if (!found)
		return 0;
	items = reallocarray(pools->items, pools->count + found, sizeof(*items));
	if (!items)
		return -ENOMEM;
	pools->items = items;
	for (size_t i = 0; i < search->count; i++)
		if (search->islands[i].owner)
			items[pools->count++] = (struct old_pool){search->islands[i].range, search->islands[i].owner - 1};
	qsort(items, pools->count, sizeof(*items), by_address);
	pl_log_debug("mappings of allocators that are linked in: %zu more, of %zu of nobody known", pools->count - first, search->count);
	return 0;
}

/* All that there is now, so that what is found later is known for new. */
static int remember(struct old_pools *pools, const struct search *search)
{
	pools->first = calloc(search->count + 1, sizeof(*pools->first));
	if (!pools->first)
		return -ENOMEM;
	for (size_t i = 0; i < search->count; i++)
		pools->first[i] = search->islands[i].range;
	pools->first_count = search->count;
	return 0;
}

static int by_start(const void *a, const void *b)
{
	const struct pl_range *left = a, *right = b;

	return (left->start > right->start) - (left->start < right->start);
}

/* Whose memory there is, and what was there at the first look, in order; they may overlap. */
static int find_places(const struct old_pools *pools, struct pl_range **ret, size_t *ret_count)
{
	pl_autofree struct pl_range *places = NULL;
	struct pl_range *all;
	size_t count = 0;
	int code = pools->places(pools->context, &places, &count);

	if (code < 0)
		return code;
	all = calloc(count + pools->first_count + 1, sizeof(*all));
	if (!all)
		return -ENOMEM;
	if (count)
		memcpy(all, places, count * sizeof(*all));
	if (pools->first_count)
		memcpy(all + count, pools->first, pools->first_count * sizeof(*all));
	*ret_count = count + pools->first_count;
	qsort(all, *ret_count, sizeof(*all), by_start);
	*ret = all;
	return 0;
}

static uint64_t in_memory(int pagemap, struct pl_range range)
{
	struct pl_range runs[RUNS];
	uint64_t sum = 0, end;
	size_t count;

	for (; range.start < range.end; range.start = end) {
		if (pl_resident_runs(pagemap, range, false, runs, RUNS, &count, &end) < 0 || end <= range.start)
			break;
		for (size_t i = 0; i < count; i++)
			sum += runs[i].end - runs[i].start;
	}
	return sum;
}

static int find(struct old_pools *pools, struct pl_space *space, const struct pl_maps *maps, struct pl_sites *sites,
	const struct pooled_object *objects, size_t count)
{
	struct search search = {.space = space, .left = BYTES_MAX, .pagemap = -1};
	pl_autofree struct pl_range *places = NULL;
	const size_t known = pools->owner_count, were = pools->count;
	const bool again = pools->looked;
	size_t place_count = 0;
	int code = 0;

	for (size_t i = 0; code == 0 && pools->places && i < count; i++)
		if (!is_known(pools, objects[i].start))
			code = add_owner(pools, maps, sites, &objects[i]);
	if (code < 0 || !pools->places || (again && pools->owner_count == known))
		return code;
	/* Where no owner is known of anything, all of it could be anybody's. */
	if (find_places(pools, &places, &place_count) < 0)
		return 0;
	search.pagemap = pl_resident_open(space->pid);
	if (search.pagemap < 0)
		return 0;
	code = find_islands(&search, maps, places, place_count);
	if (code == 0 && !again)
		code = remember(pools, &search);
	pools->looked |= code == 0;
	for (size_t i = known; code == 0 && i < pools->owner_count; i++)
		look_at_object(&search, maps, pools->owners[i].start, (uint32_t)i);
	look_at_blocks(&search);
	if (code == 0)
		code = keep(pools, &search);
	/* What is of an object that has come since was not there before. */
	for (size_t i = 0; !again && were == 0 && i < pools->count; i++)
		pools->owners[pools->items[i].owner].before += in_memory(search.pagemap, pools->items[i].range);
	(void)close(search.pagemap);
	pl_table_free(&search.blocks);
	free(search.islands);
	return code;
}

void old_pools_look(struct old_pools *pools, const struct native *native, struct pl_sites *sites)
{
	pl_autofree struct pooled_object *objects = calloc(native->object_count + 1, sizeof(*objects));
	struct pl_maps maps = {0};
	size_t count = 0;

	for (size_t i = 0; objects && i < native->object_count; i++) {
		objects[count].allocator = native_allocator(native, i, &objects[count].start);
		count += objects[count].allocator != NULL;
	}
	if (objects && pools->places && pl_space_maps(native->python->space, &maps) == 0 &&
		find(pools, native->python->space, &maps, sites, objects, count) < 0)
		pl_log_debug("mappings of allocators that are linked in could not be looked for: out of memory");
	pl_maps_free(&maps);
}

const struct old_pool *old_pools_at(const struct old_pools *pools, uint64_t address)
{
	size_t low = 0, high = pools->count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (pools->items[middle].range.end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low < pools->count && address >= pools->items[low].range.start ? &pools->items[low] : NULL;
}

/* As if it had been mapped by the site, and unmapped. */
static void tell(struct old_pool_owner *owner, struct pl_sites *sites, int64_t grown)
{
	struct pl_totals *totals = pl_sites_totals(sites, owner->site);

	if (grown > owner->told) {
		totals->allocated_size += (uint64_t)(grown - owner->told);
		totals->allocated_count++;
	} else {
		/* Nothing is freed that was not allocated: what fell below the start is not told. */
		uint64_t most = totals->allocated_size - totals->freed_size, less = (uint64_t)(owner->told - grown);

		totals->freed_size += less < most ? less : most;
		grown = less < most ? grown : owner->told - (int64_t)most;
	}
	owner->told = grown;
}

int64_t old_pools_grown(struct old_pools *pools, pid_t pid, struct pl_sites *sites, const uint64_t *within)
{
	pl_autofree struct pl_range *places = NULL;
	pl_autofree int64_t *grown = calloc(pools->owner_count + 1, sizeof(*grown));
	int pagemap = -1;
	int64_t sum = 0;
	size_t count = 0, first = 0;

	if (!pools->count || !grown || pools->places(pools->context, &places, &count) < 0)
		return 0;
	pagemap = pl_resident_open(pid);
	for (size_t i = 0; i < pools->count && pagemap >= 0; i++) {
		uint64_t now = in_memory(pagemap, pools->items[i].range), end = pools->items[i].range.start;

		/* Where something else is by now, that is counted there. */
		while (first < count && places[first].end <= pools->items[i].range.start)
			first++;
		for (size_t place = first; place < count && places[place].start < pools->items[i].range.end; place++) {
			struct pl_range both = {end, pools->items[i].range.end};
			uint64_t others;

			both.start = places[place].start > both.start ? places[place].start : both.start;
			both.end = places[place].end < both.end ? places[place].end : both.end;
			if (both.start >= both.end)
				continue;
			/* Places may overlap, and pages come and go between two looks. */
			end = both.end;
			others = in_memory(pagemap, both);
			now -= others < now ? others : now;
		}
		grown[pools->items[i].owner] += (int64_t)now;
	}
	for (size_t i = 0; i < pools->owner_count && pagemap >= 0; i++) {
		grown[i] -= (int64_t)(pools->owners[i].before + within[i]);
		tell(&pools->owners[i], sites, grown[i]);
		sum += grown[i];
	}
	if (pagemap >= 0)
		(void)close(pagemap);
	return sum;
}
