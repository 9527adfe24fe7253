/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ACCOUNT_PRIVATE_H
#define PYLEAK_ACCOUNT_PRIVATE_H

#include "pyleak/account_reader.h"
#include "pyleak/maps.h"

/* stacks.c: the stacks of all threads. */
void stacks_count(const struct pl_python *python, const struct pl_maps *maps, struct pl_account *ret);

#endif
