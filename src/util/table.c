/* SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "pyleak/index.h"
#include "pyleak/table.h"

#define FIRST_CAPACITY 256

static size_t home(const struct pl_table *table, uint64_t key)
{
	return (size_t)pl_hash(0, key) & table->mask;
}

static struct pl_table_entry *slot(const struct pl_table *table, uint64_t key)
{
	size_t i = home(table, key);

	while (table->entries[i].key && table->entries[i].key != key)
		i = (i + 1) & table->mask;
	return &table->entries[i];
}

struct pl_table_entry *pl_table_find(const struct pl_table *table, uint64_t key)
{
	if (!table->entries)
		return NULL;

	struct pl_table_entry *entry = slot(table, key);

	return entry->key ? entry : NULL;
}

static bool grow(struct pl_table *table)
{
	size_t capacity = table->entries ? 2 * (table->mask + 1) : FIRST_CAPACITY;
	struct pl_table larger = {.entries = calloc(capacity, sizeof(*larger.entries)), .mask = capacity - 1};

	if (!larger.entries)
		return false;
	for (size_t i = 0; table->entries && i <= table->mask; i++)
		if (table->entries[i].key)
			*slot(&larger, table->entries[i].key) = table->entries[i];
	larger.count = table->count;
	free(table->entries);
	*table = larger;
	return true;
}

struct pl_table_entry *pl_table_insert(struct pl_table *table, uint64_t key)
{
	struct pl_table_entry *entry = pl_table_find(table, key);

	if (entry)
		return entry;
	/* Full to two thirds: linear probing stays short. */
	if (!table->entries || 3 * (table->count + 1) > 2 * (table->mask + 1))
		if (!grow(table))
			return NULL;
	entry = slot(table, key);
	*entry = (struct pl_table_entry){.key = key};
	table->count++;
	return entry;
}

bool pl_table_remove(struct pl_table *table, uint64_t key, struct pl_table_entry *ret)
{
	struct pl_table_entry *entry = pl_table_find(table, key);

	if (!entry)
		return false;
	if (ret)
		*ret = *entry;

	size_t hole = (size_t)(entry - table->entries);

	/* Entries behind the hole move into it unless their home lies behind it too. */
	for (size_t i = (hole + 1) & table->mask; table->entries[i].key; i = (i + 1) & table->mask) {
		size_t distance_home = (i - home(table, table->entries[i].key)) & table->mask;
		size_t distance_hole = (i - hole) & table->mask;

		if (distance_home < distance_hole)
			continue;
		table->entries[hole] = table->entries[i];
		hole = i;
	}
	table->entries[hole].key = 0;
	table->count--;
	return true;
}

void pl_table_free(struct pl_table *table)
{
	free(table->entries);
	*table = (struct pl_table){0};
}
