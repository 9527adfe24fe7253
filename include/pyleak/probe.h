/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_PROBE_H
#define PYLEAK_PROBE_H

/*
 * What every probe has in common, whichever engine planted it: where it is mapped, how it is
 * recognised, and what has to be put back. Read by this pyleak, by the guardian, and by the next
 * pyleak that comes along; also included by assembly (constants only).
 *
 *   PL_PROBE_BASE or _LOW_BASE + i × PL_PROBE_STRIDE        r-x, private, anonymous: written from outside only
 *   ┌───────────────────────────────┐ 0x0000
 *   │ struct pl_probe_header        │ magic, ABI, the process it was made for, saved SIGTRAP action
 *   │ struct pl_probe_hook[]        │ one for each redirected word: address, original, entry
 *   ├───────────────────────────────┤ 0x1000
 *   │ code of the engine            │
 *   ├───────────────────────────────┤ code_size
 *   │ struct pl_probe_hook[]        │ r-x like the code: further hooks, as they come (inline only)
 *   ├───────────────────────────────┤
 *   │ data of the engine            │ rw-, private, anonymous; a forked child sees zeros
 *   └───────────────────────────────┘ total_size
 *
 *   PL_PROBE_TABLES_BASE + i × PL_PROBE_TABLES_STRIDE (or _LOW_…)       rw-, likewise, not reserved
 *   ┌───────────────────────────────┐
 *   │ tables of the engine          │ (inline only: sites, traces, the map of live blocks)
 *   └───────────────────────────────┘ tables_size
 *
 * The address is far from where the kernel puts anything of its own, so that a mapping which begins
 * there is known to be pyleak's, even one that was mapped and never filled because pyleak was
 * killed in between. The header lies in the part that a fork keeps: a child's words can be put back
 * too.
 */

#define PL_PROBE_BASE 0x70796c000000 /* "pyl" */
#define PL_PROBE_STRIDE 0x1000000
#define PL_PROBE_PLACES 16
#define PL_PROBE_TABLES_BASE 0x707a00000000
#define PL_PROBE_TABLES_STRIDE 0x4000000000 /* 256 GiB */
/* The same in processes whose addresses do not go so far: 39 bits on kernels for small machines, 42 with pages of 64 KiB.
 * Programs are put from two thirds of 39 bits on, or higher, and what they map is below the end. */
#define PL_PROBE_LOW_BASE 0x20796c0000
#define PL_PROBE_LOW_PLACES 8
#define PL_PROBE_LOW_TABLES_BASE 0x2100000000
#define PL_PROBE_LOW_TABLES_STRIDE 0x500000000 /* 20 GiB */

#define PL_PROBE_ABI 3
#define PL_PROBE_MAX_HOOKS 120
#define PL_PROBE_CODE_OFFSET 0x1000

/* Offsets that assembly needs; the assertions below hold them to the structs. */
#define PL_PROBE_HOOKS_OFFSET 168
#define PL_PROBE_HOOK_SIZE 32
#define PL_PROBE_HOOK_ORIGINAL 8
#define PL_PROBE_SAVED_HANDLER 56

#ifndef __ASSEMBLER__

#include <stddef.h>
#include <stdint.h>

#define PL_PROBE_MAGIC "pyleak\0p"

enum pl_probe_engine { PL_PROBE_BREAKPOINT = 1, PL_PROBE_INLINE = 2 };

/* The kernel's struct sigaction, as rt_sigaction takes it. */
struct pl_kernel_sigaction {
	uint64_t handler;
	uint64_t flags;
	uint64_t restorer;
	uint64_t mask;
};

struct pl_probe_header {
	char magic[8];
	uint32_t abi;
	uint32_t engine;     /* enum pl_probe_engine */
	uint64_t code_size;  /* [base, base + code_size) is r-x */
	uint64_t total_size; /* all of it, to be unmapped */
	uint32_t hook_count; /* complete before the first word is redirected */
	uint32_t pid;        /* the process it was planted in: another one is a forked child */
	uint64_t trap_handler; /* the probe's SIGTRAP handler, 0: none was installed */
	uint64_t armed_address;  /* u32 in the data: entries record; 0: they pass through */
	struct pl_kernel_sigaction saved_trap; /* what rt_sigaction said before; valid if trap_handler */
	/* Threads that left the code for an original function and will return into it: a u32 in the
	 * data counts them, or each has the word `mark ^ its own address` on its stack meanwhile. Or both:
	 * the inline engine counts objects that are on their way through a deallocator. */
	uint64_t inside_address; /* 0: no count */
	uint64_t mark;           /* 0: no marks */
	uint64_t tables;         /* 0: none */
	uint64_t tables_size;
	uint32_t kept; /* 1: planted to stay (--keep); 0: its pyleak is at work, or was killed */
	uint32_t inside_words; /* u32s at inside_address; all of them must be 0 */
	/* Further hooks: a row is complete before it counts, and counts before its word is redirected. */
	uint64_t words; /* address of rows; 0: none */
	uint32_t word_count, word_capacity;
	/* The routine that changes words: see struct pl_probe_errand. errand_entry 0: there is none, they are changed from
	 * outside while all threads are stopped. */
	uint64_t errand_entry, errand_end; /* of its code */
	uint64_t errand;                   /* where what it is told is */
};

