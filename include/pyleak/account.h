/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ACCOUNT_H
#define PYLEAK_ACCOUNT_H

#include <stdbool.h>
#include <stdint.h>

/*
 * What the resident size of a process consists of, at one moment, and what its growth between two moments comes from.
 * Figures and what is computed from them; account_reader.h takes them from a process.
 *
 * Parts are places: they add up to the resident size, exactly, as PL_ACCOUNT_OTHER is what is left.
 *
 *   arenas   CPython's: pymalloc's pools. Not found, so not known, in a free-threaded build (mimalloc), with
 *            PYTHONMALLOC=malloc, and of a subinterpreter with an allocator of its own.
 *   heap     the C library's, where it is glibc: the chunks of [heap] and of the other malloc arenas; blocks with a
 *            mapping of their own are not in it. What lies in glibc's thread caches and fast bins counts as used.
 *   stacks   of all threads.
 *   own      pyleak's probe and tables.
 *
 * Free is memory that the allocator holds, that is in memory, and that no block uses.
 */
enum pl_account_part {
	PL_ACCOUNT_ARENAS_USED,
	PL_ACCOUNT_ARENAS_FREE,
	PL_ACCOUNT_HEAP_USED,
	PL_ACCOUNT_HEAP_FREE,
	PL_ACCOUNT_FILES,
	PL_ACCOUNT_SHARED,
	PL_ACCOUNT_STACKS,
	PL_ACCOUNT_OWN,
	PL_ACCOUNT_OTHER,
	PL_ACCOUNT_PARTS,
};
/* In `apart`, behind the parts. */
enum {
	PL_ACCOUNT_APART_OVERHEAD = PL_ACCOUNT_PARTS, /* of the arenas */
	PL_ACCOUNT_APART_UNTOUCHED,
	PL_ACCOUNT_APART_POOLS,
	PL_ACCOUNT_APARTS,
};
enum { PL_ACCOUNT_CLASSES = 65 }; /* by size in units of 8 bytes: blocks of up to 512 */
enum { PL_ACCOUNT_ALIGNMENT = 16 }; /* where nothing else is known */

struct pl_account {
	bool taken; /* else nothing is known */
	uint64_t rss;
	int64_t parts[PL_ACCOUNT_PARTS]; /* bytes; OTHER can be a little below zero, as the others are read in turn */
	bool known[PL_ACCOUNT_PARTS];
	/* Of the used part of the arenas: what goes to headers of pools, and to their ends. */
	int64_t arenas_overhead;
	uint32_t alignment; /* what pymalloc rounds to: 8 or 16 */
	/* What allocators add to a tracked block on average: the taker's to fill. Below 0: not known. */
	double rounding;
	/* Of the tracked blocks: what is not in memory, as nobody has used it yet. The taker's to fill. */
	int64_t untouched;
	/* What is in memory of that which allocators mapped that are linked into an object (pools.h), but for tracked
	 * blocks within it. The taker's to fill. */
	int64_t pools;
	/* Of a family, so far: what processes had that came later, when they came, less what those had that ended, when they
	 * ended. The taker's to fill. */
	int64_t apart[PL_ACCOUNT_APARTS];
	uint32_t others; /* processes that were added to this one: pl_account_add() */
	/* By size class: free bytes in pools that also hold live blocks. */
	uint64_t class_free[PL_ACCOUNT_CLASSES];
};

/* Adds one of another process: what is not known of one is not known of all. */
void pl_account_add(struct pl_account *sum, const struct pl_account *one);

/*
 * Growth from one account to another by cause; the causes add up to the growth of the resident size. A part that is
 * not known in both is in the last one.
 */
enum pl_rss_cause {
	PL_CAUSE_TRACKED,     /* what the rows explain */
	PL_CAUSE_ROUNDING,    /* what allocators add to it: an estimate */
	PL_CAUSE_OLDER,       /* blocks from before the recording that were freed: below zero */
	PL_CAUSE_PROCESSES,   /* of a family: those that came or ended, with all that they had then */
	PL_CAUSE_POOLS,       /* allocators that are linked into an object */
	PL_CAUSE_UNTOUCHED,   /* what of it is not in memory: below zero */
	PL_CAUSE_ARENAS_FREE,
	PL_CAUSE_HEAP_FREE,
	PL_CAUSE_FILES,
	PL_CAUSE_SHARED,
	PL_CAUSE_STACKS,
	PL_CAUSE_OWN,
	/* What pl_places_explain() finds in the rest: memory of the process's own that it mapped itself, or in the data of its
	 * objects; and what is in use in the C library's heap and in no row. */
	PL_CAUSE_MAPPED,
	PL_CAUSE_HEAP_USED,
	/* Above zero: memory that no hooked allocator gave out. Below: frees that no hook saw. */
	PL_CAUSE_UNEXPLAINED,
	PL_CAUSES,
};
struct pl_rss_growth {
	bool known;
	int64_t rss;
	int64_t causes[PL_CAUSES];
	/* There is growth, and most of it is memory that was freed and that the allocators cannot give back. */
	bool fragmentation;
	uint32_t class_size; /* of the pools that hold most of it; 0: it is not in pools */
};
/* All but PL_CAUSE_PROCESSES are within the lives of processes, and so is `tracked` to be, with `rounding`.
 * `older`: bytes of blocks from before the recording that were freed. */
void pl_rss_growth_compute(const struct pl_account *before, const struct pl_account *now, int64_t tracked, int64_t rounding,
		       int64_t older, struct pl_rss_growth *ret);

/* What an allocator adds to a Python block of this size on average; alignment as in the account. */
uint32_t pl_account_rounding(uint64_t size, uint32_t alignment);
/* The same of a block that is malloc's, however small: a header, and a least size. */
uint32_t pl_account_malloc_rounding(uint64_t size);

#endif
