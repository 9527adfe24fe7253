/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_UNSEEN_H
#define PYLEAK_ENGINE_UNSEEN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "inline_read.h"
#include "old_pools.h"

/*
 * Frees that no hook saw: through a pointer that the program had stored before the recording began, or by a library that
 * cannot be hooked. The recorder finds such a block when its address is given out again. Before that, at the time of a
 * report, the marks of the C library (glibc) tell: the block's mapping is gone, or its chunk is free. All large blocks
 * are looked at, and of the others a sample that stands for the rest of its site.
 *
 * What is found is added to what the sites have freed, as long as the recorder does not know it.
 */

struct unseen_correction {
	uint32_t number;       /* the recorder's, of the site */
	uint32_t local, generation; /* which of those that had this number: the one in `sites`, and the row's */
	uint64_t size, count;  /* freed unseen, and a part of the site's totals now */
	uint64_t shown_size, shown_count; /* all that was freed, as it was shown last: never less */
};

struct unseen {
	struct unseen_correction *items; /* ascending by number */
	size_t item_count;
	uint64_t size, count; /* the sum */
	int64_t next_look_ns;
	bool said; /* why none are looked for */
};

/* After a pass: looks, but not more often than it may cost, and corrects the totals. Where pools of Apache Arrow are hooked,
 * blocks of glibc's are told from theirs by where they are, which `pools` knows; if it does not, none are looked for. */
void unseen_correct(struct unseen *unseen, pid_t pid, const struct pl_inline_reader *reader, const struct old_pools *pools);
/* Takes the corrections back from the totals: nothing is known any more. */
void unseen_free(struct unseen *unseen, const struct pl_inline_reader *reader);

/* -- blocks.c: live native blocks in the shadow map, without a stop --------------------------------- */

struct unseen_block {
	uint64_t address, size;
	uint64_t entry_at; /* where its entry is in the process … */
	uint32_t entry;    /* … and what it holds */
	bool small;        /* one of a sample */
};

struct unseen_blocks {
	struct unseen_block *items;
	size_t count;
	uint32_t *small_alive; /* by the recorder's site number, of `sites`: small blocks that were seen */
	uint32_t sites;
};

/* Blocks of at least so many bytes are large: the process's own mappings, mostly. */
#define UNSEEN_LARGE (UINT64_C(64) << 10)

/* `heaps`: where glibc's blocks can be, in order, beside those with a mapping of their own; NULL: anywhere, all are its own.
 * *ret is to be released in any case. 0 or -errno. */
int unseen_blocks_read(pid_t pid, const struct pl_inline_reader *reader, const struct pl_range *heaps, size_t heap_count,
		       struct unseen_blocks *ret);
void unseen_blocks_free(struct unseen_blocks *blocks);

/* -- marks.c: what glibc says of a block ------------------------------------------------------------ */

/* The words around a chunk. A chunk whose header cannot be read is gone. */
struct unseen_marks {
	uint64_t previous_size, head; /* in front of the block */
	uint64_t next_head, previous_head; /* where `head` says that the next chunk begins, and the one before */
};
enum unseen_state { UNSEEN_IN_USE, UNSEEN_FREE };

/* Where the heads of the neighbours are to be read; 0: not needed. Pure. */
uint64_t unseen_next_at(uint64_t address, const struct unseen_marks *marks);
uint64_t unseen_previous_at(uint64_t address, const struct unseen_marks *marks);
/* Whether a block for which `size` bytes were asked for is free: for certain, or it counts as in use. Pure. */
enum unseen_state unseen_judge(uint64_t size, const struct unseen_marks *marks);

/* Sets is_free[i] for each block. */
void unseen_look_at_marks(pid_t pid, const struct unseen_block *blocks, size_t count, bool *is_free);

#endif
