/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_APART_H
#define PYLEAK_CLI_APART_H

#include "targets.h"

/*
 * Of a family: what its processes bring with them as they come, and take along as they end, is no growth of anybody's. It is
 * summed up, so that the growth of the family can be told from that: what its processes grew by while they lived.
 */

/* As soon as what a new member's start brings is over, its account is taken: what it has then it came with. */
void pl_apart_look(struct pl_target *target);
/* An account of a member that lives, and its places (both the sums' own too). */
void pl_apart_account(struct pl_targets *targets, struct pl_target *target, const struct pl_account *account);
void pl_apart_places(struct pl_targets *targets, struct pl_target *target, const struct pl_places *places);
/* It has ended, with what it had when it was last looked at. */
void pl_apart_end(struct pl_targets *targets, struct pl_target *target);
/* Into the sums of all that live. */
void pl_apart_into_account(const struct pl_targets *targets, struct pl_account *sum);
int pl_apart_into_places(const struct pl_targets *targets, struct pl_places *sum); /* 0, -ENOMEM */

#endif
