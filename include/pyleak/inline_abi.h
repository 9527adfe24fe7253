/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_INLINE_ABI_H
#define PYLEAK_INLINE_ABI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What the recorder in the tracee (src/probe/inline) and the tracer share: every table that one
 * writes and the other reads. Both sides are the same architecture, so plain structs.
 *
 *   code, r-x                                data, rw, one mapping right behind the code
 *   ┌──────────────────────────────┐         ┌─ control ──┐ one page: mode, cursors, what was lost
 *   │ struct pl_probe_header  0    │         ├─ slots ────┤ per thread: caches of the frame walk
 *   │ (probe.h; with the hooks)    │         ├─ directory ┤ shadow map, level 1: 8 bytes per 64 MiB
 *   ├──────────────────────────────┤         ├─ pool ─────┤ shadow map, level 2: chunks of 16 MiB
 *   │ struct pl_inline_image  4096 │         ├─ odd ──────┤ the few blocks that the map cannot hold
 *   │ struct pl_inline_config 4608 │────────>├─ totals ───┤ struct pl_inline_totals [site]
 *   ├──────────────────────────────┤         ├─ sites ────┤ struct pl_inline_site [site]
 *   │ type copies             8192 │         ├─ index ────┤ uint32_t, hash -> site
 *   │ text                   12288 │         ├─ frames ───┤ uint64_t, the traces
 *   └──────────────────────────────┘         │            │
 *                                            ├─ codes ────┤ struct pl_inline_code [code]
 *                                            ├─ code_index┤ uint32_t, hash of the content -> code
 *                                            ├─ code_map ─┤ struct pl_inline_code_entry, address -> code
 *                                            ├─ arena ────┤ bytes of names and line tables
 *                                            ├─ stacks ───┤ struct pl_inline_stack, a ring
 *                                            ├─ bounds ───┤ struct pl_inline_bounds [slot]
 *                                            ├─ skips ────┤ uint16_t [site], until a stack is copied
 *                                            ├─ reading ──┤ uint8_t [slot], see probe/inline/thread.h
 *                                            └─ inside ───┤ one page that a forked child keeps
 *
 * Rules for whoever maps it:
 *  - the data begin zeroed, NORESERVE; addresses and sizes go into the config before the first hook;
 *    all of the data gets MADV_WIPEONFORK (a forked child sees mode 0 and zeros: it passes through,
 *    and a child forked from a signal handler in the midst of the recorder finds memory, not a hole)
 *    and MADV_DONTDUMP;
 *  - the code mapping is filled from outside, complete with config, before the first hook; what the
 *    pass-through needs (original functions) lies in it alone. In mode 0 only the code mapping and
 *    the control page are touched, and `reading` while the interpreter ends;
 *  - the order: map, fill, hooks, then mode. To stop: mode 0, hooks back, proof, unmap.
 *
 * Proof that no thread is in the code: an instruction pointer, a general register or a signal
 * frame's saved register within the code mapping means inside. A thread that left the code for an
 * original function and will return has on its stack, at some 8-aligned address A at or above its
 * stack pointer, the word PL_INLINE_MARKER ^ A. No other word of the recorder's is needed: at every
 * instant of a thread's stay either its rip is in the code (or saved in a signal frame) or its
 * marker stands. The marker is wiped before the return.
 */

#define PL_INLINE_MAGIC 0x31656e696c6e6970ull /* "pinline1" */
/* In the word of a native caller: its mapping is a pool's. */
#define PL_INLINE_CALLER_POOL (1ull << 63)

#define PL_INLINE_ABI 13
#define PL_INLINE_MARKER 0x6d61726b70796c21ull

enum { PL_INLINE_IMAGE_OFFSET = 4096, PL_INLINE_CONFIG_OFFSET = 4608, PL_INLINE_TYPES_OFFSET = 8192,
       PL_INLINE_TEXT_OFFSET = 12288 };

/* The image that is carried in pyleak, with room for the header and an empty config. */
extern const unsigned char pl_inline_bytes[];
extern const size_t pl_inline_bytes_size;

/* Domains and functions in the order of python.h. Entry = domain × 4 + function. */
enum pl_inline_domain { PL_INLINE_RAW, PL_INLINE_MEM, PL_INLINE_OBJ, PL_INLINE_DOMAINS };
enum pl_inline_function { PL_INLINE_MALLOC, PL_INLINE_CALLOC, PL_INLINE_REALLOC, PL_INLINE_FREE, PL_INLINE_FUNCTIONS };
enum { PL_INLINE_ENTRIES = PL_INLINE_DOMAINS * PL_INLINE_FUNCTIONS, PL_INLINE_ENTRIES_MAX = 120 };

/* Types whose deallocator parks blocks. Their entries follow those of the allocators: for each a
 * deallocator, then for each the function that frees an object of the copied type. */
enum pl_inline_type { PL_INLINE_LIST, PL_INLINE_DICT, PL_INLINE_TUPLE, PL_INLINE_FLOAT, PL_INLINE_TYPES };
enum {
	PL_INLINE_ENTRY_DEALLOC = PL_INLINE_ENTRIES,
	PL_INLINE_ENTRY_TYPE_FREE = PL_INLINE_ENTRY_DEALLOC + PL_INLINE_TYPES,
	PL_INLINE_ENTRY_CREATED = PL_INLINE_ENTRY_TYPE_FREE + PL_INLINE_TYPES,
	PL_INLINE_ENTRY_NATIVE,
	PL_INLINE_TYPE_BYTES = 512,
};

/*
 * Native allocators: functions that objects call through a word of their GOT. An entry serves one kind of
 * call and one function that the words held before; there are several entries of each kind, because a
 * process may have several functions of it (malloc and operator new of an allocator; the C libraries of
 * two namespaces). The tracer gives them out: an entry is free while its original is 0, and its original
 * is written before the first word leads to it.
 */
