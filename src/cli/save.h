/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_SAVE_H
#define PYLEAK_CLI_SAVE_H

#include "pyleak/core.h"
#include "pyleak/holders.h"
#include "pyleak/options.h"

/* --save: a file that is there as a whole or not at all, for its owner alone. */

/* Whether it may be written, before anything is stopped for it. */
int pl_heap_save_check(const struct pl_options *options, struct pl_error *err);
/* `noting` is what the process was read through. */
int pl_heap_save(const struct pl_options *options, struct pl_space *noting, struct pl_heap_copy *copy,
	const struct pl_core_facts *facts, struct pl_error *err);

#endif
