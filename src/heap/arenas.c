/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "heap_private.h"
#include "blocks.h"
#include "pyleak/cleanup.h"

/*
 * pymalloc: arenas of 64 pools, each pool of blocks of one size (Objects/obmalloc.c). A pool is 4 KiB, from 3.10 on
 * 16 KiB. An arena can be given back only when all of its pools are free, a pool can serve another size only when all
 * of its blocks are.
 */

enum {
	ENTRIES_AT_ONCE = 256,
	VISIT_TRIES = 16,
	ENTRIES_MAX = 1 << 20,
	POOL_BYTES_MAX = 16384,
	POOL_HEADER = 48,
	BLOCK_BYTES_MAX = 512,
	ARENA_PAGES_MAX = ARENA_POOLS * POOL_BYTES_MAX / PL_PAGE + 4,
};

struct pool {
	uint32_t count, padding;
	uint64_t free_block, next, previous;
	uint32_t arena_index, size_index, next_offset, max_next_offset;
};
_Static_assert(sizeof(struct pool) == POOL_HEADER, "struct pool_header");

/* Sums over the arenas that were looked at. */
struct sums {
	double resident, free, overhead;
	double class_free[PL_HEAP_CLASSES];
	bool odd_sizes; /* some are no multiple of 16 */
};

/* The array may move while it is read: its words are read again for each account. */
static int read_array(const struct moment *moment, struct arena **ret, size_t *ret_count)
{
	const struct pl_heap_reader *reader = moment->reader;
	pl_autofree struct arena *arenas = NULL;
	uint64_t array = 0, word;
	size_t count = 0;

	for (size_t i = 0; i < reader->arena_word_count; i++)
		if (pl_space_read_u64(reader->python->space, reader->arena_words[i], &word) == 0 && word &&
			(!array || word < array))
			array = word;
	if (!array)
		return -1;
	/* How many there are is not known, but what follows them is none. */
	for (bool more = true; more && count < ENTRIES_MAX; count += ENTRIES_AT_ONCE) {
		struct arena *grown = reallocarray(arenas, count + ENTRIES_AT_ONCE, sizeof(*arenas));
		ssize_t got;

		if (!grown)
			return -1;
		arenas = grown;
		memset(arenas + count, 0, ENTRIES_AT_ONCE * sizeof(*arenas));
		got = pl_space_read_some(reader->python->space, array + count * sizeof(*arenas), arenas + count,
			ENTRIES_AT_ONCE * sizeof(*arenas));
		if (got < 0)
			return -1;
		more = false;
		for (size_t i = count; i < count + ENTRIES_AT_ONCE; i++) {
			if (arena_check(&arenas[i], array, NULL) == ARENA_WRONG) {
				memset(arenas + i, 0, (count + ENTRIES_AT_ONCE - i) * sizeof(*arenas));
				more = false;
				break;
			}
			more |= arenas[i].address || arenas[i].next;
		}
	}
	*ret = PL_TAKE(arenas);
	*ret_count = count;
	return 0;
}

ssize_t arenas_read(const struct moment *moment, struct arena **ret)
{
	pl_autofree struct arena *arenas = NULL;
	size_t count = 0, kept = 0;

	if (read_array(moment, &arenas, &count) < 0)
		return -ENOENT;
	for (size_t i = 0; i < count; i++)
		if (arenas[i].address)
			arenas[kept++] = arenas[i];
	*ret = PL_TAKE(arenas);
	return (ssize_t)kept;
}

/* The size of a pool's blocks by what its header says; 0: it is no header of a pool that was ever used. */
static uint32_t block_bytes(const struct pool *pool, uint32_t pool_bytes)
{
	uint32_t size = pool_bytes - pool->max_next_offset;

	if (pool->max_next_offset >= pool_bytes || size > BLOCK_BYTES_MAX || size % 8)
		return 0;
	/* In units of 8 or of 16. */
	return (pool->size_index + 1) * 8 == size || (pool->size_index + 1) * 16 == size ? size : 0;
}