enum pl_inline_native {
	PL_INLINE_NATIVE_ALLOC,          /* (size, …): malloc, valloc, pvalloc, operator new */
	PL_INLINE_NATIVE_CALLOC,         /* (count, size) */
	PL_INLINE_NATIVE_ALIGNED,        /* (alignment, size): aligned_alloc, memalign */
	PL_INLINE_NATIVE_REALLOC,        /* (block, size) */
	PL_INLINE_NATIVE_REALLOCARRAY,   /* (block, count, size) */
	PL_INLINE_NATIVE_POSIX_MEMALIGN, /* (&block, alignment, size) */
	PL_INLINE_NATIVE_FREE,           /* (block, …): free, cfree, operator delete */
	PL_INLINE_NATIVE_MMAP,
	PL_INLINE_NATIVE_MUNMAP,
	PL_INLINE_NATIVE_MREMAP,
	PL_INLINE_NATIVE_POOL_ALLOCATE, /* of arrow::MemoryPool: see probe/inline/pools.c */
	PL_INLINE_NATIVE_POOL_REALLOCATE,
	PL_INLINE_NATIVE_POOL_FREE,
	PL_INLINE_NATIVE_KINDS,
};
/* Entries of each kind, in this order. */
#define PL_INLINE_NATIVE_ENTRIES(X) X(ALLOC, 16) X(CALLOC, 3) X(ALIGNED, 6) X(REALLOC, 5) X(REALLOCARRAY, 4) \
	X(POSIX_MEMALIGN, 3) X(FREE, 16) X(MMAP, 4) X(MUNMAP, 3) X(MREMAP, 3) \
	X(POOL_ALLOCATE, 6) X(POOL_REALLOCATE, 6) X(POOL_FREE, 6)
#define PL_INLINE_NUMBER(name, count) \
	PL_INLINE_FIRST_##name, PL_INLINE_LAST_##name = PL_INLINE_FIRST_##name + (count) - 1,
enum {
	PL_INLINE_BEFORE_NATIVE = PL_INLINE_ENTRY_NATIVE - 1,
	PL_INLINE_NATIVE_ENTRIES(PL_INLINE_NUMBER)
	PL_INLINE_ENTRY_COUNT,
};
#undef PL_INLINE_NUMBER
static inline uint32_t pl_inline_native_first(enum pl_inline_native kind)
{
#define PL_INLINE_FIRST(name, count) [PL_INLINE_NATIVE_##name] = PL_INLINE_FIRST_##name,
	static const uint8_t first[] = {PL_INLINE_NATIVE_ENTRIES(PL_INLINE_FIRST)};
#undef PL_INLINE_FIRST

	return first[kind];
}
static inline uint32_t pl_inline_native_count(enum pl_inline_native kind)
{
#define PL_INLINE_COUNT(name, count) [PL_INLINE_NATIVE_##name] = (count),
	static const uint8_t counts[] = {PL_INLINE_NATIVE_ENTRIES(PL_INLINE_COUNT)};
#undef PL_INLINE_COUNT

	return counts[kind];
}
_Static_assert((int)PL_INLINE_ENTRY_COUNT <= (int)PL_INLINE_ENTRIES_MAX, "the image has room for them");

/* What is special about a native entry, in config.flags. */
enum {
	/* The original is glibc's: the size of a block stands before it. Of a free of Python's: that of what is no pool's. */
	PL_INLINE_NATIVE_GLIBC = 1,
	PL_INLINE_NATIVE_THROWS = 2, /* an operator new that throws: config.quiet is called first */
	PL_INLINE_NATIVE_PYTHON = 4, /* the interpreter's own mmap: its arenas are not recorded */
	PL_INLINE_NATIVE_POOL = 8,   /* mmap by an allocator that is linked into the object: of a site of its own */
};

/* At PL_INLINE_IMAGE_OFFSET, filled when the image is linked. */
struct pl_inline_image {
	uint64_t magic;
	uint32_t abi;
	uint32_t size; /* of the whole image */
	uint32_t entry_count;
	uint32_t entry[PL_INLINE_ENTRIES_MAX]; /* offsets in the image */
	uint32_t errand, errand_end; /* of the routine of struct pl_probe_errand, likewise */
};

/* Offsets of the tracee's structs, from struct pl_python_layout. -1: this version has no such field. */
struct pl_inline_layout {
	int32_t object_type;
	int32_t thread_interpreter, thread_id, thread_frame, cframe_frame;
	int32_t interpreter_gil; /* 3.12+: interp.ceval.gil, a pointer; -1: one GIL for all, or none */
	int32_t frame_previous, frame_code, frame_instruction, frame_owner, frame_tlbc_index;
	int32_t code_filename, code_name, code_first_line, code_line_table; /* code_name: qualname where there is one */
	int32_t code_first_traceable, code_bytecode, code_tlbc;
	int32_t string_length, string_state, string_ascii_data, string_compact_data, string_data_pointer;
	int32_t bytes_size, bytes_data;
	uint32_t owner_skip_min;         /* frames with owner >= this are shims; 256: none */
	uint32_t owner_generator;        /* 1 */
	uint32_t instruction_is_index;   /* <= 3.10: an int32_t in the frame, not a pointer */
	uint32_t instruction_scale;      /* bytes per unit of that index: 1, on 3.10: 2 */
	uint32_t string_state_wide;      /* 3.14t+ */
	int32_t type_flags;
	uint64_t code_mask;              /* and-ed to frame_code: ~0, or ~3 where it is tagged (3.14+) */
};

/*
 * Free lists. CPython parks freed blocks of some types and gives them out again without asking the
 * allocator: they would stay charged to the line that had them first. For each type in `type` the
 * hook of its tp_dealloc points an object of exactly that type to a byte copy of the type, which lies
 * in the code mapping, and jumps to the original, which frees what is not of the exact type. The
 * copy's tp_dealloc is the original, so that the trashcan, which compares it, goes on working, and
 * its tp_free is an entry of ours that gives the object its type back. In between the object is
 * counted in `inside`: an object that waits in the trashcan, or whose items' finalizers run Python
 * code in whatever thread or greenlet, still needs the copy. This is done in every mode, a forked
 * child's included (a hook that only passed through would hide the type from the trashcan).
 *
 * Floats of 3.10 and later have deallocations that do not look at tp_dealloc (_PyFloat_ExactDealloc).
 * Their list is a chain and a count: the recorder adds `float_bias`, the list's limit, to a count
 * below it. Nothing is parked then, and what is parked is given out until the chain is empty. A full
 * collection sets the count to zero; any deallocation that we see adds the bias again.
 *
 * Parked key tables of dicts have no type, and contexts and the one slice are taken by what a bias would change:
 * the next deallocation that we see frees them, and floats that were parked before the bias was there. Between
 * two instructions of the interpreter that call something such a list is whole.
 *
 * Frames (up to 3.10), bound methods and built-in functions (up to 3.8) are given out by the head of a chain alone:
 * the tracer adds a bias to the count, and nothing of ours runs. (Up to 3.10 each code object keeps one frame besides.)
 *
 * From 3.14 on most types have lists, all alike: a chain and its length, which a full collection leaves
 * as it is. The tracer adds a bias to each length, and nothing of ours runs.
 *
 * Without a GIL threads have their own: there, and where the lists of 3.14 are not found, the hook is the
 * interpreter's tracer of references (PyRefTracer_SetTracer), which is called with each object that comes
 * to life. One that the allocators' hooks have not just seen is from a list: its block is charged to the
 * line that gets it now. tracemalloc does the same. Neither learns of key tables.
 */
