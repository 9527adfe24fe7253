/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <stdlib.h>

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
