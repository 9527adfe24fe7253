/* SPDX-License-Identifier: MIT */
#include "arrow_pools.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"
#include "pyleak/elf.h"
#include "pyleak/log.h"

/*
 * The classes themselves have no exported names. But they derive from arrow::MemoryPool, whose type information has one,
 * and where in a vtable its functions are is known from arrow::ProxyMemoryPool, which is exported as a whole. By the
 * Itanium C++ ABI a class's type information is { vtable of its kind, name, base } and its vtable { offset to top (0), type
 * information, functions… }.
 */

enum {
	DATA_MAX = 32 << 20, /* the read-only data of libarrow 26 is 0.9 MiB */
	TYPES_MAX = 64,
	SLOTS_MAX = 24,
};

struct search {
	const struct pl_maps *maps;
	const struct pl_elf *elf;
	const struct pl_got_object *object;
	uint64_t start; /* of data */
	uint64_t *data;
	size_t count; /* words */
	uint64_t types[TYPES_MAX];
	size_t type_count;
	size_t slots[ARROW_FUNCTIONS];
};

static bool is_libarrow(const struct pl_map *map)
{
	const char *slash = strrchr(map->path, '/');

	return slash && strncmp(slash + 1, "libarrow", 8) == 0;
}

/* In which word of a vtable each function is. */
static bool find_slots(struct search *search, uint64_t vtable)
{
	static const char *const names[ARROW_FUNCTIONS] = {
		[ARROW_ALLOCATE] = "_ZN5arrow15ProxyMemoryPool8AllocateEllPPh",
		[ARROW_REALLOCATE] = "_ZN5arrow15ProxyMemoryPool10ReallocateElllPPh",
		[ARROW_FREE] = "_ZN5arrow15ProxyMemoryPool4FreeEPhll",
	};
	size_t at = (vtable - search->start) / sizeof(uint64_t);

	for (int function = 0; function < ARROW_FUNCTIONS; function++) {
		uint64_t address;
		size_t slot = 2;

		if (pl_elf_symbol(search->elf, names[function], &address, NULL) < 0)
			return false;
		while (slot < SLOTS_MAX && at + slot < search->count && search->data[at + slot] != address)
			slot++;
		if (slot == SLOTS_MAX || at + slot >= search->count)
			return false;
		search->slots[function] = slot;
	}
	return true;
}

static bool is_type(const struct search *search, uint64_t address)
{
	for (size_t i = 0; i < search->type_count; i++)
		if (search->types[i] == address)
			return true;
	return false;
}

static bool is_in(const struct search *search, uint64_t address)
{
	return address >= search->object->start && address < search->object->end;
}

/* All classes that derive from those known. */
static void find_types(struct search *search)
{
	size_t before;

	do {
		before = search->type_count;
		for (size_t i = 2; i < search->count && search->type_count < TYPES_MAX; i++) {
			uint64_t type = search->start + (i - 2) * sizeof(uint64_t);

			if (is_type(search, search->data[i]) && is_in(search, search->data[i - 1]) && search->data[i - 2] &&
				!is_type(search, type))
				search->types[search->type_count++] = type;
		}
	} while (search->type_count > before);
}

static bool is_code(const struct search *search, uint64_t address)
{
	const struct pl_map *map = is_in(search, address) ? pl_maps_find(search->maps, address) : NULL;

	return map && map->flags & PL_MAP_EXEC;
}

static bool wraps_another(const struct search *search, uint64_t vtable)
{
	static const char *const names[] = {"_ZTVN5arrow15ProxyMemoryPoolE", "_ZTVN5arrow16CappedMemoryPoolE",
		"_ZTVN5arrow17LoggingMemoryPoolE"};
	uint64_t address;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (pl_elf_symbol(search->elf, names[i], &address, NULL) == 0 && address == vtable)
			return true;
	return false;
}

/* Words that lead to a probe already are no code of the object: the others of that vtable are not looked at either. */
static int add_vtables(const struct search *search, uint32_t first_name, struct pl_got *got)
{
	for (size_t i = 1; i + SLOTS_MAX < search->count; i++) {
		const uint64_t *vtable = search->data + i - 1;
		bool whole = is_type(search, vtable[1]) && !vtable[0] &&
			     !wraps_another(search, search->start + (i - 1) * sizeof(uint64_t));

		for (int function = 0; function < ARROW_FUNCTIONS; function++)
			whole = whole && is_code(search, vtable[search->slots[function]]);
		for (int function = 0; whole && function < ARROW_FUNCTIONS; function++) {
			const struct pl_got_word word = {
				.address = search->start + (i - 1 + search->slots[function]) * sizeof(uint64_t),
				.value = vtable[search->slots[function]],
				.object = (uint32_t)got->object_count - 1,
				.name = first_name + (uint32_t)function,
				.kind = PL_GOT_JUMPED,
				.bound = true,
			};

			if (pl_got_add_word(got, &word) < 0)
				return -ENOMEM;
		}
	}
	return 0;
}

int arrow_pools_add(struct pl_space *space, const struct pl_maps *maps, uint32_t first_name, struct pl_got *got)
{
	const struct pl_got_object *object = &got->objects[got->object_count - 1];
	struct search search = {.maps = maps, .object = object};
	pl_autofree uint64_t *data = NULL;
	size_t words = got->word_count;
	const struct pl_map *map;
	struct pl_elf *elf;
	uint64_t vtable;
	int code = 0;

	if (!is_libarrow(object->map) || pl_elf_open(space, maps, object->map, &elf, NULL) < 0)
		return 0;
	search.elf = elf;
	if (pl_elf_symbol(elf, "_ZTVN5arrow15ProxyMemoryPoolE", &vtable, NULL) < 0 ||
		pl_elf_symbol(elf, "_ZTIN5arrow10MemoryPoolE", &search.types[0], NULL) < 0)
		goto out;
	search.type_count = 1;
	map = pl_maps_find(maps, vtable);
	if (!map || map->end - map->start > DATA_MAX)
		goto out;
	search.start = map->start;
	search.count = (map->end - map->start) / sizeof(uint64_t);
	search.data = data = malloc(map->end - map->start);
	if (!data)
		code = -ENOMEM;
	else if (pl_space_read(space, map->start, data, map->end - map->start) == 0 && find_slots(&search, vtable)) {
		find_types(&search);
		code = add_vtables(&search, first_name, got);
	}
	if (code == 0 && got->word_count > words)
		pl_log_debug("memory pools of Arrow: %zu classes", (got->word_count - words) / ARROW_FUNCTIONS);
out:
	pl_elf_close(elf);
	return code;
}