struct pl_inline_free_lists {
	struct {
		uint64_t type, dealloc; /* 0: not hooked */
		uint64_t copy, free;    /* free: what the type's own tp_free is */
	} type[PL_INLINE_TYPES];
	uint64_t tracer;      /* what the hooked word held: 0, or another tracer, which is called too */
	uint64_t inside;      /* two u32: counted under the main GIL, and elsewhere */
	uint64_t interpreter; /* 3.10+: the main one, whose lists these are; 0: there is one GIL and one set of lists */
	uint64_t float_count; /* of an int32_t; 0: unknown */
	/* What may be parked; the address of `nothing` where it is not known. */
	uint64_t float_head;    /* a chain, linked through the word at 8 */
	uint64_t keys_count;    /* of an int32_t */
	uint64_t context_count; /* of an int32_t */
	uint64_t slice_cache;   /* a word */
	uint64_t nothing;       /* 0 */
	uint64_t keys_list;     /* keys_count pointers, each to be freed by … */
	uint64_t keys_table;    /* … this allocator */
	uint64_t context_head, context_free, slice_free;
	uint32_t context_link, context_limit;
	uint32_t float_bias;
	uint32_t keys_limit;
	uint32_t dict_watched_offset, dict_watched_mask; /* 3.12+: its watchers may keep it alive; a mask of 0: none */
};

/* At PL_INLINE_CONFIG_OFFSET. Constant once the first hook stands, but for `original`, `quiet` and `flags` of native
 * entries that were free. Addresses are the tracee's. */
struct pl_inline_config {
	uint64_t original[PL_INLINE_ENTRIES_MAX]; /* by entry: the function word that the hook replaced */
	uint64_t slot[PL_INLINE_ENTRIES_MAX];     /* by entry: where that word lives; 0: not hooked */
	struct pl_inline_layout layout;
	/* The running thread state. thread_current != 0 (<= 3.11): the word with the GIL holder's.
	 * Else thread_tls is its offset from %fs (a TLS slot, 3.12+), 0 on detached threads; or with thread_module in
	 * the block of that module, see struct pl_python_current. */
	uint64_t thread_current;
	int64_t thread_tls;
	uint64_t thread_module;  /* its number; 0: no block */
	uint32_t thread_stride;  /* the block's address is in the vector at stride × module */
	int32_t thread_room;
	uint64_t thread_generation;
	/* <= 3.11, optional (0: unknown): offset from %fs of the thread's own state, GIL held or not
	 * (the pthread key of PyGILState, inside struct pthread on glibc). For the raw domain. */
	int64_t thread_own;
	uint64_t code_type;      /* &PyCode_Type; 0: do not check */
	uint64_t gil;            /* 3.12+ with a GIL: the main interpreter's GIL; else 0 */
	uint64_t free_threaded;
	uint64_t frame_limit;    /* 1 … PL_INLINE_FRAMES_MAX */
	uint64_t sample;         /* bytes per sample on average; 0: everything */
	uint64_t pool_bytes;     /* of pymalloc's pools: 4096 or 16384; 0: there are none to read sizes from */
	uint64_t arena_map;      /* 3.10+: the root of pymalloc's map of its arenas, see struct pl_arena_map; 0: not known */
	uint32_t arena_node_bits, arena_leaf_bits;
	uint64_t nested_size;    /* mem and obj requests larger than this reach the raw domain: 512; 0 with debug */
	uint64_t control, slots, directory, pool, odd, totals, sites, index, frames, codes, code_index, code_map, arena, stacks, bounds, skips;
	uint64_t slot_count;     /* thread slots besides slot 0; a power of two */
	uint64_t slot_stride;    /* PL_INLINE_SLOT_BYTES */
	uint64_t window_power;   /* PL_INLINE_WINDOW_BASE to the power of frame_limit − 1 */
	uint64_t chunk_count;    /* in pool */
	uint64_t odd_mask;       /* entries − 1; the same for *_mask below */
	uint64_t site_limit;     /* sites; at most PL_INLINE_SITES_MAX */
	uint64_t index_mask;
	uint64_t frames_limit;   /* words in frames */
	uint64_t code_limit;
	uint64_t code_index_mask;
	uint64_t code_map_mask;
	uint64_t arena_size;
	/* For whoever finds the probe later; the recorder does not read these. */
	uint64_t tables; /* --tables, in bytes; 0: a share of the process */
	uint64_t pid, start_time; /* of the tracee, as in /proc/PID/stat, in its own namespace */
	uint64_t planted_realtime, planted_monotonic; /* ns */
	uint64_t python_hex;
	uint64_t data_start, data_size; /* all data mappings lie in here */
	uint64_t code_size;
	uint64_t engine[16]; /* the tracer's own */
	struct pl_inline_free_lists free_lists;
	uint64_t native; /* 1: native words lead to us, or may yet */
	/* Of the process's first thread: its pthread_self() (0: unknown), and if the interpreter's first thread state is its
	 * own, that state (else 0) and the word with the newest interpreter. Frames of this state stay while that thread is
	 * in native code, GIL held or not: nobody but the thread itself ends the state, with the last interpreter. */
	uint64_t leader, leader_thread, interpreters_head;
	uint64_t leader_stack_end; /* of the mapping that the kernel gave the first thread as its stack; 0: not known */
	/* For other threads outside of the GIL, see probe/inline/thread.h. finalizing 0: their states are not looked at. */
	uint64_t finalizing;        /* the word that is not 0 once the interpreter has begun to end */
	uint64_t main_interpreter;
	uint64_t reading;           /* uint8_t [slot]: this thread looks at its state, and has not got the GIL */
	int32_t thread_native_id, thread_tid; /* in the state, and from the thread pointer; thread_tid 0: not compared */
	uint8_t flags[PL_INLINE_ENTRIES_MAX]; /* by entry */
	/* An exception cannot go through the code here, which no unwinder knows. So of an operator new the one that does
	 * not throw is called, and where that has nothing to give, the original is jumped to. By entry of the kind ALLOC. */
	uint64_t quiet[16];
	int64_t thread_self; /* pthread_self() from the thread pointer, where they are not the same */
	uint64_t page_bytes; /* of this kernel */
};

