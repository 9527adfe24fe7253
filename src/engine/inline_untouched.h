/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_INLINE_UNTOUCHED_H
#define PYLEAK_ENGINE_INLINE_UNTOUCHED_H

#include <stdint.h>
#include <sys/types.h>

#include "inline_read.h"
#include "old_pools.h"

/*
 * Of the live blocks that are recorded: bytes of whole pages that are not in memory, because nobody has written to them yet
 * (numpy.empty(), the data stack of a greenlet) or because they were swapped out. Blocks of less than four pages are not
 * looked at: allocators put them where memory was used before. Bounded: of more than INLINE_UNTOUCHED_PAGES pages of the
 * shadow map, and of more than 4 GiB of blocks, a part stands for the rest.
 */
enum { INLINE_UNTOUCHED_PAGES = 8192 };
struct inline_touched {
	int64_t untouched;
	/* What is in memory of what allocators mapped that are linked into an object, and by how much more is of what they had
	 * before, but for blocks in it that are recorded themselves (of Apache Arrow's pools). Not of the blocks above. */
	int64_t pools;
	int64_t *by_site; /* the caller's, or NULL: what is added to what is not in memory, by the site's number in `sites` … */
	size_t site_count; /* … of which it has so many */
};
void inline_untouched_look(pid_t pid, const struct pl_inline_reader *reader, struct old_pools *old, struct inline_touched *ret);

#endif
