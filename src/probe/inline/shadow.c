/* SPDX-License-Identifier: MIT */
#include "record.h"

static bool is_left(u64 chunk)
{
	return (chunk & PL_INLINE_CHUNK_STATE) == PL_INLINE_CHUNK_LEFT;
}

/* The word of the directory as it is once a chunk that was about to leave is back. */
static u64 chunk_back(u64 *word)
{
	u64 chunk = __atomic_load_n(word, __ATOMIC_ACQUIRE);

	while (is_left(chunk)) {
		const u64 back = chunk & ~PL_INLINE_CHUNK_STATE;

		if (__atomic_compare_exchange_n(word, &chunk, back, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
			return back;
	}
	return chunk;
}

static u32 *entry_of(u64 chunk, u64 address)
{
	return (u32 *)(chunk + (address >> 2 & (PL_INLINE_CHUNK_BYTES - 4)));
}

u32 *pl_chunk_back(u64 address)
{
	u64 chunk = chunk_back((u64 *)pl_config.directory + (address >> PL_INLINE_CHUNK_SHIFT));

	return (int64_t)chunk > 0 ? entry_of(chunk, address) : NULL;
}

u32 *pl_chunk_install(u64 address)
{
	u64 high = address >> PL_INLINE_CHUNK_SHIFT, chunk, number, fresh = 0;
	u64 *word;

	/* Beyond the 47 bits of user space (five-level paging): the event counts as lost. */
	if (high >= PL_INLINE_DIRECTORY_ENTRIES)
		return NULL;
	word = (u64 *)pl_config.directory + high;
	/* Whoever loses this race has wasted a chunk that nobody ever touches: no memory. */
	while ((int64_t)(chunk = chunk_back(word)) <= 0) {
		if (!fresh) {
			if (__atomic_load_n(&control()->next_chunk, __ATOMIC_RELAXED) >= pl_config.chunk_count)
				return NULL;
			number = __atomic_fetch_add(&control()->next_chunk, 1, __ATOMIC_RELAXED);
			if (number >= pl_config.chunk_count)
				return NULL;
			fresh = pl_config.pool + number * PL_INLINE_CHUNK_BYTES;
		}
		if (__atomic_compare_exchange_n(word, &chunk, fresh, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
			return entry_of(fresh, address);
	}
	return entry_of(chunk, address);
}

/* The words after a large block's own entry; the last ones may lie in the next chunk. False: that one
 * cannot be had. */
bool pl_spill_write(u64 address, u64 size)
{
	u32 *word;

	for (u32 i = 1; i <= PL_INLINE_SPILL_WORDS; i++) {
		word = granule_make(address + 16 * i);
		if (!word)
			return false;
		*word = (u32)size & PL_INLINE_SIZE_SPILLED;
		size >>= PL_INLINE_SIZE_BITS;
	}
	return true;
}

u64 pl_spill_take(u64 address)
{
	u64 size = 0;
	u32 *word;

	for (u32 i = 1; i <= PL_INLINE_SPILL_WORDS; i++) {
		word = granule(address + 16 * i);
		if (!word)
			break;
		size |= (u64)(*word & PL_INLINE_SIZE_SPILLED) << (i - 1) * PL_INLINE_SIZE_BITS;
		*word = 0;
	}
	return size;
}

struct pl_inline_odd *pl_odd_find(u64 address)
{
	struct pl_inline_odd *table = (struct pl_inline_odd *)pl_config.odd;
	u64 at = mix(0, address);

	for (u32 i = 0; i < PL_INLINE_PROBES; i++, at++) {
		struct pl_inline_odd *odd = &table[at & pl_config.odd_mask];
		u64 found = __atomic_load_n(&odd->address, __ATOMIC_RELAXED);

		if (found == address)
			return odd;
		if (!found)
			return NULL;
	}
	return NULL;
}

struct pl_inline_odd *pl_odd_insert(u64 address)
{
	struct pl_inline_odd *table = (struct pl_inline_odd *)pl_config.odd;
	u64 at = mix(0, address);

	for (u32 i = 0; i < PL_INLINE_PROBES; i++, at++) {
		struct pl_inline_odd *odd = &table[at & pl_config.odd_mask];
		u64 found = __atomic_load_n(&odd->address, __ATOMIC_RELAXED);

		if (found <= 1 && __atomic_compare_exchange_n(
					  &odd->address, &found, address, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
			return odd;
	}
	return NULL;
}

/* A block at 16k + 8 of more than 16 bytes covers the granule at 16k + 16 whole. */
static bool owns_next_granule(u64 address, u64 size)
{
	return (address & 15) == 8 && size > 16;
}

struct taken pl_take_odd(u64 address)
{
	struct pl_inline_odd *odd = pl_odd_find(address);
	struct taken taken = {0, 0};
	u32 *entry;

	if (odd) {
		taken.entry = odd->entry;
		taken.size = odd->size;
		__atomic_store_n(&odd->address, 1, __ATOMIC_RELEASE);
		return taken;
	}
	entry = (address & 15) == 8 ? granule(address + 8) : NULL;
	if (!entry || !(*entry & PL_INLINE_ENTRY_ODD))
		return taken;
	taken.entry = *entry & ~(u32)(PL_INLINE_ENTRY_ODD | PL_INLINE_ENTRY_CODE);
	if (*entry & PL_INLINE_ENTRY_CODE)
		pl_code_died(address);
	*entry = 0;
	taken.size = ENTRY_SIZE(taken.entry);
	if (taken.size == PL_INLINE_SIZE_SPILLED)
		taken.size = pl_spill_take(address + 8);
	if (!ENTRY_SITE(taken.entry))
		taken.entry = 0;
	return taken;
}

/* An entry with the odd or the code bit, at the granule of an aligned block. */
struct taken pl_take_marked(u64 address, u32 *entry)
{
	struct taken taken = {*entry, 0};

	if (taken.entry & PL_INLINE_ENTRY_ODD)
		return (struct taken){0, 0};
	pl_code_died(address);
	*entry = 0;
	taken.entry &= ~(u32)PL_INLINE_ENTRY_CODE;
	if (!ENTRY_SITE(taken.entry))
		return (struct taken){0, 0};
	taken.size = ENTRY_SIZE(taken.entry);
	if (taken.size == PL_INLINE_SIZE_SPILLED)
		taken.size = pl_spill_take(address);
	return taken;
}

/* A block is born where the map still holds another: that one was freed in a way that no hook sees,
 * or is the inner part of a nested allocation. */
void pl_record_displaced(u64 address, u32 *entry, enum adder adder)
{
	struct taken old = *entry & PL_INLINE_ENTRY_ODD ? pl_take_odd(address - 8) : take(address);

	*entry = 0;
	if (old.entry)
		count_freed(ENTRY_SITE(old.entry), old.size, adder);
}

void pl_record_odd(u64 address, u64 size, u32 site, enum adder adder)
{
	struct taken old = pl_take_odd(address);
	struct pl_inline_odd *odd;
	u32 *entry;

	if (old.entry)
		count_freed(ENTRY_SITE(old.entry), old.size, adder);
	if (owns_next_granule(address, size)) {
		entry = granule_make(address + 8);
		if (!entry)
			goto lost;
		if (*entry)
			pl_record_displaced(address + 8, entry, adder);
		if (size >= PL_INLINE_SIZE_SPILLED && !pl_spill_write(address + 8, size))
			goto lost;
		*entry = entry_make(site, size) | PL_INLINE_ENTRY_ODD;
	} else {
		/* Not even 8-aligned and that large: no allocator that we know of. */
		odd = size <= UINT32_MAX ? pl_odd_insert(address) : NULL;
		if (!odd)
			goto lost;
		odd->entry = entry_make(site, 0);
		odd->size = (u32)size;
	}
	count_allocated(site, size, adder);
	return;
lost:
	count_up(&control()->lost_events);
}

static void put_back(u64 address, struct taken taken)
{
	u32 *entry;
	struct pl_inline_odd *odd;

	if (address & 15 && !((address & 15) == 8 && taken.size > 16)) {
		odd = pl_odd_insert(address);
		if (odd) {
			odd->entry = taken.entry;
			odd->size = (u32)taken.size;
			return;
		}
	} else {
		entry = granule_make((address + 8) & ~(u64)15);
		if (entry) {
			*entry = taken.entry | (address & 15 ? PL_INLINE_ENTRY_ODD : 0);
			if (ENTRY_SIZE(taken.entry) == PL_INLINE_SIZE_SPILLED)
				pl_spill_write((address + 8) & ~(u64)15, taken.size);
			return;
		}
	}
	count_freed(ENTRY_SITE(taken.entry), taken.size, adder_without_gil());
	count_up(&control()->lost_events);
}

/* A block that realloc was given and could not move is still there. */
void pl_put_back(u64 address, struct taken taken)
{
	/* The hook's own flag may be down already. */
	count_up(&control()->slotless);
	put_back(address, taken);
	(void)__atomic_fetch_sub(&control()->slotless, 1, __ATOMIC_RELEASE);
}
