/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_INLINE_ROUNDING_H
#define PYLEAK_ENGINE_INLINE_ROUNDING_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "pyleak/account.h"
#include "pyleak/inline_abi.h"

/* What allocators add to live blocks by rounding their sizes up, from a part of the shadow map. */
struct inline_rounding {
	uint64_t blocks;
	uint64_t bytes[2]; /* rounded to 8 and to 16 */
};
void inline_rounding_look(pid_t pid, const struct pl_inline_config *config, uint64_t chunks, struct inline_rounding *ret);
/* The pure part: adds up a page of entries. */
void inline_rounding_count(const uint32_t *entries, struct inline_rounding *sums);
/* The size in an entry with a site; 0: it goes on beyond the page. */
uint64_t inline_rounding_size(const uint32_t *entries, size_t at);
/* Bytes a block; below 0: not known. */
double inline_rounding_mean(const struct inline_rounding *sums, uint32_t alignment);

#endif
