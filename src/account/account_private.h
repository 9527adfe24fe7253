/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ACCOUNT_PRIVATE_H
#define PYLEAK_ACCOUNT_PRIVATE_H

#include "pyleak/account_reader.h"
#include "pyleak/maps.h"

/* account.c */
struct pl_space *account_space(const struct pl_account_reader *reader);

/* stacks.c: where the stacks of all threads are, in order; pieces may be empty. How many, or -errno. */
ssize_t stacks_find(const struct pl_python *python, const struct pl_maps *maps, struct pl_range **ret);
/* What is in memory of them. */
void stacks_count(const struct pl_python *python, const struct pl_maps *maps, struct pl_account *ret);

#endif
