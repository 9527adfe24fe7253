/* SPDX-License-Identifier: MIT */
#include "native_caller.h"

#include <errno.h>
#include <stdlib.h>

#include "pyleak/elf.h"
#include "pyleak/units.h"
#include "pyleak/unwind.h"

/* An object that is gone stays unknown: the mappings need not be read for each of its callers. */
#define MAPS_AGE_NSEC (100 * PL_NSEC_PER_MSEC)

struct native_module {
	uint64_t start; /* of the mapping that an address was in */
	uint32_t identity;
	const char *path;   /* interned */
	uint64_t load_start; /* of the mapping of its first page, where the offsets of an unknown function count from */
	struct pl_elf *elf; /* the unwinder's; NULL: not to be opened */
	const char *allocator; /* that is linked in, once it was looked for */
	bool looked_for;
};

void native_callers_free(struct native_callers *callers)
{
	free(callers->modules);
	pl_maps_free(&callers->maps);
	pl_unwinder_free(callers->unwinder);
	*callers = (struct native_callers){0};
}

struct pl_unwinder *native_callers_unwinder(struct native_callers *callers)
{
	if (!callers->unwinder)
		callers->unwinder = pl_unwinder_new(callers->space);
	return callers->unwinder;
}

static const struct pl_map *find_map(struct native_callers *callers, uint64_t address)
{
	const struct pl_map *map = pl_maps_find(&callers->maps, address);

	if (map || (callers->maps_ns && pl_now_ns() - callers->maps_ns < MAPS_AGE_NSEC))
		return map;
	pl_maps_free(&callers->maps);
	callers->maps_ns = pl_now_ns();
	return pl_space_maps(callers->space, &callers->maps) == 0 ? pl_maps_find(&callers->maps, address) : NULL;
}

static struct native_module *find_module(struct native_callers *callers, const struct pl_map *map)
{
	struct native_module *modules;

	for (size_t i = 0; i < callers->module_count; i++)
		if (callers->modules[i].start == map->start && callers->modules[i].identity == pl_map_identity(map))
			return &callers->modules[i];
	modules = reallocarray(callers->modules, callers->module_count + 1, sizeof(*modules));
	if (!modules)
		return NULL;
	callers->modules = modules;

	struct native_module module = {
		.start = map->start,
		.identity = pl_map_identity(map),
		.path = pl_sites_string(callers->sites, map->path[0] ? map->path : "<anonymous>"),
		.load_start = map->start,
	};

	if (!module.path)
		return NULL;
	for (size_t i = 0; map->inode && i < callers->maps.count && callers->maps.items[i].start < map->start; i++)
		if (callers->maps.items[i].offset == 0 && pl_map_same_file(&callers->maps.items[i], map))
			module.load_start = callers->maps.items[i].start;
	if (map->inode && native_callers_unwinder(callers))
		module.elf = pl_unwind_object(callers->unwinder, &callers->maps, map);
	modules[callers->module_count++] = module;
	return &modules[callers->module_count - 1];
}

int native_caller_pool(struct native_callers *callers, uint64_t address, struct pl_native_caller *ret)
{
	const struct pl_map *map = find_map(callers, address);
	struct native_module *module = map ? find_module(callers, map) : NULL;

	*ret = (struct pl_native_caller){0};
	if (map && !module)
		return -ENOMEM;
	if (module && !module->looked_for) {
		const char *name = pl_elf_linked_allocator(callers->space, &callers->maps, map);

		module->looked_for = true;
		module->allocator = name ? pl_sites_string(callers->sites, name) : NULL;
	}
	ret->module = module ? module->path : pl_sites_string(callers->sites, "<unknown>");
	ret->symbol = module ? module->allocator : NULL;
	return ret->module ? 0 : -ENOMEM;
}

struct naming {
	struct pl_sites *sites;
	struct pl_native_caller *caller;
};

/* Of the functions at an address the innermost: an inlined one is who called. */
static int take_names(void *context, const struct pl_native_frame *frame)
{
	struct naming *naming = context;

	if (frame->function)
		naming->caller->symbol = pl_sites_string(naming->sites, frame->function);
	if (frame->filename) {
		naming->caller->filename = pl_sites_string(naming->sites, frame->filename);
		naming->caller->line = frame->line;
	}
	return (frame->function && !naming->caller->symbol) || (frame->filename && !naming->caller->filename) ? -ENOMEM : 1;
}

static int find_names(struct native_callers *callers, uint64_t address, struct pl_native_caller *caller)
{
	struct naming naming = {callers->sites, caller};

	if (!native_callers_unwinder(callers))
		return -ENOMEM;
	return pl_unwind_address(callers->unwinder, address, take_names, &naming) == -ENOMEM ? -ENOMEM : 0;
}

int native_caller_find(struct native_callers *callers, uint64_t address, struct pl_native_caller *ret)
{
	const struct pl_map *map = find_map(callers, address);
	const struct native_module *module = map ? find_module(callers, map) : NULL;
	const char *name;

	*ret = (struct pl_native_caller){0};
	if (map && !module)
		return -ENOMEM;
	if (!module) {
		ret->module = pl_sites_string(callers->sites, "<unknown>");
		ret->offset = address;
		return ret->module ? 0 : -ENOMEM;
	}
	ret->module = module->path;
	ret->offset = address - module->load_start;
	/* The byte before the return address is still of the call, and so of the function that made it. */
	if (module->elf && pl_elf_symbol_at(module->elf, address - 1, &name, &ret->offset) == 0) {
		ret->offset++;
		ret->symbol = pl_sites_string(callers->sites, name);
		if (!ret->symbol)
			return -ENOMEM;
	}
	return map->inode ? find_names(callers, address, ret) : 0;
}
