/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_INLINE_SWEEP_H
#define PYLEAK_ENGINE_INLINE_SWEEP_H

#include "inline_reuse.h"

/* What the halves of a sweep share: sites (inline_reuse.c) and code objects (inline_reuse_codes.c). */

enum { SWEEP_RUN = 256 };

struct sweep {
	struct inline_reuse *reuse;
	struct inline_memory *memory;
	struct pl_inline_reader *reader;
	const struct pl_inline_config *config;
	struct pl_inline_control control;
	struct inline_slots slots;
	uint64_t site_count, code_count; /* numbers there are */
	struct pl_inline_site *rows;     /* [site_count] */
	struct pl_inline_code *codes;    /* [code_count] */
	uint8_t *sites_aside, *codes_aside;
	uint8_t *sites_stray; /* in no list, and perhaps in nobody's hands: a tracer was killed that gave them back */
	uint8_t *sites_lost; /* they name a code object that there was no room for */
};

uint64_t sweep_bounded(uint64_t count, uint64_t first, uint64_t limit);
/* The lowest byte of a row's hash, which is one store. */
int sweep_write_hash(const struct sweep *sweep, uint64_t at, uint64_t hash);
/* So many rows from `at` on are in the set, SWEEP_RUN at most. */
uint64_t sweep_run(const uint8_t *set, uint64_t at, uint64_t count);
int sweep_set_aside(const struct sweep *sweep, const uint8_t *aside, uint64_t count, uint64_t table, void *rows, size_t size);
/* The head of a list, if nobody has one there. `at`: in the control page. */
int sweep_publish(const struct sweep *sweep, uint64_t at, uint32_t number);

/* -- codes.c ------------------------------------------------------------------------------------------- */

/* A cursor of the control page as it is now: how many numbers there are. 0 or -errno. */
int sweep_read_cursor(const struct sweep *sweep, size_t offset, uint64_t first, uint64_t limit, uint64_t *ret);
int sweep_codes_aside(struct sweep *sweep);
int sweep_codes_revive(struct sweep *sweep);
int sweep_codes_give(struct sweep *sweep);

#endif
