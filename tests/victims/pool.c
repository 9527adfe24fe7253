/* SPDX-License-Identifier: MIT */
/*
 * An extension with an allocator of its own inside, as polars and duckdb have jemalloc: blocks are cut from mappings, by a
 * function that is called where it is. By the message among its constants it is known.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define API __attribute__((visibility("default")))

enum { PIECE = 4 << 20, BASE = 256 << 10 };

/* What it knows of itself is in a mapping, too, as jemalloc's. */
static struct {
	char *next;
	size_t left, piece;
} *base;

static void *map(size_t size)
{
	return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

static __attribute__((constructor)) void begin(void)
{
	base = map(BASE);
	if (base == MAP_FAILED)
		abort();
	base->piece = PIECE;
}

static __attribute__((noinline)) void *cut(size_t size)
{
	void *block;

	if (base->left < size) {
		base->next = map(base->piece);
		base->left = base->piece;
		if (base->next == MAP_FAILED) {
			(void)fputs("<jemalloc>: no memory\n", stderr);
			base->left = 0;
			return NULL;
		}
	}
	block = base->next;
	base->next += size;
	base->left -= size;
	return block;
}

API void pool_piece(size_t size);
API void *pool_take(size_t size);

/* The next mapping is so large. */
API void pool_piece(size_t size)
{
	base->piece = size;
}

API void *pool_take(size_t size)
{
	void *block = size <= base->piece ? cut(size) : NULL;

	if (block)
		memset(block, 1, size);
	return block;
}
