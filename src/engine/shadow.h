/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_SHADOW_H
#define PYLEAK_ENGINE_SHADOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "pyleak/inline_abi.h"

/* A walk over what is in memory of the recorder's shadow map (inline_abi.h), while the recorder goes on. */
struct shadow_walk {
	pid_t pid;
	int pagemap; /* of the process: pl_resident_open() */
	const struct pl_inline_config *config;
	uint64_t pages_left; /* no more of them are read: 4 KiB are for 16 KiB of heap */
	uint64_t step;       /* of the pages that are in memory each step-th is read; 0 or 1: all */
	/* `count` entries that stand at `shadow` in the process; the first is that of the granule at `address`. */
	void (*see)(void *context, const uint32_t *entries, size_t count, uint64_t shadow, uint64_t address);
	void *context;
	/* Whether what begins in these addresses is looked at; NULL: all is. */
	bool (*wants)(void *context, uint64_t start, uint64_t end);
	uint64_t number; /* of the walk: pages met so far */
};
/* 0 or -errno. */
int shadow_walk(struct shadow_walk *walk);

/* How many of its pages are in memory. 0: it cannot be read. */
uint64_t shadow_pages(const struct shadow_walk *walk);

/* The size of the block whose entry is the first of `count`; 0: it is not known, as it stands in entries beyond. */
uint64_t shadow_size(const uint32_t *entries, size_t count);

#endif
