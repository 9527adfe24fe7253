/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_PROBE_INLINE_TABLES_H
#define PYLEAK_PROBE_INLINE_TABLES_H

#include "probe.h"

/* Rows of sites and of code objects: found by their hash, which is a row's first word, and used again. See the ABI. */

struct index {
	u32 *words;
	u64 mask;
	u64 rows, row_size;
};

/* Where a new row goes; `word` is NULL: nowhere. */
struct place {
	u32 *word;
	u32 held;
};

enum { INDEX_TRIES = 4 }; /* if other threads add a word in the same place meanwhile */

/* The row with this hash; 0: there is none, and `ret_place` is filled. Two rows of one hash would be one: at a million
 * rows, one chance in thirty million. */
inlined u32 index_find(const struct index index, u64 hash, struct place *ret_place)
{
	*ret_place = (struct place){0};
	for (u32 i = 0; i < PL_INLINE_PROBES; i++) {
		const u64 at = pl_inline_place(hash >> 1, i, index.mask);
		const u32 found = __atomic_load_n(&index.words[at], __ATOMIC_ACQUIRE);
		const u64 *row = (const u64 *)(index.rows + found * index.row_size);
		const u64 other = found ? __atomic_load_n(row, __ATOMIC_ACQUIRE) : 0;

		if (found && other == hash)
			return found;
		/* Of a row that was freed since, and may be another's by now. */
		if (!ret_place->word && (!other || !pl_inline_leads_to(other >> 1, at)))
			*ret_place = (struct place){&index.words[at], found};
		if (!found)
			break;
	}
	return 0;
}

/* False: another thread was there first. The loser of a race for the same hash leaves a row that nothing points to. */
inlined bool index_put(struct place place, u32 row)
{
	return __atomic_compare_exchange_n(place.word, &place.held, row, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/* The first row of a list of spare ones; 0: there is none. `nexts` and `row_size`: where the rows name those that follow. Not
 * by a hook without a flag. */
inlined u32 spare_take(u64 *list, u64 limit, u64 nexts, u64 row_size)
{
	u64 head = __atomic_load_n(list, __ATOMIC_ACQUIRE);
	u32 number;

	while ((number = pl_inline_spare_number(head)) && number < limit)
		if (__atomic_compare_exchange_n(list, &head, pl_inline_spare(*(const u32 *)(nexts + number * row_size)), false,
			    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
			return number;
	return 0;
}

#endif