/* Whether the tables are so full that a traceback which is new gets a row of its top frame alone: three quarters. */
static inline bool pl_inline_is_short(const struct pl_inline_config *config, uint64_t next_site, uint64_t next_frame)
{
	return next_site >= config->site_limit / 4 * 3 || next_frame >= config->frames_limit / 4 * 3;
}

_Static_assert(PL_INLINE_IMAGE_OFFSET + sizeof(struct pl_inline_image) <= PL_INLINE_CONFIG_OFFSET, "the image header meets the config");
_Static_assert(PL_INLINE_CONFIG_OFFSET + sizeof(struct pl_inline_config) <= PL_INLINE_TYPES_OFFSET, "the config fits its page");
_Static_assert(PL_INLINE_TYPES_OFFSET + PL_INLINE_TYPES * PL_INLINE_TYPE_BYTES <= PL_INLINE_TEXT_OFFSET, "the copies fit their page");

/*
 * What the recorder does with an event: a word of three bytes, each with one writer while it is armed, so that none is lost.
 *
 *   0  0: pass through. The tracer arms and disarms by writing the whole word.
 *   1  1: the mem and obj domains do not run under one GIL: a slot for each thread, atomic adds. Set by the recorder when
 *      the first interpreter with its own GIL shows up.
 *   2  0: everything is recorded; else about one allocation in each so many bytes, by PL_INLINE_SAMPLE_GIVEN or as a power
 *      of two. Written by the tracer when the tables are at their limit, from then on never lower.
 *
 * From one rate to another, also from none. Each block's row says by which rate it was taken (struct pl_inline_totals), so
 * nothing that is in the map changes its meaning. A thread decides once, by the word that it has read; what it draws an
 * interval by it keeps in its slot, and the block that ends the interval is of that rate, whatever is written meanwhile: its
 * allocations were taken by that, those that follow by the next, each on its own. A tracer that dies before the byte, or
 * after it, leaves a recorder that does the one or the other.
 */
enum pl_inline_mode {
	PL_INLINE_OFF = 0,
	PL_INLINE_GIL = 1,
	PL_INLINE_MANY = 0x100,
	PL_INLINE_THREADS = PL_INLINE_GIL | PL_INLINE_MANY,
	PL_INLINE_SAMPLE_SHIFT = 16,
	PL_INLINE_SAMPLE_GIVEN = 1, /* config.sample; else the exponent of … */
	PL_INLINE_SAMPLE_MAX = 40,  /* … two, at most */
	PL_INLINE_SAMPLE = PL_INLINE_GIL | PL_INLINE_SAMPLE_GIVEN << PL_INLINE_SAMPLE_SHIFT,
};
static inline bool pl_inline_is_armed(uint32_t mode) { return (uint8_t)mode != 0; }
/* How allocations are sampled now; 0: not. */
static inline uint32_t pl_inline_sampling(uint32_t mode) { return mode >> PL_INLINE_SAMPLE_SHIFT & 0x7f; }
/* In bytes. A row's 0 is that of a row of no trace, too. `given`: config.sample */
static inline uint64_t pl_inline_rate(uint32_t sampling, uint64_t given)
{
	if (sampling <= PL_INLINE_SAMPLE_GIVEN)
		return given;
	return (uint64_t)1 << (sampling < PL_INLINE_SAMPLE_MAX ? sampling : PL_INLINE_SAMPLE_MAX);
}

/*
 * Reuse of rows. Sites that nothing live is of, and code objects that no such site names and that are dead, are used
 * again. Who finds them is the tracer, from outside and without a stop; the recorder does no more than it did but for
 * taking a spare row where it would have taken a new one. Nothing of this is on the way of an allocation whose site is
 * in a cache. Without a tracer nothing is freed, and the tables fill up: see pl_inline_is_short().
 *
 * A row of a site goes through this:
 *
 *   in use ──(1)──> set aside ──(2,3)──> proven ──(4)──> spare ──> in use, by the recorder
 *      ^───────── revived ──────┘
 *
 *   1. Its totals say that nothing lives (allocated = freed), and have not moved for a while. The lowest bit of `hash` is
 *      cleared, one byte: the recorder compares whole hashes, whose lowest bit is always set, so that nobody finds it by the
 *      index any more. Whoever has it already goes on with it, which is right: it keeps its frames, counts, and name.
 *   2. Grace. A thread that may know the number is one that is between having chosen a site and having added to its
 *      totals. All that time `outer` or `busy` of its slot is not 0, or `slotless` counts it. The tracer issues a
 *      membarrier(), which is a barrier on all processors that run anything, so that whoever loaded an index or a cache
 *      from before (1) is seen to be at work, and then waits until each slot was seen with both words 0, once, or its thread
 *      dead. After that nobody who has found it by (1) is on the way.
 *   3. Caches: entries of `top` that lead to it get a `code` that is nobody's, by one byte. The recorder may move entries
 *      within their set while that is done, so it is followed by another grace, and by another look, until none is found.
 *      Nobody can put it there again: nobody finds it.
 *   4. The totals are read once more. If something lives by now, or it is a slot's last_site, it is revived: its hash is
 *      restored. Else nobody will ever add to it: every block of it was freed, which is the last thing that is done with
 *      it, and there is no way left to its number. The hash becomes 0, then the totals 0 with the next `generation`.
 *
 * A free of a block needs no grace: as long as it has not added to the totals, they say that the block lives, and it does
 * nothing with the row after that. What is noted of blocks from before the probe has no flag; such rows are never freed,
 * are never taken of the spare ones, and keep the row whose frames they share.
 *
 * A code object's row is in use while a row of a site names it, or its address is in code_map. It is set aside in the same
 * way, and after a grace looked for again in both: in between a thread may have found it by its content. The caches of
 * walks name only code objects that are in code_map, or forget them before they are looked at.
 *
 * Spare rows are lists, for sites by the room that they have for frames, for code objects by that for text: the head in the
 * control page, the others by `next`. The tracer writes a head that is 0 only, and the recorder takes the first one
 * by compare-and-swap. A write from outside may be seen in parts: a head says its number twice (pl_inline_spare()).
 * That the first one is still followed by the same row is certain: to come back it would have to go through a grace,
 * which waits for the thread that has looked at it.
 *
 * The tracer's death: a row that is set aside is used on, and found again by the next tracer, which goes on with it. Rows that
 * it had freed and put into no list yet are found by their hash of 0, where the list that they would be in is empty: then
 * they are in nobody's list, and after a grace in nobody's hands. Code objects that were lost so stay lost: memory, nothing
 * else.
 *
 * Another reader at the same time sees by the generation that a row is another one, and by `reused` that what it knows
 * of code objects is not current. The indexes keep the words of rows that were freed: such a word is used again by whoever
 * wants to add one (the row's hash is 0, or belongs elsewhere), and no word becomes 0 again, which would cut a search short.
 */
