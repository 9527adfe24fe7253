/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_INLINE_BLOCKS_H
#define PYLEAK_ENGINE_INLINE_BLOCKS_H

#include <sys/types.h>

#include "inline_read.h"
#include "pyleak/engine.h"

/* See pl_engine_live_blocks(). 0 or -errno. */
int inline_blocks_read(pid_t pid, const struct pl_inline_reader *reader, const uint32_t *group_of_site, size_t site_count,
		       struct pl_live_blocks *blocks);

#endif
