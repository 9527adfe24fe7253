/* SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "unwind_private.h"

/* Each takes a descriptor. Of what a process loads and unloads beyond that, libdwfl is asked. */
enum { OBJECTS_MAX = 512 };

struct unwinder_object {
	uint64_t start; /* of the mapping that was asked for */
	uint32_t identity;
	struct pl_elf *elf; /* NULL: not to be opened */
};

void unwinder_objects_free(struct pl_unwinder *unwinder)
{
	for (size_t i = 0; i < unwinder->object_count; i++)
		pl_elf_close(unwinder->objects[i].elf);
	free(unwinder->objects);
}

struct pl_elf *pl_unwind_object(struct pl_unwinder *unwinder, const struct pl_maps *maps, const struct pl_map *map)
{
	struct unwinder_object object = {.start = map->start, .identity = pl_map_identity(map)}, *objects;

	for (size_t i = 0; i < unwinder->object_count; i++)
		if (unwinder->objects[i].start == object.start && unwinder->objects[i].identity == object.identity)
			return unwinder->objects[i].elf;
	if (unwinder->object_count == OBJECTS_MAX)
		return NULL;
	objects = reallocarray(unwinder->objects, unwinder->object_count + 1, sizeof(*objects));
	if (!objects)
		return NULL;
	unwinder->objects = objects;
	if (!map->inode || pl_elf_open(unwinder->space, maps, map, &object.elf, NULL) < 0)
		object.elf = NULL;
	objects[unwinder->object_count++] = object;
	return object.elf;
}