enum {
	PL_INLINE_ROOM_WORDS = 4, /* frames are given out in multiples of this */
	PL_INLINE_SITE_ROOMS = 34,
	PL_INLINE_TEXT_LEAST = 64,
	PL_INLINE_TEXT_ROOMS = 53,
	PL_INLINE_CODE_NOBODY = 0xff, /* as the highest byte of `code` in a cache: no address has it */
};
static inline uint64_t pl_inline_spare(uint32_t number)
{
	return number ? number | (uint64_t)~number << 32 : 0;
}
/* The number that a head names; 0: none, or it is being written. */
static inline uint32_t pl_inline_spare_number(uint64_t head)
{
	return (uint32_t)head == ~(uint32_t)(head >> 32) ? (uint32_t)head : 0;
}
/* Rooms for text: 64 bytes, and four steps for each power of two above. The smallest that has room for `size`. */
static inline uint32_t pl_inline_text_room(uint64_t size)
{
	uint32_t power;

	if (size <= PL_INLINE_TEXT_LEAST)
		return 0;
	power = 57 - (uint32_t)__builtin_clzll(size - 1);
	return 4 * power + (uint32_t)((size - 1 - ((uint64_t)PL_INLINE_TEXT_LEAST << power)) >> (4 + power)) + 1;
}
static inline uint64_t pl_inline_text_bytes(uint32_t room)
{
	const uint32_t power = room ? (room - 1) / 4 : 0;

	return room ? ((uint64_t)PL_INLINE_TEXT_LEAST << power) + (((uint64_t)(room - 1) % 4 + 1) << (4 + power))
		    : PL_INLINE_TEXT_LEAST;
}

/*
 * Where an index looks for a hash at its i-th step: in four tables of growing size, one after the other, 16 steps in each,
 * so that few rows touch few pages. Like one search: what is in a later table is there because the steps in the earlier ones
 * found no free word, and no word becomes free (0) again. `mask`: of a size of 1024 or more.
 */
enum { PL_INLINE_LEVEL_PROBES = 16 };
static inline uint64_t pl_inline_place(uint64_t hash, uint32_t i, uint64_t mask)
{
	const uint32_t level = i / PL_INLINE_LEVEL_PROBES;
	const uint64_t size = (mask + 1) >> (level < 3 ? 6 - 2 * level : 1);

	return size + ((hash + i % PL_INLINE_LEVEL_PROBES) & (size - 1));
}
/* Whether a search for the hash comes to this place. */
static inline bool pl_inline_leads_to(uint64_t hash, uint64_t place)
{
	const uint64_t size = (uint64_t)1 << (63 - __builtin_clzll(place | 1));

	return ((place - hash) & (size - 1)) < PL_INLINE_LEVEL_PROBES;
}

/*
 * The control page. Counters of what was lost only grow; every one is a number of events unless it
 * says otherwise. Cursors count claims: they may run past their limit when a table is full.
 */
struct pl_inline_control {
	uint32_t mode;
	uint32_t reserved;
	uint64_t next_chunk;
	uint64_t next_site;      /* site numbers given are PL_INLINE_SITE_FIRST + 0, 1, … next_site − 1 */
	uint64_t next_frame;
	uint64_t next_code;      /* likewise from PL_INLINE_CODE_FIRST */
	uint64_t next_arena;
	uint64_t code_generation; /* code objects that died: the caches of other threads look at it */
	uint64_t lost_events;    /* not recorded: no room in the shadow map or beside it */
	uint64_t lost_sites;     /* recorded under PL_INLINE_SITE_LOST: the site table is full */
	uint64_t lost_codes;     /* frames without a name: the code table is full */
	uint64_t untraced;       /* recorded under PL_INLINE_SITE_UNKNOWN for want of a thread slot */
	uint64_t freed_unknown;  /* frees of blocks never seen (allocated before the probe), by Python's allocators */
	uint64_t freed_native;   /* the same by native ones */
	uint64_t freed_native_size; /* bytes of them, where the size is known (glibc) */
	uint64_t leader_gone;    /* the interpreter has ended: config.leader_thread may be looked at no more, ever */
	uint64_t workers_gone;   /* it has begun to end: the same for the states of other threads outside of the GIL */
	uint64_t next_stack;    /* of the ring of stacks: claims made … */
	uint64_t granted_stacks; /* … and what the tracer allows them to become */
	uint64_t bounds_wanted; /* rows of bounds that a thread has asked for, so far */
	/* The main thread's stack as it was when the tracer looked last; check as in struct pl_inline_bounds, with
	 * 0 for the owner. */
	uint64_t main_low, main_high, main_check;
	/* Of the reuse of rows: see struct pl_inline_reuse below. */
	uint64_t slotless;     /* threads that are at work without a slot, at this moment */
	uint64_t reused;       /* how often rows were freed: written by the tracer before it does */
	uint64_t site_limit;   /* rows of sites before new tracebacks are cut to one frame; 0: none; written by the tracer */
	uint64_t shortened;    /* tracebacks that were cut */
	uint64_t spare_sites[PL_INLINE_SITE_ROOMS], spare_codes[PL_INLINE_TEXT_ROOMS];
};
_Static_assert(sizeof(struct pl_inline_control) <= 4096, "one page");

