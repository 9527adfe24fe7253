/* SPDX-License-Identifier: MIT */
/*
 * An extension with an allocator of its own inside, as polars and duckdb have jemalloc: blocks are cut from mappings, by a
 * function that is called where it is. By the message among its constants it is known.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define API __attribute__((visibility("default")))

enum { PIECE = 4 << 20 };
static char *next;
static size_t left;

static __attribute__((noinline)) void *cut(size_t size)
{
	void *block;

	if (left < size) {
		next = mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		left = PIECE;
		if (next == MAP_FAILED) {
			(void)fputs("<jemalloc>: no memory\n", stderr);
			left = 0;
			return NULL;
		}
	}
	block = next;
	next += size;
	left -= size;
	return block;
}

API void *pool_take(size_t size);

API void *pool_take(size_t size)
{
	void *block = size <= PIECE ? cut(size) : NULL;

	if (block)
		memset(block, 1, size);
	return block;
}
