/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ACCOUNT_READER_H
#define PYLEAK_ACCOUNT_READER_H

#include "pyleak/account.h"
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

#endif