/*
 * Shadow map. Level 1: directory[address >> 26], 2^21 words, each 0 or the address of a chunk.
 * Level 2: a chunk holds a 32-bit entry for each 16-byte granule of 64 MiB:
 *
 *   31           14 13    12   11   10         0
 *   ┌──────────────┬─────┬────┬────┬────────────┐
 *   │ site         │stack│code│odd │ size       │   0: no block begins here
 *   └──────────────┴─────┴────┴────┴────────────┘
 *
 *   size  2047: it did not fit; the next five entries (a block this large owns them) hold it, 11 bits
 *         each, lowest first, in the place of the size. With site 0 they can never be taken for blocks.
 *   odd   the block begins 8 bytes before this granule. Blocks at 16k + 8 that are larger than 16
 *         bytes cover the granule at 16k + 16 whole, so that its entry is theirs; smaller ones, and
 *         anything not even 8-aligned, go to the `odd` hash.
 *   code  the block is a code object with an entry in code_map: its free takes the entry out. With
 *         site 0: a code object from before the probe.
 *   stack the stack of this allocation was copied. The next block at this address has the bit no more: so
 *         the tracer sees which of the samples still live.
 *
 * The thread that owns the block owns the entry: no lock, no atomics.
 */
enum {
	PL_INLINE_CHUNK_SHIFT = 26,
	PL_INLINE_CHUNK_BYTES = 1 << 24,
	PL_INLINE_DIRECTORY_ENTRIES = 1 << 22, /* 48 bits of addresses */
	PL_INLINE_SIZE_BITS = 11,
	PL_INLINE_SIZE_SPILLED = (1 << PL_INLINE_SIZE_BITS) - 1,
	PL_INLINE_SPILL_WORDS = 5,
	PL_INLINE_ENTRY_ODD = 1 << 11,
	PL_INLINE_ENTRY_CODE = 1 << 12,
	PL_INLINE_ENTRY_STACK = 1 << 13,
	PL_INLINE_SITE_SHIFT = 14,
	PL_INLINE_SITES_MAX = 1 << 18,
};

/*
 * A chunk that came to hold nothing is given back to the system, while the recorder goes on. All of it is in the word of the
 * directory, which the tracer has changed by compare-and-swap in one held thread (struct pl_probe_errand):
 *
 *   chunk ──(1)──> LEFT ──(2: grace, look)──(3)──> EMPTY ──(4: madvise)──(5)──> chunk
 *     ^──── a hook ──┘                               └── a hook: another chunk of the pool
 *
 *   1. From now on a hook that comes to the word and finds LEFT puts the chunk back itself, by one compare-and-swap, and
 *      goes on as ever: nothing is lost, and (3) will find another word.
 *   2. A grace, as for rows (see "Reuse of rows"): after it no thread is on its way that had the chunk from before (1) and
 *      may write into it. All that write an entry which is not 0 say so by `outer`, `busy` or `slotless` while they have
 *      the chunk. Then all of the chunk is looked at, and found to be zeros, or the word is put back.
 *   3. This succeeds only if nobody was here since (1): then the chunk is what was seen, nothing, and nobody has it.
 *      From now on a block that is freed is none of this chunk's; one that is born makes another chunk.
 *   4. MADV_DONTNEED: the pages are zeros, as they were, and no memory.
 *   5. The chunk is back, if no other has come into its place; else it is lost, which is addresses and no memory. (If the
 *      tracer died before (4) was done, the next gives its pages back: no word leads to it, before and after a grace.)
 *      Chunks are given back only while more than half of the pool was never used.
 *
 * A hook that frees needs no grace: it may have the chunk from before (1), and be as late as it likes. It writes nothing
 * but zeros, and only where it has found an entry; if it had found one after (2), that would not have seen zeros only; and
 * what it reads of a chunk that was given back is 0, as it was. This is why the pages stay mapped, and why a chunk
 * never serves other addresses.
 *
 * The tracer's death: LEFT is undone by the next hook that comes there, and is as good as before for all others; or by the
 * next tracer that looks for empty chunks (it has the claim: nobody is at work then). EMPTY is as good as 0, and stays until a
 * hook brings another chunk: a thread may make the call of (4) long after the tracer died, or gave up waiting for it.
 * A forked child has neither directory nor chunks. Tests: test_given_back.c, test_given_back.py.
 */
#define PL_INLINE_CHUNK_LEFT (1ull << 63)
#define PL_INLINE_CHUNK_EMPTY (3ull << 62)
#define PL_INLINE_CHUNK_STATE (3ull << 62)

/* The chunk that a word of the directory leads to, also one that is about to leave. */
static inline uint64_t pl_inline_chunk(uint64_t word)
{
	return (word & PL_INLINE_CHUNK_STATE) == PL_INLINE_CHUNK_LEFT ? word & ~PL_INLINE_CHUNK_STATE : word;
}

/* Open addressing on the block's address, at most PL_INLINE_PROBES steps. address: 0 never used, 1 free again. */
struct pl_inline_odd {
	uint64_t address;
	uint32_t entry; /* as in the shadow map */
	uint32_t size;
};

/*
 * Sites. Numbers are given in order; one that nothing live needs may get another meaning, and then another generation.
 *
 * Totals only grow. allocated is added before the block is given out and freed after that, so at any
 * instant allocated >= freed, in size and in count. Plain fields are written under the main GIL only,
 * those of the first thread by that one only, where it has no GIL, and shared ones with atomic adds; the
 * total is their sum. What the holder of the GIL adds to is in one cache line. To read without a stop: copy
 * `totals` (frees lie before allocations in each row, so that a copy in address order
 * errs towards too much alive by the events of some nanoseconds, never below zero); read rows again
 * whose two copies differ in anything, until two agree or a few tries are over, and keep the last
 * copy with allocated >= freed.
 *
 * Sampled: an allocation of s bytes is taken with p(s) = 1 − exp(−s / sample), each on its own. The
 * rows then are of (trace, class of size), so that every block of a row has about the same p:
 * p of the row's average allocated size. An unbiased estimate of a trace is the sum over its rows of
 * n / p (blocks) and bytes / p; its variance the sum of n (1 − p) / p² and n s² (1 − p) / p², for the
 * live ones n = allocated − freed. PL_INLINE_SITE_UNKNOWN is not used; rows may have no frames. Blocks that were taken
 * before all that, or by another rate, are of other rows.
 */