/* Which size of pools this build has; 0: not known. */
static uint32_t pool_bytes(const struct moment *moment, const struct arena *arenas, size_t count)
{
	static const uint32_t sizes[] = {4096, POOL_BYTES_MAX};

	for (size_t i = 0; i < count && i < 64; i++)
		for (size_t j = 0; j < 2; j++) {
			uint64_t first = (arenas[i].address + sizes[j] - 1) & ~(uint64_t)(sizes[j] - 1);
			struct pool pool;

			if (arenas[i].pool_address > first && (arenas[i].address == first) == (arenas[i].total_pools == ARENA_POOLS) &&
				pl_space_read(moment->reader->python->space, first, &pool, sizeof(pool)) == 0 &&
				block_bytes(&pool, sizes[j]))
				return sizes[j];
		}
	return 0;
}

static void count_pool(const struct pool *pool, uint32_t bytes, uint32_t resident, struct sums *sums)
{
	uint32_t size = block_bytes(pool, bytes), capacity, used, room, idle;

	if (!resident || !size)
		return;
	capacity = (bytes - POOL_HEADER) / size;
	used = pool->count < capacity ? pool->count : capacity;
	sums->odd_sizes |= size % 16 != 0;
	if (!used) {
		sums->free += resident;
		return;
	}
	idle = (capacity - used) * size;
	/* A pool is touched from its start on, as its blocks are first given out. */
	room = resident > POOL_HEADER + used * size ? resident - POOL_HEADER - used * size : 0;
	if (idle > room)
		idle = room;
	sums->free += idle;
	sums->class_free[size / 8] += idle;
	sums->overhead += POOL_HEADER + (room - idle);
}

static void count_arena(const struct moment *moment, const struct arena *arena, uint32_t bytes, struct sums *sums)
{
	uint64_t first = (arena->address + bytes - 1) & ~(uint64_t)(bytes - 1);
	uint64_t end = first + (uint64_t)arena->total_pools * bytes;
	uint64_t carved = arena->pool_address < end ? arena->pool_address : end;
	struct pl_range range = {arena->address, arena->address + (uint64_t)ARENA_POOLS * bytes};
	uint8_t pages[ARENA_PAGES_MAX] = {0};
	struct pool pools[ARENA_POOLS] = {0};
	struct pl_memory_piece pieces[ARENA_POOLS];
	uint32_t resident[ARENA_POOLS] = {0};
	size_t count = 0, pool;

	if (pl_space_pages(moment->reader->python->space, range, pages) < 0)
		return;
	for (uint64_t at = range.start; at < range.end; at += PL_PAGE) {
		if (!pages[(at - range.start) / PL_PAGE])
			continue;
		sums->resident += PL_PAGE;
		if (at < first || at >= end)
			sums->overhead += PL_PAGE;
		else if (at >= carved)
			sums->free += PL_PAGE; /* never used; a huge page holds it in memory */
		else
			resident[(at - first) / bytes] += PL_PAGE;
	}
	for (uint64_t at = first; at < carved; at += bytes) {
		pool = (at - first) / bytes;
		if (pages[(at - range.start) / PL_PAGE])
			pieces[count++] = (struct pl_memory_piece){at, &pools[pool], sizeof(pools[pool])};
	}
	if (pl_space_read_pieces(moment->reader->python->space, pieces, count) < 0)
		return; /* it was given back just now */
	for (pool = 0; pool < arena->total_pools; pool++)
		count_pool(&pools[pool], bytes, resident[pool], sums);
}

/* So that each time the same arenas are looked at: by a hash of the address. */
static bool is_chosen(const struct arena *arena, size_t count)
{
	uint64_t hash = (arena->address >> 12) * UINT64_C(0x9e3779b97f4a7c15) >> 32;

	return count <= PL_HEAP_ARENAS_MAX || hash * count < (uint64_t)PL_HEAP_ARENAS_MAX << 32;
}

bool pl_heap_count_arenas(const struct pl_heap_reader *reader, const struct pl_maps *maps, struct pl_arena_figures *ret)
{
	const struct moment moment = {reader, maps};
	pl_autofree struct arena *arenas = NULL;
	struct sums sums = {0};
	ssize_t read = arenas_read(&moment, &arenas);
	size_t count = read > 0 ? (size_t)read : 0, looked_at = 0;
	uint32_t bytes;
	double scale;

	bytes = pool_bytes(&moment, arenas, count);
	if (!bytes)
		return false;
	for (size_t i = 0; i < count; i++)
		if (is_chosen(&arenas[i], count)) {
			count_arena(&moment, &arenas[i], bytes, &sums);
			looked_at++;
		}
	if (!looked_at)
		return false;
	scale = (double)count / (double)looked_at;
	ret->free = (int64_t)(sums.free * scale);
	ret->used = (int64_t)(sums.resident * scale) - ret->free;
	ret->overhead = (int64_t)(sums.overhead * scale);
	ret->alignment = sums.odd_sizes ? 8 : 16;
	for (size_t i = 0; i < PL_HEAP_CLASSES; i++)
		ret->class_free[i] = (uint64_t)(sums.class_free[i] * scale);
	return true;
}

