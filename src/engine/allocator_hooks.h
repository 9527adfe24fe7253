/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_ALLOCATOR_HOOKS_H
#define PYLEAK_ENGINE_ALLOCATOR_HOOKS_H

#include "pyleak/hook.h"
#include "pyleak/python.h"

/* The hooks that both engines begin with: the functions of CPython's allocators. Hook = domain × 4 + function. */
enum { ALLOCATOR_HOOKS = PL_PYMEM_COUNT * PL_FN_COUNT };

/* Makes them the plan's first hooks, as the words are now; entries[hook]: where its entry is in the code. 0 or -errno
 * of reading. */
int allocator_hooks_plan(const struct pl_python *python, const uint32_t entries[ALLOCATOR_HOOKS],
	struct pl_probe_plan *plan);

#endif