struct pl_inline_totals {
	uint64_t first_freed_size, first_freed_count;
	uint64_t freed_size, freed_count;
	uint64_t shared_freed_size, shared_freed_count;
	uint64_t allocated_size, allocated_count;
	uint64_t shared_allocated_size, shared_allocated_count;
	uint64_t first_allocated_size, first_allocated_count;
	uint32_t generation; /* how often the row was freed */
	uint32_t next;       /* of a spare row */
	uint32_t room;       /* for frames, in PL_INLINE_ROOM_WORDS; stays */
	uint32_t sampling;   /* how its blocks were taken: pl_inline_rate(); set before the row is found by anybody */
	uint64_t unused[2];
} __attribute__((aligned(128))); /* 96 would make each hook multiply: 2 % of a loop that allocates */
_Static_assert(offsetof(struct pl_inline_totals, freed_size) / 64 == offsetof(struct pl_inline_totals, allocated_count) / 64,
	"the plain fields of a row are in one cache line");

enum {
	PL_INLINE_SITE_NONE,    /* never used */
	PL_INLINE_SITE_UNKNOWN, /* no Python frame, or none that could be read */
	PL_INLINE_SITE_LOST,    /* the table was full: whose block it was is lost, not that it lives */
	PL_INLINE_SITE_FIRST,
};

/* hash is stored last: a row with hash 0 is not ready (and has no totals yet), or spare. With the lowest bit 0 it is set
 * aside, and else as good as any other. UNKNOWN and LOST have no row. */
struct pl_inline_site {
	uint64_t hash;
	uint32_t frames; /* index of the first (innermost) of `count` words in frames */
	uint16_t count;
	uint8_t more;    /* the traceback went on */
	uint8_t kind;    /* 0: of Python; 1: native, and the word before the frames is the address it was called from;
			  * PL_INLINE_KIND_OLDER and more: blocks that are older than the probe */
};
_Static_assert(sizeof(struct pl_inline_site) == 16, "rows do not straddle cache lines");

/*
 * Blocks from before the probe have rows too, as they are freed: by the site that the thread which freed them had allocated
 * at last (it has no row of its own: nothing is known of that), whose frames the row has, and by class of size.
 * `allocated` of such a row is what was freed; its `freed` stays 0. Not where allocations are sampled.
 *
 * Classes: 0: the size is not known; 1 to 64: in units of 8 bytes, as pymalloc's; above that by powers of two.
 */
enum { PL_INLINE_KIND_OLDER = 2, PL_INLINE_OLDER_SMALL = 64, PL_INLINE_OLDER_CLASSES = PL_INLINE_OLDER_SMALL + 56 };
static inline uint32_t pl_inline_older_class(uint64_t size)
{
	/* 9: of the power of two that 512 is. */
	return (uint32_t)(size <= 8 * PL_INLINE_OLDER_SMALL ? (size + 7) / 8
							    : PL_INLINE_OLDER_SMALL + 64 - (uint64_t)__builtin_clzll(size) - 9);
}

/* A word of frames: code << 32 | offset, the byte offset of the instruction in the bytecode (int32_t; −1:
 * not started). Code PL_INLINE_CODE_LOST: the code table was full. */
static inline uint32_t pl_inline_frame_code(uint64_t frame) { return (uint32_t)(frame >> 32); }
static inline int32_t pl_inline_frame_offset(uint64_t frame) { return (int32_t)frame; }

enum { PL_INLINE_CODE_NONE, PL_INLINE_CODE_LOST, PL_INLINE_CODE_FIRST };
enum { PL_INLINE_CODE_CUT_FILENAME = 1, PL_INLINE_CODE_CUT_NAME = 2, PL_INLINE_CODE_CUT_LINES = 4 };
enum { PL_INLINE_FILENAME_MAX = 4096, PL_INLINE_NAME_MAX = 1024, PL_INLINE_LINES_MAX = 1 << 18 };

/* What a code object said of itself. Equal content, equal number, however often it was compiled.
 * In the arena from `data` on: file name, name, line table, each *_bytes long. kind: bytes per
 * character (1: Latin-1, of which ASCII is a part; 2; 4), as CPython stores it. */
struct pl_inline_code {
	uint64_t hash; /* stored last; 0, and the lowest bit: as of a site */
	uint64_t data;
	uint32_t filename_bytes, name_bytes, lines_bytes;
	int32_t first_line;
	uint8_t filename_kind, name_kind;
	uint16_t flags;
	uint32_t room; /* for text: pl_inline_text_bytes() */
	uint32_t next; /* of a spare row */
	uint32_t reserved[5];
};
_Static_assert(sizeof(struct pl_inline_code) == 64, "rows do not straddle cache lines");

/* address: 0 never used, 1 free again, 2 being written, else the code object. */
struct pl_inline_code_entry {
	uint64_t address;
	uint32_t code;
	uint32_t reserved;
};

enum { PL_INLINE_PROBES = 64 }; /* longest search in any hash table */

/*
 * Native stacks. Of some native allocations the recorder copies a piece of the stack, from the caller's frame
 * on, for the tracer to unwind. Which ones: `skips` has for each site how many of its allocations are let pass until
 * one is taken. It begins with none, and then is PL_INLINE_SKIP_ALL until the tracer, which decides of which sites
 * it wants to see more, writes another number: a random one, because the first allocation of a request is always the
 * same. And only if the tracer has granted more claims than were made. It grants a few at a time, when it has read
 * what there was: without a tracer nothing is copied. Several tracers see the same ring; that is all right,
 * since reading takes nothing out, and `sequence` tells what was overwritten.
 *
 * Of the sites of Python's own allocators none is taken until the tracer asks: there `skips` is 0, or which allocation from
 * the next one on that the caches of a slot do not know is taken. So to ask it also makes the caches forget the site, by
 * one byte of its code object's address (struct pl_inline_top): that costs the recorder nothing where nobody asks.
 *
 * What may be read without a fault? A copy that ran off the end of a stack would kill the process. So the
 * recorder reads nothing but what the tracer has seen to be the running thread's own stack:
 *  - the main thread's: from [low, high) of the mapping [stack], which grows at its low end only;
 *  - another thread's: the C libraries put the thread's descriptor (%fs:0) into the stack's mapping, above the
 *    stack; so with a stack pointer in [low, descriptor) all from there to the descriptor is stack. `low` is
 *    where the descriptor's mapping begins; the tracer takes it only if the stack's guard lies below it, so that
 *    it is not some other stack's.
 * On any other stack (an alternate one for signals, a coroutine's) the stack pointer is in neither, and nothing
 * is copied. A slot's row is asked for by the thread, which writes its descriptor's address, and filled in by
 * the tracer. Its words are not written at one instant: `check` tells when they belong together.
 */
