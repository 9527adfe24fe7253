/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "pyleak/index.h"
#include "pyleak/table.h"

Test(table, empty_has_nothing)
{
	struct pl_table table = {0};

	cr_assert_null(pl_table_find(&table, 1));
	cr_assert(!pl_table_remove(&table, 1, NULL));
	pl_table_free(&table);
}

Test(table, insert_finds_the_same_entry_again)
{
	struct pl_table table = {0};
	struct pl_table_entry *entry = pl_table_insert(&table, 0x7f0000000010);

	cr_assert_not_null(entry);
	cr_assert_eq(entry->value[0], 0);
	entry->value[0] = 7;
	cr_assert_eq(pl_table_insert(&table, 0x7f0000000010)->value[0], 7);
	cr_assert_eq(table.count, 1);
	pl_table_free(&table);
}

/* Keys like addresses of one size class, inserted and removed at random, against a plain array. */
Test(table, agrees_with_an_array_over_a_million_random_steps)
{
	enum { KEYS = 4096, STEPS = 1000000 };
	static uint64_t model[KEYS];
	struct pl_table table = {0};
	size_t live = 0;

	srand(1);
	for (int step = 0; step < STEPS; step++) {
		size_t k = (size_t)rand() % KEYS;
		uint64_t key = 0x7f1200000000 + 48 * k;
		struct pl_table_entry out;

		if (rand() % 2) {
			struct pl_table_entry *entry = pl_table_insert(&table, key);

			cr_assert_eq(entry->value[0], model[k]);
			live += !model[k];
			model[k] = (uint64_t)step + 1;
			entry->value[0] = model[k];
		} else {
			bool had = pl_table_remove(&table, key, &out);

			cr_assert_eq(had, model[k] != 0);
			if (had) {
				cr_assert_eq(out.value[0], model[k]);
				live--;
			}
			model[k] = 0;
		}
		cr_assert_eq(table.count, live);
	}
	for (size_t k = 0; k < KEYS; k++) {
		const struct pl_table_entry *entry = pl_table_find(&table, 0x7f1200000000 + 48 * k);

		cr_assert_eq(entry ? entry->value[0] : 0, model[k]);
	}
	pl_table_free(&table);
}

static bool is_number(const void *context, uint32_t item, const void *wanted)
{
	return ((const uint64_t *)context)[item] == *(const uint64_t *)wanted;
}

/* With hashes of their own, with few that many have in common, and with none at all. */
Test(index, finds_what_was_added_whatever_the_hashes)
{
	enum { ITEMS = 3000 };
	static uint64_t items[ITEMS];

	for (uint64_t different = 1; different <= UINT64_C(1) << 40; different <<= 10) {
		struct pl_index index = {0};

		for (uint32_t i = 0; i < ITEMS; i++) {
			uint64_t hash;

			items[i] = 7 * (uint64_t)i;
			hash = pl_hash(0, items[i]) % different;
			cr_assert_eq(pl_index_find(&index, hash, is_number, items, &items[i]), UINT32_MAX);
			cr_assert(pl_index_add(&index, hash, i));
		}
		for (uint32_t i = 0; i < ITEMS; i++)
			cr_assert_eq(pl_index_find(&index, pl_hash(0, items[i]) % different, is_number, items, &items[i]), i);
		cr_assert_eq(index.count, ITEMS);
		pl_index_free(&index);
	}
}

Test(index, keeps_its_storage_where_room_was_made)
{
	struct pl_index index = {0};
	const struct pl_index_slot *slots;

	cr_assert(pl_index_reserve(&index, 1000));
	slots = index.slots;
	for (uint32_t i = 0; i < 1000; i++)
		cr_assert(pl_index_add(&index, pl_hash(1, i), i));
	cr_assert_eq(index.slots, slots);
	pl_index_free(&index);
}
