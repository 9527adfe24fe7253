/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_REPORT_TERMS_H
#define PYLEAK_REPORT_TERMS_H

/* The words of a text report that a reader may look up: each is in the glossary of pyleak-output(7), which
 * tests/unit/test_terms.c compares with this table. Whoever prints one takes it from here. */

#define TERM_TRACKED "tracked"
#define TERM_RSS "RSS"
#define TERM_TOTAL "total"
#define TERM_MORE_ROWS "more rows"
#define TERM_GROWTH "growth in"
#define TERM_NET_GROWTH "net growth"
#define TERM_LOST "lost"
#define TERM_ERROR "error"
#define TERM_CHURN "churn"
#define TERM_MEMORY_BLOCKS "memory_blocks"
#define TERM_SIZE_KB "size_kB"
#define TERM_LIVE "live"
#define TERM_KNOWN_CAUSE "known cause"
#define TERM_NATIVE "native"
#define TERM_CALLED_BY "called by"
#define TERM_THREAD "thread"
#define TERM_MEANWHILE "meanwhile"
#define TERM_CALLED_FROM "called from"
#define TERM_ALLOCATED_IN "allocated in"
#define TERM_HELD_BY "held by"
#define TERM_LARGEST_TRACEBACK "largest traceback"
#define TERM_OVER_ALL "over all"
#define TERM_WINDOW "window"

/* What the growth of the resident size consists of. */
#define TERM_THESE_LINES "these lines"
#define TERM_ALL_LINES "all lines"
#define TERM_ROUNDING "rounding"
#define TERM_OLDER "older blocks freed"
#define TERM_PROCESSES "processes that came or ended"
#define TERM_POOLS "allocators that are linked in"
#define TERM_UNTOUCHED "not touched yet"
#define TERM_TOUCHED "of older blocks used only now"
#define TERM_MAPPED "other memory of its own"
#define TERM_HEAP_USED "in use in the C library's heap and in no row"
#define TERM_ARENAS_FREE "free in Python's arenas"
#define TERM_HEAP_FREE "free in the C library's heap"
#define TERM_FILES "mapped files"
#define TERM_SHARED "shared memory"
#define TERM_STACKS "thread stacks"
#define TERM_OWN "pyleak's tables"
#define TERM_UNEXPLAINED "unexplained"
#define TERM_SMALL "in parts below 1 %"

/* Verdicts. */
#define TERM_STEADY "steady growth"
#define TERM_TURNS_OVER "turns over"
#define TERM_LEVELS_OFF "levels off"
#define TERM_NO_TREND "no trend"
#define TERM_GROWS "grows"
#define TERM_CONTAINER "a container that grows"
#define TERM_STAY "of its blocks stay"
#define TERM_FILLS "fills the"

#define REPORT_TERMS                                                                                                   \
	{                                                                                                              \
		"size", "count", "average", "pid", TERM_TRACKED, TERM_RSS, TERM_TOTAL, TERM_MORE_ROWS, TERM_GROWTH,   \
			TERM_NET_GROWTH, TERM_LOST, TERM_ERROR, TERM_CHURN, TERM_MEMORY_BLOCKS, TERM_SIZE_KB,          \
			TERM_LIVE, TERM_KNOWN_CAUSE, TERM_NATIVE, TERM_CALLED_BY, TERM_THREAD, TERM_MEANWHILE, TERM_CALLED_FROM, TERM_ALLOCATED_IN, \
			TERM_HELD_BY, TERM_LARGEST_TRACEBACK, TERM_OVER_ALL, TERM_WINDOW, TERM_THESE_LINES, TERM_ALL_LINES, TERM_ROUNDING, TERM_OLDER,       \
			TERM_PROCESSES, TERM_POOLS, TERM_UNTOUCHED, TERM_TOUCHED, TERM_MAPPED, TERM_HEAP_USED, TERM_ARENAS_FREE, TERM_HEAP_FREE, TERM_FILES, TERM_SHARED,         \
			TERM_STACKS, TERM_OWN, TERM_UNEXPLAINED, TERM_SMALL, TERM_STEADY, TERM_TURNS_OVER,             \
			TERM_LEVELS_OFF, TERM_NO_TREND, TERM_GROWS, TERM_CONTAINER, TERM_STAY, TERM_FILLS,             \
	}

#endif
