/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ACCOUNT_PRIVATE_H
#define PYLEAK_ACCOUNT_PRIVATE_H

#include "pyleak/account_reader.h"
#include "pyleak/maps.h"

/* account.c */
struct pl_space *account_space(const struct pl_account_reader *reader);

/* stacks.c. Of thousands of threads each is a file to be read, and an account and its places are taken of one moment: so they
 * are remembered for a tenth of a second. All zeros: nothing is. */
struct stacks_seen {
	struct pl_range *items; /* owned */
	size_t count;
	int64_t at_ns;
};
/* Where the stacks of all threads are, in order; pieces may be empty. How many, or -errno. */
ssize_t stacks_find(const struct pl_python *python, const struct pl_maps *maps, struct stacks_seen *seen, struct pl_range **ret);
/* What is in memory of them. */
void stacks_count(const struct pl_python *python, const struct pl_maps *maps, struct stacks_seen *seen, struct pl_account *ret);

#endif
