/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_NATIVE_CALLER_H
#define PYLEAK_ENGINE_NATIVE_CALLER_H

#include "pyleak/space.h"
#include "pyleak/stats.h"

/* From the return address of a native allocation to module, function and, with DWARF, line. Objects are opened once. */
struct native_callers {
	struct pl_space *space; /* borrowed */
	struct pl_sites *sites; /* borrowed: where strings are interned */
	struct pl_maps maps;
	int64_t maps_ns; /* when they were read */
	struct pl_unwinder *unwinder; /* NULL: not needed yet */
	struct native_module *modules;
	size_t module_count;
};

/* -ENOMEM; an address in no object, or in one that is gone, gets the name of its mapping or "<unknown>". */
int native_caller_find(struct native_callers *callers, uint64_t address, struct pl_native_caller *ret);
/* The object with this address, and as symbol the allocator that is linked into it; NULL: none that is known. -ENOMEM. */
int native_caller_pool(struct native_callers *callers, uint64_t address, struct pl_native_caller *ret);
/* What names their functions, made when it is first needed. NULL: out of memory. */
struct pl_unwinder *native_callers_unwinder(struct native_callers *callers);
void native_callers_free(struct native_callers *callers);

#endif
