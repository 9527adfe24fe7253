/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_BREAKPOINT_ABI_H
#define PYLEAK_BREAKPOINT_ABI_H

/*
 * The breakpoint engine's probe: one entry for each of the twelve allocator functions, which stops
 * the thread at a breakpoint instruction. Shared by src/probe/breakpoint.S and the engine.
 *
 * Hook number = domain × 4 + function (enum pl_pymem_domain, enum pl_allocator_function).
 *
 * The frame of an entry that calls the original, from the stack pointer up, at both of its breakpoints:
 *
 *   + 0   first argument after ctx  (size, count, or pointer)
 *   + 8   second one                (element size, or new size)
 *   + 16  the mark: PL_BREAKPOINT_MARK ^ its own address, wiped before the entry returns
 *   + 24, 32  unused (alignment)
 *   + 40  return address
 *   + 48  the caller's frame
 *
 * A mark further up the stack says that this call was made by an outer allocator function, which
 * will be the one that counts. It names its own address, so that a copy of it elsewhere is none.
 */

#include "pyleak/probe.h"

/* Whole pages, the largest that there are: PL_PAGE_MAX comes from meson.build, see page.h. */
#if PL_PAGE_MAX < 0x2000
#define PL_BREAKPOINT_CODE_SIZE 0x2000
#else
#define PL_BREAKPOINT_CODE_SIZE PL_PAGE_MAX
#endif
#define PL_BREAKPOINT_DATA_SIZE PL_PAGE_MAX
#define PL_BREAKPOINT_HOOKS 12

/* In the data page. */
#define PL_BREAKPOINT_ARMED 0   /* u32: entries stop; 0: they pass through */
#define PL_BREAKPOINT_INSIDE 4  /* u32: threads between the call of an original and the return */
#define PL_BREAKPOINT_SCRATCH 64 /* struct pl_kernel_sigaction, twice: arguments of rt_sigaction */

#define PL_BREAKPOINT_FRAME_MARK 16
#define PL_BREAKPOINT_FRAME_SIZE 40
#define PL_BREAKPOINT_FRAME_RETURN 40
#define PL_BREAKPOINT_FRAME_CALLER 48
#define PL_BREAKPOINT_MARK 0x70796c65616b6d6b

#ifndef __ASSEMBLER__

/* Offsets into the image of what each hook has; 0: not there. */
struct pl_breakpoint_entry {
	uint32_t entry;        /* what the allocator's word is redirected to */
	uint32_t before_call;  /* where a thread stops before the original (realloc, free) */
	uint32_t after_call;   /* and where after it (malloc, calloc, realloc) */
	uint32_t reserved;
};

extern const uint8_t pl_breakpoint_image[PL_BREAKPOINT_CODE_SIZE];
extern const struct pl_breakpoint_entry pl_breakpoint_entries[PL_BREAKPOINT_HOOKS];
extern const uint32_t pl_breakpoint_trap_handler;
extern const uint32_t pl_breakpoint_restorer;

#endif
#endif