/*
 * What changes words is a routine of the probe, in a thread of the process: a write from outside is not known to be one
 * store, and others go on meanwhile. It is told what to do in memory of the probe, does it row by row, and returns.
 */
enum pl_probe_errand_kind {
	PL_PROBE_ERRAND_SWAP,      /* a word of 8 bytes, if it holds `expected` */
	PL_PROBE_ERRAND_PROTECTED, /* the same in a page that is read-only, and is so again afterwards */
	/* `desired` is added to a number that is smaller (as an unsigned one), or taken off one that is not (and not negative). */
	PL_PROBE_ERRAND_RAISE_8, PL_PROBE_ERRAND_RAISE_4, PL_PROBE_ERRAND_LOWER_8, PL_PROBE_ERRAND_LOWER_4,
};
enum pl_probe_errand_result {
	PL_PROBE_ERRAND_UNTRIED,
	PL_PROBE_ERRAND_TRYING, /* where it stands, or ran into a fault */
	PL_PROBE_ERRAND_DONE,
	PL_PROBE_ERRAND_OTHER,  /* it held something else */
	PL_PROBE_ERRAND_DENIED, /* its page cannot be made writable */
};
struct pl_probe_errand_row {
	uint64_t address, expected, desired;
	uint32_t kind, result;
};
enum { PL_PROBE_ERRAND_ROWS = 120 };
enum pl_probe_errand_state { PL_PROBE_ERRAND_IDLE, PL_PROBE_ERRAND_ASKED };
struct pl_probe_errand {
	uint32_t state;  /* the tracer's ASKED, before a thread is sent; IDLE again when the routine is through */
	uint32_t next;   /* the first row to be done */
	uint32_t count;  /* rows */
	uint32_t page_bytes; /* of this kernel; 0: 4096 */
	uint64_t page;   /* of a read-only mapping, writable at this moment; 0: none */
	struct pl_probe_errand_row rows[PL_PROBE_ERRAND_ROWS];
};
/* The argument of the madvise() that the routine ends with: a page that nobody can have mapped. */
#define PL_PROBE_ERRAND_END 0xfffffffff000

enum pl_probe_hook_kind {
	PL_PROBE_HOOK_WORD,
	/* The count of a free list, an int32_t, to which the probe may have added a bias so that nothing
	 * is parked. Put back by counting the chain, which is linked through the word at 8. */
	PL_PROBE_HOOK_COUNT,
	/* The length of a free list, an int64_t, to which the tracer added a bias for the same purpose. */
	PL_PROBE_HOOK_LENGTH,
	/* The same of an int32_t. */
	PL_PROBE_HOOK_LENGTH_INT,
	/* A word of a loaded object's GOT that its code only jumps through, so that what it holds is saved
	 * nowhere. The object may be unloaded, and another one loaded in its place. */
	PL_PROBE_HOOK_GOT,
	/* A word of the landing page (landing.h): nobody but its stub reads it. */
	PL_PROBE_HOOK_LANDING,
	/* A word of a loaded object that is loaded as a value, or a type's tp_dealloc. It leads to a stub of the landing page, which is not a
	 * part of the probe and stays: that such a word holds something else by then, or was copied, is harmless. */
	PL_PROBE_HOOK_LOADED,
};

struct pl_probe_hook {
	uint64_t address;  /* of the redirected word, aligned to 8; or of the count or length */
	uint64_t original; /* what it held; or the address of the chain's head; or nothing */
	uint64_t entry;    /* what we put there: an address in the probe's code, or of a stub; or the bias */
	uint32_t kind;     /* enum pl_probe_hook_kind */
	uint32_t object;   /* which file was mapped at address (pl_map_identity()), 0: not said */
};

_Static_assert(sizeof(struct pl_probe_header) == PL_PROBE_HOOKS_OFFSET, "the hooks follow the header");
_Static_assert(sizeof(struct pl_probe_hook) == PL_PROBE_HOOK_SIZE, "read by assembly");
_Static_assert(offsetof(struct pl_probe_hook, original) == PL_PROBE_HOOK_ORIGINAL, "read by assembly");
_Static_assert(offsetof(struct pl_probe_header, saved_trap.handler) == PL_PROBE_SAVED_HANDLER, "read by assembly");
_Static_assert(PL_PROBE_HOOKS_OFFSET + PL_PROBE_MAX_HOOKS * PL_PROBE_HOOK_SIZE <= PL_PROBE_CODE_OFFSET, "they fit");

#endif
#endif
