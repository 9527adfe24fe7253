/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "pyleak/arch.h"
#include "pyleak/space.h"
#include "python_private.h"

/*
 * The three PyMemAllocatorEx. Up to 3.11 they are local symbols, which strip removes, so they are
 * found by following PyMem_GetAllocator(domain); from 3.12 on they are in _PyRuntime. Either way
 * the code of an exported function that allocates through the table has to use the same words; and
 * where there is a .symtab, it has to agree too. In a release that has moved them within _PyRuntime
 * they are where three of these functions agree that they are.
 */

static const struct {
	const char *symbol;
	/* Exported, and compiled to little more than a load of ctx and a jump through the slot. */
	const char *functions[PL_FN_COUNT];
} domains[PL_PYMEM_COUNT] = {
	[PL_PYMEM_RAW] = { "_PyMem_Raw",
		{ "PyMem_RawMalloc", "PyMem_RawCalloc", "PyMem_RawRealloc", "PyMem_RawFree" } },
	[PL_PYMEM_MEM] = { "_PyMem", { "PyMem_Malloc", "PyMem_Calloc", "PyMem_Realloc", "PyMem_Free" } },
	[PL_PYMEM_OBJ] = { "_PyObject",
		{ "PyObject_Malloc", "PyObject_Calloc", "PyObject_Realloc", "PyObject_Free" } },
};

enum { REFERENCES = 64 };

static bool contains(const uint64_t *words, size_t count, uint64_t word)
{
	for (size_t i = 0; i < count; i++)
		if (words[i] == word)
			return true;
	return false;
}

/* Whether the code of at least one of the domain's functions uses both ctx and its own slot. */
static bool used_by_functions(const struct object *object, enum pl_pymem_domain domain, uint64_t table)
{
	for (int function = 0; function < PL_FN_COUNT; function++) {
		uint64_t references[REFERENCES], address;
		size_t count = 0;

		if (object_export(object, domains[domain].functions[function], &address) == 0 &&
				pl_arch_data_references(address, object_code_read, object_code_is_data, (void *)object,
					references, REFERENCES, &count) == 0 &&
				contains(references, count, table) &&
				contains(references, count, table + 8 + 8 * (uint64_t)function))
			return true;
	}
	return false;
}

struct references {
	uint64_t words[PL_FN_COUNT][REFERENCES];
	size_t counts[PL_FN_COUNT];
};

/* How many of the functions use what would be their slot, if a table began there; 0 if none uses its ctx. */
static int count_users(const struct references *references, uint64_t table)
{
	bool context = false;
	int users = 0;

	for (int function = 0; function < PL_FN_COUNT; function++) {
		const uint64_t *words = references->words[function];
		size_t count = references->counts[function];

		users += contains(words, count, table + 8 + 8 * (uint64_t)function);
		context |= contains(words, count, table);
	}
	return context ? users : 0;
}

/* Where no table of offsets says it: the words of which nearly all functions of the domain use their own.
 * (An optimizing compiler puts the use of ctx out of sight in some of them, and large blocks go on to the raw
 * domain, whose table was found before.) 0: none, or not one alone. */
static uint64_t found_by_functions(const struct object *object, const uint64_t *tables, enum pl_pymem_domain domain)
{
	struct references references = { .counts = { 0 } };
	int most = PL_FN_COUNT - 2;
	uint64_t best = 0;

	for (int function = 0; function < PL_FN_COUNT; function++) {
		uint64_t address;

		if (object_export(object, domains[domain].functions[function], &address) < 0 ||
				pl_arch_data_references(address, object_code_read, object_code_is_data, (void *)object,
					references.words[function], REFERENCES, &references.counts[function]) < 0)
			references.counts[function] = 0;
	}
	for (int function = 0; function < PL_FN_COUNT; function++)
		for (size_t i = 0; i < references.counts[function]; i++) {
			uint64_t table = references.words[function][i] - 8 - 8 * (uint64_t)function;
			int users = count_users(&references, table);

			if (users < most || table == best || contains(tables, (size_t)domain, table))
				continue;
			best = users > most ? table : 0;
			most = users;
		}
	return best;
}