ssize_t arenas_places(const struct moment *moment, struct pl_range **ret)
{
	pl_autofree struct arena *arenas = NULL;
	ssize_t read = arenas_read(moment, &arenas);
	size_t count = read > 0 ? (size_t)read : 0;
	struct pl_range *places;
	uint64_t bytes;

	bytes = (uint64_t)ARENA_POOLS * pool_bytes(moment, arenas, count);
	if (!bytes)
		return -ENOENT;
	places = calloc(count + 1, sizeof(*places));
	if (!places)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		places[i] = (struct pl_range){arenas[i].address, arenas[i].address + bytes};
	*ret = places;
	return (ssize_t)count;
}

/* Those that are given out: carved already, and not in the pool's list of freed ones. */
static void visit_pool(const struct block_visitor *visitor, uint64_t address, const uint8_t *bytes, uint32_t length)
{
	uint8_t is_free[POOL_BYTES_MAX / 8] = {0};
	struct pool pool;
	uint64_t at;
	uint32_t size, capacity, offset;

	memcpy(&pool, bytes, sizeof(pool));
	size = block_bytes(&pool, length);
	if (!size || !pool.count)
		return;
	capacity = (length - POOL_HEADER) / size;
	at = pool.free_block;
	for (uint32_t i = 0; i < capacity && at; i++) {
		offset = (uint32_t)(at - address);
		if (at - address >= length || offset < POOL_HEADER || (offset - POOL_HEADER) % size ||
			offset + size > length || is_free[offset / 8])
			break;
		is_free[offset / 8] = true;
		memcpy(&at, bytes + offset, sizeof(at));
	}
	for (uint32_t i = 0; i < capacity && POOL_HEADER + i * size < pool.next_offset; i++) {
		const struct block block = {
			.address = address + POOL_HEADER + i * size,
			.size = size,
			.bytes = bytes + POOL_HEADER + i * size,
			.length = size < BLOCK_LENGTH ? size : BLOCK_LENGTH,
		};

		if (!is_free[(POOL_HEADER + i * size) / 8])
			visitor->see(visitor->context, &block);
	}
}

static void visit_arena(const struct moment *moment, const struct arena *arena, uint32_t pool_length, uint8_t *bytes,
	const struct block_visitor *visitor)
{
	uint64_t first = (arena->address + pool_length - 1) & ~(uint64_t)(pool_length - 1);
	uint64_t end = first + (uint64_t)arena->total_pools * pool_length;
	struct pl_range range = {arena->address, arena->address + (uint64_t)ARENA_POOLS * pool_length};
	uint8_t pages[ARENA_PAGES_MAX] = {0};

	if (arena->pool_address < end)
		end = arena->pool_address;
	if (pl_space_pages(moment->reader->python->space, range, pages) < 0)
		return;
	for (uint64_t at = first; at < end; at += pool_length) {
		const uint8_t *resident = pages + (at - range.start) / PL_PAGE;
		uint32_t length = 0;

		/* A pool is touched from its start on. */
		while (length < pool_length && resident[length / PL_PAGE])
			length += PL_PAGE;
		if (!length || pl_space_read(moment->reader->python->space, at, bytes, length) < 0)
			continue;
		memset(bytes + length, 0, pool_length - length);
		visit_pool(visitor, at, bytes, pool_length);
	}
}

bool arenas_visit(const struct moment *moment, const struct block_visitor *visitor)
{
	pl_autofree uint8_t *bytes = malloc(POOL_BYTES_MAX);
	uint32_t length = 0;

	/* The array may move, or an entry be changed, while it is read. */
	for (int tries = 0; bytes && !length && tries < VISIT_TRIES; tries++) {
		pl_autofree struct arena *arenas = NULL;
		ssize_t read = arenas_read(moment, &arenas);
		size_t count = read > 0 ? (size_t)read : 0;

		length = pool_bytes(moment, arenas, count);
		for (size_t i = 0; length && i < count; i++)
			visit_arena(moment, &arenas[i], length, bytes, visitor);
	}
	return length != 0;
}
