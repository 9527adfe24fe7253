/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_STARTING_H
#define PYLEAK_CLI_STARTING_H

#include "pyleak/launch.h"

/*
 * Which of the processes that a program becomes is its Python, and when it may be hooked: as soon as a first frame runs
 * in it, which is one of importlib's, before any module of the standard library's own is imported.
 */
struct starting;

struct starting *starting_new(bool by_force); /* NULL: out of memory */
/* The question of pl_launch_follow(); context is the struct. */
pl_launch_question starting_ask;
void starting_free(struct starting *starting); /* NULL is allowed */

#endif