enum { PL_INLINE_STACKS = 16, PL_INLINE_STACK_BYTES = 16384 };
/* On a stack that may not be read, so many are let pass. */
enum { PL_INLINE_SKIP_ALL = 65535, PL_INLINE_SKIP_UNREADABLE = 16 };

struct pl_inline_bounds {
	uint64_t owner; /* %fs:0 */
	uint64_t low, high;
	uint64_t check;
};
static inline uint64_t pl_inline_bounds_check(uint64_t owner, uint64_t low, uint64_t high)
{
	return owner ^ low ^ (high << 16 | high >> 48) ^ 0x626f756e6473212eull;
}

struct pl_inline_stack {
	uint64_t sequence; /* 1 + the claim, stored last; 0 while it is written */
	uint64_t block, size; /* as it was asked for */
	uint64_t pc, sp, bp; /* of the caller, after the return; the copy begins at sp */
	uint32_t site;
	uint32_t bytes; /* copied */
	uint32_t meanwhile; /* site of the last allocation with the GIL, whoever made it */
	uint32_t tid;       /* of this thread, in its own namespace, where the tracer said how to tell it; 0 */
	uint8_t copy[PL_INLINE_STACK_BYTES - 64];
};
_Static_assert(sizeof(struct pl_inline_stack) == PL_INLINE_STACK_BYTES, "the ring is of whole pages");

/*
 * A slot: what a thread remembers of its last frame walks. Slot 0 belongs to the holder of the main
 * GIL; the others to the thread whose thread pointer is in owner, for ever. The tracer need not read them.
 */
enum { PL_INLINE_FRAMES_MAX = 128, PL_INLINE_TOP_BITS = 10, PL_INLINE_TOPS = 1 << PL_INLINE_TOP_BITS,
       PL_INLINE_TOP_WAYS = 4, PL_INLINE_SEEN_BITS = 12, PL_INLINE_SEEN = 1 << PL_INLINE_SEEN_BITS,
       PL_INLINE_LEVELS = 1024, PL_INLINE_LEVEL_HASHES = 1024 };
/* Physical frames that a walk looks at to find `limit` of them: shims and incomplete ones in between. */
#define PL_INLINE_WALK(limit) ((limit) + (limit) / 2 + 8)
enum { PL_INLINE_WALK_MAX = PL_INLINE_WALK(PL_INLINE_FRAMES_MAX) };

/*
 * The stack as it was seen last, from the lowest frame that was looked at on (level 0) to the highest caller: each
 * level's frame was called by that of the one below. Compared with the stack at each allocation, so as dense as can be.
 */
struct pl_inline_level {
	uint64_t frame, instruction;
	uint64_t code; /* only where the instruction does not say whose it is (see walk.h) */
};

/* Odd, and as good as random. */
#define PL_INLINE_WINDOW_BASE 0xd1342543de82ef95ull

/* Of each level: the callers that a trace shows of what this frame's callee allocates, from this level down to `low`. */
struct pl_inline_window {
	uint64_t hash;    /* of their words */
	uint64_t word;    /* of this level's own frame in a trace; 0: a shim or incomplete, not part of it */
	uint64_t sum;     /* of all words on this level and below: see trace.c */
	uint32_t visible; /* how many those are */
	uint16_t low;     /* PL_INLINE_LEVELS: not all of them were looked at */
	uint8_t cut;      /* the stack goes on below */
	uint8_t reserved;
};

/*
 * (callers, top frame) -> site. The site in the lowest 19 bits, 0: empty; above it 45 bits of a hash of instruction
 * and callers, whose 10 highest choose the set: with those, and the code object, which is there whole, traces are told
 * apart as well as by the hash of a site.
 */
struct pl_inline_top {
	uint64_t code, key;
};
enum { PL_INLINE_TOP_KEY_SHIFT = 19 };
_Static_assert(PL_INLINE_SITES_MAX <= 1 << PL_INLINE_TOP_KEY_SHIFT, "the number of a site fits its bits");

/* What a frame turned out to be: (code object, instruction) -> its word in a trace. */
struct pl_inline_seen {
	uint64_t code, instruction, word;
	uint32_t generation, reserved; /* that of the slot, and 1; else it is not valid */
};

struct pl_inline_slot {
	uint64_t owner;
	uint64_t outer;      /* the stack marker of the outermost hook that this thread is in, or 0 */
	uint64_t last_freed; /* by the mem and obj domains */
	uint64_t interpreter; /* the last one known to share the main GIL */
	uint64_t code_generation;
	uint64_t thread;     /* the thread state last seen with this slot; 0: none, or it was freed */
	int64_t countdown;   /* bytes until the next sample */
	uint64_t random;     /* 0: not seeded */
	uint64_t last_site;  /* of this thread's last allocation; of slot 0: of the last one with the GIL */
	uint64_t last_made;  /* by the mem and obj domains, until it becomes an object */
	uint64_t number;     /* of this slot; set before the owner can find it */
	uint64_t busy;       /* the stack pointer of a native hook that is at work on this slot, or 0 */
	uint32_t generation; /* `seen` of another one is forgotten */
	uint32_t levels;     /* how many there are */
	uint64_t below;      /* the frame that called that of level 0; 0: nobody did */
	uint32_t drawn;      /* what `countdown` was drawn by, as in the mode; 0: not yet */
	uint32_t fired;      /* the same of the last sample; 0: there was none */
	struct pl_inline_top top[PL_INLINE_TOPS][PL_INLINE_TOP_WAYS] __attribute__((aligned(64)));
	struct pl_inline_seen seen[PL_INLINE_SEEN];
	struct pl_inline_level level[PL_INLINE_LEVELS];
	struct pl_inline_window window[PL_INLINE_LEVELS];
	uint16_t level_of[PL_INLINE_LEVEL_HASHES]; /* by a hash of the frame's address: the level that it may be at */
	uint64_t fresh[PL_INLINE_WALK_MAX];        /* scratch of a walk */
};
#define PL_INLINE_SLOT_BYTES ((sizeof(struct pl_inline_slot) + 4095) & ~(size_t)4095)

#endif
