/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_PROBE_INLINE_RECORD_H
#define PYLEAK_PROBE_INLINE_RECORD_H

#include "probe.h"

/*
 * One block's birth and death.
 * The layout of an entry is drawn in inline_abi.h.
 *
 * Why more than one kind of totals. Measured on two cores of an EPYC (Zen 4), ns for an allocation and its
 * free, the hooks included, the original free of cost:
 *
 *   plain adds, slot 0 (GIL)                              11
 *   atomic adds, a slot for each thread, one thread       24
 *   the same, two threads, each at a site of its own      36 to 50
 *   the same, two threads at one site                     42 to 56
 *
 * and in a loop of int arithmetic on Debian's 3.11 12 ns more an iteration (two allocations, two
 * frees) than with plain adds, where the whole of the recorder costs 12. So under the GIL, where they
 * are exact, the adds are plain, and so are those of the first thread, which often is the only one that
 * allocates much without the GIL. Shards would take off what two threads at one site add, which is
 * little beside the rest, and multiply what a snapshot has to read.
 */

#define ENTRY_SIZE(entry) ((entry)&PL_INLINE_SIZE_SPILLED)
#define ENTRY_SITE(entry) ((entry) >> PL_INLINE_SITE_SHIFT)

inlined u32 entry_make(u32 site, u64 size)
{
	return site << PL_INLINE_SITE_SHIFT | (u32)(size < PL_INLINE_SIZE_SPILLED ? size : PL_INLINE_SIZE_SPILLED);
}

/* Of a chunk that is about to be given back: it stays. NULL: it was. */
u32 *pl_chunk_back(u64 address);

/* The entry of the granule of address, or NULL where nothing was recorded yet. */
inlined u32 *granule(u64 address)
{
	u64 high = address >> PL_INLINE_CHUNK_SHIFT, chunk;

	if (unlikely(high >= PL_INLINE_DIRECTORY_ENTRIES))
		return NULL;
	chunk = __atomic_load_n((const u64 *)pl_config.directory + high, __ATOMIC_RELAXED);
	/* Nothing, or one that is about to leave: see PL_INLINE_CHUNK_LEFT. */
	if (unlikely((int64_t)chunk <= 0))
		return chunk ? pl_chunk_back(address) : NULL;
	return (u32 *)(chunk + (address >> 2 & (PL_INLINE_CHUNK_BYTES - 4)));
}

inlined u32 *granule_make(u64 address)
{
	u32 *entry = granule(address);

	return likely(entry) ? entry : pl_chunk_install(address);
}

/* Who adds to the totals: the holder of the main GIL, the first thread without it, any other thread. */
enum adder { PLAIN, FIRST, SHARED };

/* Of a thread that has not got the main GIL. */
inlined enum adder adder_without_gil(void)
{
	return thread_pointer() == pl_config.leader ? FIRST : SHARED;
}

/* Size before count and all before the block is given out: see the reader's rule in the ABI. */
inlined void count_allocated(u32 site, u64 size, enum adder adder)
{
	struct pl_inline_totals *totals = totals_of(site);

	if (adder == SHARED) {
		(void)__atomic_fetch_add(&totals->shared_allocated_size, size, __ATOMIC_RELAXED);
		(void)__atomic_fetch_add(&totals->shared_allocated_count, 1, __ATOMIC_RELAXED);
	} else {
		add(adder == PLAIN ? &totals->allocated_size : &totals->first_allocated_size, size);
		add(adder == PLAIN ? &totals->allocated_count : &totals->first_allocated_count, 1);
	}
}

inlined void count_freed(u32 site, u64 size, enum adder adder)
{
	struct pl_inline_totals *totals = totals_of(site);

	if (adder == SHARED) {
		(void)__atomic_fetch_add(&totals->shared_freed_size, size, __ATOMIC_RELAXED);
		(void)__atomic_fetch_add(&totals->shared_freed_count, 1, __ATOMIC_RELAXED);
	} else {
		add(adder == PLAIN ? &totals->freed_size : &totals->first_freed_size, size);
		add(adder == PLAIN ? &totals->freed_count : &totals->first_freed_count, 1);
	}
}

/* What the map knew of a block that is taken out of it. entry 0: nothing. */
struct taken {
	u32 entry;
	u64 size;
};

struct taken pl_take_odd(u64 address);
struct taken pl_take_marked(u64 address, u32 *entry);
void pl_record_odd(u64 address, u64 size, u32 site, enum adder adder);
void pl_put_back(u64 address, struct taken taken);
void pl_record_displaced(u64 address, u32 *entry, enum adder adder);

inlined struct taken take(u64 address)
{
	struct taken taken = {0, 0};
	u32 *entry;

	if (unlikely(address & 15))
		return pl_take_odd(address);
	entry = granule(address);
	if (unlikely(!entry))
		return taken;
	taken.entry = *entry;
	if (unlikely(taken.entry & (PL_INLINE_ENTRY_ODD | PL_INLINE_ENTRY_CODE)))
		return pl_take_marked(address, entry);
	/* Nothing, or a word of a large block's size. */
	if (unlikely(!ENTRY_SITE(taken.entry))) {
		taken.entry = 0;
		return taken;
	}
	*entry = 0;
	taken.size = ENTRY_SIZE(taken.entry);
	if (unlikely(taken.size == PL_INLINE_SIZE_SPILLED))
		taken.size = pl_spill_take(address);
	return taken;
}

inlined void record(u64 address, u64 size, u32 site, enum adder adder)
{
	u32 *entry;

	if (unlikely(address & 15)) {
		pl_record_odd(address, size, site, adder);
		return;
	}
	entry = granule_make(address);
	if (unlikely(!entry))
		goto lost;
	if (unlikely(*entry))
		pl_record_displaced(address, entry, adder);
	if (unlikely(size >= PL_INLINE_SIZE_SPILLED) && !pl_spill_write(address, size))
		goto lost;
	*entry = entry_make(site, size);
	count_allocated(site, size, adder);
	return;
lost:
	count_up(&control()->lost_events);
}

#endif