static int walk(const struct object *object, enum pl_pymem_domain domain, uint64_t *ret)
{
	uint64_t function;
	int r = object_export(object, "PyMem_GetAllocator", &function);

	return r < 0 ? r : pl_arch_walk_get_allocator(function, (int)domain, object_code_read, object_code_is_data,
		(void *)object, ret);
}

/* Functions 1 to 4 of a table in use are code; anything else is not a table, or one that we must not touch. */
static int check_slots(const struct pl_maps *maps, const struct pl_python *python, enum pl_pymem_domain domain,
		       struct pl_error *err)
{
	uint64_t words[1 + PL_FN_COUNT];

	if (python->allocators[domain] % 8 ||
			pl_space_read(python->space, python->allocators[domain], words, sizeof(words)) < 0)
		return pl_fail(err, -EPROTO, "Python %s: the allocator table %s at %#llx cannot be read", python->version,
			domains[domain].symbol, (unsigned long long)python->allocators[domain]);
	for (int function = 0; function < PL_FN_COUNT; function++) {
		const struct pl_map *map = pl_maps_find(maps, words[1 + function]);

		if (!map || !(map->flags & PL_MAP_EXEC))
			return pl_fail(err, -EPROTO,
				"Python %s: the allocator table %s at %#llx holds %#llx, which is not code", python->version,
				domains[domain].symbol, (unsigned long long)python->allocators[domain],
				(unsigned long long)words[1 + function]);
	}
	return 0;
}

static int find_table(const struct object *object, struct pl_python *python, enum pl_pymem_domain domain,
		      struct pl_error *err)
{
	int32_t offset = layout_allocator(python->minor, domain);
	uint64_t table = 0, local = 0;
	int ways = 0;

	if (offset != PL_NO_FIELD) {
		table = python->runtime + (uint64_t)offset;
		ways++;
	} else {
		if (walk(object, domain, &table) == 0)
			ways++;
		if (object_local(object, domains[domain].symbol, &local) == 0) {
			if (ways && local != table)
				return pl_fail(err, -EPROTO,
					"Python %s: the allocator table %s is at %#llx by its symbol, at %#llx by the "
					"code of PyMem_GetAllocator", python->version, domains[domain].symbol,
					(unsigned long long)local, (unsigned long long)table);
			table = local;
			ways++;
		}
	}
	if (ways && used_by_functions(object, domain, table))
		ways++;
	/* From 3.12 on it is in a struct that a release may have moved. */
	if (ways < 2 && python->minor >= 12) {
		table = found_by_functions(object, python->allocators, domain);
		ways = table ? 2 : 0;
	}
	if (ways < 2)
		return pl_fail(err, -EPROTO, "Python %s: the allocator table %s %s", python->version,
			domains[domain].symbol, ways ? "was found in one way only, and nothing confirms it" : "was not found");
	python->allocators[domain] = table;
	return 0;
}

int tables_find(const struct object *object, const struct pl_maps *maps, struct pl_python *python, struct pl_error *err)
{
	for (int domain = 0; domain < PL_PYMEM_COUNT; domain++) {
		int r = find_table(object, python, (enum pl_pymem_domain)domain, err);

		if (r == 0)
			r = check_slots(maps, python, (enum pl_pymem_domain)domain, err);
		if (r < 0)
			return r;
		for (int other = 0; other < domain; other++)
			if (python->allocators[other] == python->allocators[domain])
				return pl_fail(err, -EPROTO, "Python %s: the allocator tables %s and %s are both at %#llx",
					python->version, domains[other].symbol, domains[domain].symbol,
					(unsigned long long)python->allocators[domain]);
	}
	return 0;
}
