/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_INLINE_ROUNDING_H
#define PYLEAK_ENGINE_INLINE_ROUNDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "inline_read.h"
#include "pyleak/account.h"
#include "pyleak/inline_abi.h"

/* What allocators add to live blocks by rounding their sizes up, from a part of the shadow map. */
struct inline_rounding {
	uint64_t blocks;
	uint64_t bytes[2]; /* rounded to 8 and to 16 */
};
void inline_rounding_look(pid_t pid, const struct pl_inline_reader *reader, uint64_t chunks, struct inline_rounding *ret);
/* The pure part: adds up a page of entries; native: [count], by the recorder's number of a site, whether its blocks are
 * malloc's. */
void inline_rounding_count(const uint32_t *entries, const bool *native, size_t count, struct inline_rounding *sums);
/* The size in an entry with a site; 0: it goes on beyond the page. */
uint64_t inline_rounding_size(const uint32_t *entries, size_t at);
/* Bytes a block; below 0: not known. */
double inline_rounding_mean(const struct inline_rounding *sums, uint32_t alignment);

#endif
