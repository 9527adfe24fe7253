/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_HEAP_BLOCKS_H
#define PYLEAK_HEAP_BLOCKS_H

#include "heap_private.h"

/* A block in use: where it is, what it takes, and its beginning, as far as it was read. */
struct block {
	uint64_t address, size;
	const uint8_t *bytes;
	size_t length;
};
enum { BLOCK_LENGTH = 112 }; /* at most so much of it is there */

struct block_visitor {
	void (*see)(void *context, const struct block *block);
	void *context;
};

/* All of pymalloc's, or of the C library's. False: there are none that can be found. */
bool arenas_visit(const struct moment *moment, const struct block_visitor *visitor);
bool heap_visit(const struct moment *moment, const struct block_visitor *visitor);

static inline uint64_t block_word(const struct block *block, size_t offset)
{
	uint64_t word = 0;

	if (offset + sizeof(word) <= block->length)
		__builtin_memcpy(&word, block->bytes + offset, sizeof(word));
	return word;
}

#endif
