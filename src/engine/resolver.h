/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_RESOLVER_H
#define PYLEAK_ENGINE_RESOLVER_H

#include <stddef.h>
#include <stdint.h>

#include "pyleak/python.h"
#include "pyleak/stats.h"
#include "pyleak/table.h"

/*
 * From a stack of code objects to a site, with everything that was read once kept: code objects by
 * address, resolved frames by (code object, instruction). A code object can die and its address be
 * used again; whoever sees the free of its block says so with pl_resolver_forget().
 */
struct pl_resolver {
	const struct pl_python *python;
	struct pl_sites *sites;
	struct pl_table codes;  /* address of the code object → struct resolved_code */
	struct pl_table frames; /* number of the code object and instruction → pl_frame */
	uint32_t next_code;
	struct pl_frame nowhere; /* of a frame whose code object cannot be read */
};

void pl_resolver_init(struct pl_resolver *resolver, const struct pl_python *python, struct pl_sites *sites);
void pl_resolver_free(struct pl_resolver *resolver);

/* The site of a stack, innermost frame first; UINT32_MAX: out of memory. */
uint32_t pl_resolver_site(struct pl_resolver *resolver, const struct pl_frame_ref *stack, size_t count, bool more);

/* The block at this address was freed: if it was a code object's, nothing is known of it any more. */
void pl_resolver_forget(struct pl_resolver *resolver, uint64_t address);

#endif
