/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ACCOUNT_READER_H
#define PYLEAK_ACCOUNT_READER_H

#include "pyleak/account.h"
#include "pyleak/places.h"
#include "pyleak/python.h"

/*
 * Takes the account of a process: from outside, from /proc and remote memory, without a stop and without touching a page
 * that is not in memory. The time it takes is bounded, see heap.h.
 */
struct pl_account_reader;
/* Finds what can be found once. -ENOMEM, -ESRCH, -EPERM: no account can be taken. `python` is borrowed. */
int pl_account_open(const struct pl_python *python, struct pl_account_reader **ret);
void pl_account_close(struct pl_account_reader *reader);
/* `own`: bytes of pyleak's in the process. An account that could not be taken says so; so does that of no reader. */
void pl_account_take(const struct pl_account_reader *reader, uint64_t own, struct pl_account *ret);

/*
 * Where the parts are that are told apart: arenas, the C library's heaps, stacks. What is anonymous memory beside these has
 * another owner. In order, none overlaps another; *ret is the caller's to free. 0; -ENOENT: not all of them can be found;
 * -ENOMEM, -ESRCH, -EPERM.
 */
int pl_account_places(const struct pl_account_reader *reader, struct pl_range **ret, size_t *ret_count);

/* pymalloc's own map of its arenas, proven by those that there are. Its root is 0: there is none, or it is not as such maps
 * are known to be. */
struct pl_arena_map pl_account_arena_map(const struct pl_account_reader *reader);

/* Where the C library's heaps are: likewise. */
int pl_account_heaps(const struct pl_account_reader *reader, struct pl_range **ret, size_t *ret_count);

/* What of the resident size lies where, one item for each mapping: not of arenas, heaps and stacks. Memory of the process's
 * own is not yet without what rows have: see pl_engine_owned(). 0; -errno as above; -E2BIG: of so many mappings, none. */
int pl_account_name(const struct pl_account_reader *reader, struct pl_places *ret);

#endif
