/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_INLINE_CONFIG_H
#define PYLEAK_INLINE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pyleak/inline_abi.h"
#include "pyleak/page.h"
#include "pyleak/python.h"

/*
 * The tracer's half of the recorder, without a process: how large its data are and where each table
 * lies, and what the tables say.
 */

struct pl_inline_options {
	uint32_t frames;      /* 1 … PL_INLINE_FRAMES_MAX */
	uint64_t sample;      /* 0: record everything */
	uint64_t tables;      /* of memory; 0: a share of the process's own */
	uint64_t chunk_count; /* 64 MiB of the heap each, 16 MiB of address space; 0: as many as the default */
};

/* The size of the one data mapping, control page first. All of it is zeroed in a forked child but its
 * last PL_INLINE_KEPT_SIZE bytes: config.free_lists.inside, and behind it struct pl_probe_errand. */
enum { PL_INLINE_KEPT_SIZE = PL_PAGE_MAX, PL_INLINE_ERRAND_OFFSET = 64 };
uint64_t pl_inline_data_size(const struct pl_inline_options *options);

/*
 * Fills all of the config but what only the process can tell: original, slot, thread_tls and its kin (3.12+),
 * thread_own (optional), gil, pid and times, which the caller adds.
 */
void pl_inline_configure(const struct pl_inline_options *options, const struct pl_python *python, uint64_t data_base,
	struct pl_inline_config *ret);

/* Whether all that malloc() and its kin give is glibc's, as far as entries are given out: else what stands before blocks
 * means nothing. */
bool pl_inline_is_glibcs(const struct pl_inline_config *config);

#endif
