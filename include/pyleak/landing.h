/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_LANDING_H
#define PYLEAK_LANDING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "pyleak/error.h"
#include "pyleak/maps.h"
#include "pyleak/page.h"
#include "pyleak/trace.h"

/*
 * The landing page: where words lead that a program loads as values, and those of the interpreter's types that it loads long
 * before it calls through them (engine/free_lists.c). It may have kept what it loaded anywhere (in an
 * object of its heap, in a register that a deeper frame has pushed), so what such a word was given stays good for as long
 * as the process lives. Two pages (of the largest that there are) apart from the probe:
 *
 *   PL_LANDING_BASE or _LOW_BASE + i × PL_LANDING_STRIDE
 *   ┌───────────────────────────────┐ 0x0000  r-x, private, anonymous: written from outside only
 *   │ struct pl_landing_header      │
 *   │ struct pl_landing_row[]       │ which function each stub stands for
 *   │ stubs, 16 bytes each          │ pl_arch_stub(): jmp *word(%rip)
 *   ├───────────────────────────────┤ PL_LANDING_WORDS  rw-, private, anonymous; a forked child has a copy
 *   │ a word for each stub          │ the function itself, or while it records the recorder's entry for it
 *   └───────────────────────────────┘ PL_LANDING_SIZE
 *
 * A word is a hook like any other (PL_PROBE_HOOK_LANDING): put back at the end. A stub is two instructions, the second
 * of which reads the word and jumps: a thread stopped in front of it goes where the word leads then. So nobody has to be
 * proven to be out of this page, and it is never unmapped.
 *
 * A later pyleak finds the page and uses it again: pointers that were kept are recorded again. The process can write
 * anything there: nothing of it is believed but what could be made anew just so. A page that another version made (or that
 * does not hold what it should) is left alone, and another place is taken. A child that was forked has the page as it was.
 */

#define PL_LANDING_MAGIC "pyleak\0l"
enum {
	PL_LANDING_VERSION = 1,
	PL_LANDING_PLACES = 4,
	PL_LANDING_SIZE = 2 * PL_PAGE_MAX,
	PL_LANDING_CAPACITY = 120,
	PL_LANDING_STUBS = 0x800,  /* offsets */
	PL_LANDING_FILLED = 0x1000, /* with the stubs: nothing is behind it on the first page */
	PL_LANDING_WORDS = PL_PAGE_MAX,
	PL_LANDING_STUB_SIZE = 16,
};
/* Behind the places of probes, see probe.h. */
#define PL_LANDING_BASE 0x70797e000000
#define PL_LANDING_LOW_BASE 0x20f0000000
#define PL_LANDING_STRIDE ((PL_LANDING_SIZE + UINT64_C(0xffff)) & ~UINT64_C(0xffff))

struct pl_landing_header {
	char magic[8];    /* written last */
	uint32_t version; /* of everything but the magic */
	uint32_t capacity;
	uint32_t count;   /* rows, each complete before it counts */
	uint32_t reserved[11];
};

struct pl_landing_row {
	uint64_t original; /* the function */
	uint32_t kind;     /* how it is called: the caller's number */
	uint32_t reserved;
};

struct pl_landing {
	uint64_t base;     /* 0: there is no place for one */
	bool mapped;       /* it is there, with `there` rows of those below */
	uint32_t there;
	uint32_t count;    /* with those that are to be added (hook/words.h) */
	struct pl_landing_row rows[PL_LANDING_CAPACITY];
};

/* Finds the page, or a place for one. Does not touch the process. 0 (look at ret->mapped), -ESRCH, -EPERM … */
int pl_landing_find(pid_t pid, const struct pl_maps *maps, struct pl_landing *ret);

/* Whether any version of pyleak has left a landing page in the process: its address, 0: none that can be seen. */
uint64_t pl_landing_present(pid_t pid);

/* The row for calls of this kind to this function, a new one if need be; PL_LANDING_CAPACITY: no room, or no place. */
uint32_t pl_landing_row(struct pl_landing *landing, uint64_t original, uint32_t kind);

static inline uint64_t pl_landing_stub(const struct pl_landing *landing, uint32_t row)
{
	return landing->base + PL_LANDING_STUBS + (uint64_t)row * PL_LANDING_STUB_SIZE;
}
static inline uint64_t pl_landing_word(const struct pl_landing *landing, uint32_t row)
{
	return landing->base + PL_LANDING_WORDS + (uint64_t)row * sizeof(uint64_t);
}
/* The row whose stub is at `address`; PL_LANDING_CAPACITY: it is none of a row's. */
uint32_t pl_landing_row_at(const struct pl_landing *landing, uint64_t address);

#endif
