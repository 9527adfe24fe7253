/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arrow_pools.h"
#include "native_private.h"
#include "pyleak/cleanup.h"
#include "pyleak/elf.h"
#include "pyleak/log.h"
#include "pyleak/memory.h"

enum { LOOKS_AGAIN = 50 };

void native_init(struct native *native, const struct pl_python *python)
{
	*native = (struct native){.python = python, .looks_left = LOOKS_AGAIN};
}

void native_free(struct native *native)
{
	free(native->objects);
	free(native->values);
	pl_engine_libraries_free(native->left.items, native->left.count);
	native->left = (struct native_libraries){0};
	native->objects = NULL;
	native->values = NULL;
	native->object_count = native->value_count = 0;
}

void native_adopt(struct native *native, const struct pl_probe *probe, const struct pl_inline_config *config)
{
	memcpy(native->original, config->original, sizeof(native->original));
	memcpy(native->flags, config->flags, sizeof(native->flags));
	memcpy(native->quiet + PL_INLINE_FIRST_ALLOC, config->quiet, sizeof(config->quiet));
	native->code = probe->base;
	native->code_end = probe->base + probe->header.code_size;
	for (uint32_t i = 0; i < PL_LANDING_CAPACITY; i++)
		native->landed[i] = false;
	for (uint32_t i = 0; i < pl_probe_hook_count(probe); i++) {
		const struct pl_probe_hook *hook = pl_probe_hook(probe, i);
		uint64_t row = (hook->address - native->landing.base - PL_LANDING_WORDS) / sizeof(uint64_t);

		if (hook->kind == PL_PROBE_HOOK_LANDING && row < PL_LANDING_CAPACITY)
			native->landed[row] = true;
	}
}

const char *native_allocator(const struct native *native, size_t i, uint64_t *ret)
{
	*ret = native->objects[i].start;
	return native->objects[i].allocator;
}

void native_look_at_missed(struct native *native, const struct pl_probe_word *words, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		uint64_t value = 0;

		if (!words[i].object || (pl_memory_read_u64(native->python->pid, words[i].address, &value) == 0 &&
						native_leads_to_us(native, value)))
			continue;
		for (size_t j = 0; j < native->object_count; j++)
			native->objects[j].open |= native->objects[j].identity == words[i].object;
	}
	native->looks_left = LOOKS_AGAIN;
}

void native_look_again(struct native *native)
{
	for (size_t i = 0; i < native->object_count; i++)
		native->objects[i].open = true;
	native->looks_left = LOOKS_AGAIN;
}

/* FNV-1a over what is loaded where. */
static uint64_t count_loaded(const struct pl_maps *maps, size_t *ret_count)
{
	uint64_t hash = 0xcbf29ce484222325;

	*ret_count = 0;
	for (size_t i = 0; i < maps->count; i++) {
		uint64_t start = pl_got_object_start(&maps->items[i]);

		if (!start)
			continue;
		hash = (hash ^ start) * 0x100000001b3;
		hash = (hash ^ pl_map_identity(&maps->items[i])) * 0x100000001b3;
		++*ret_count;
	}
	return hash;
}

static bool maps_memory(const struct pl_got *got, size_t first)
{
	for (size_t i = first; i < got->word_count; i++)
		if (native_maps(got->words[i].name))
			return true;
	return false;
}

/* The objects that are loaded now: what is known of those that were looked at stays. */
static int update_objects(struct native *native, const struct pl_maps *maps, size_t count, struct pl_got *got)
{
	const char *names[PL_GOT_NAMES_MAX];
	size_t name_count = native_names(names);
	struct native_object *objects = calloc(count + 1, sizeof(*objects));
	size_t at = 0;
	int code = 0;

	if (!objects)
		return -ENOMEM;
	for (size_t i = 0; code == 0 && i < maps->count; i++) {
		const struct pl_map *map = &maps->items[i];
		const struct native_object *known = pl_got_object_start(map) ? native_find_object(native, map) : NULL;

		if (!pl_got_object_start(map))
			continue;
		objects[at++] = (struct native_object){map->start, pl_map_identity(map), false, known ? known->allocator : NULL};
		if (known && !known->open)
			continue;

		size_t words = got->word_count;

		code = pl_got_add(native->python->space, maps, map, names, name_count, got);
		if (code == 0 && !known && maps_memory(got, words))
			objects[at - 1].allocator = pl_elf_linked_allocator(native->python->space, maps, map);
		if (code == 0)
			code = arrow_pools_add(native->python->space, maps, (uint32_t)name_count - ARROW_FUNCTIONS, got);
		/* Being loaded at this moment, or a mapping of something else. */
		objects[at - 1].open = code == -EAGAIN;
		if (code == -EAGAIN || code == -ENOEXEC)
			code = 0;
	}
	free(native->objects);
	native->objects = objects;
	native->object_count = at;
	return code;
}

/* As it is now: rows that were planned for a plan that came to nothing are forgotten, those of others taken in. */
static int find_landing(struct native *native, const struct pl_maps *maps)
{
	uint64_t base = native->landing.base;
	int code = pl_landing_find(native->python->pid, maps, &native->landing);

	/* Not to be expected: what is known of the one is nothing of the other. */
	if (base && base != native->landing.base)
		memset(native->landed, 0, sizeof(native->landed));
	return code;
}

static void say(const struct pl_engine_library *library)
{
	char left[256] = "";

	if (library->left)
		(void)snprintf(left, sizeof(left), ", %u left alone (%s)", library->left, library->why);
	pl_log_debug("%s: %u words are jumped through, %u loaded, %u pointers in data, %u lead to hooked ones%s", library->path,
		library->jumped, library->loaded, library->pointers, library->covered, left);
}

static int add_library(struct native_libraries *libraries, const struct pl_engine_library *library)
{
	struct pl_engine_library *grown = reallocarray(libraries->items, libraries->count + 1, sizeof(*grown));

	if (!grown)
		return -ENOMEM;
	libraries->items = grown;
	grown[libraries->count] = *library;
	grown[libraries->count].path = strdup(library->path);
	return grown[libraries->count].path ? (libraries->count++, 0) : -ENOMEM;
}

/* What the last look at an object says of it stands. */
static int keep_left(struct native *native, const struct pl_engine_library *library)
{
	for (size_t i = 0; i < native->left.count; i++)
		if (strcmp(native->left.items[i].path, library->path) == 0) {
			char *path = native->left.items[i].path;

			native->left.items[i] = *library;
			native->left.items[i].path = path;
			return 0;
		}
	return library->left ? add_library(&native->left, library) : 0;
}

/* Of those that call allocators at all. `news`: they are said. */
static int give_libraries(struct native *native, const struct pl_got *got, struct pl_engine_library *all, bool news,
	struct native_libraries *ret)
{
	int code = 0;

	for (size_t i = 0; code == 0 && i < got->object_count; i++) {
		struct pl_engine_library *library = &all[i];

		if (!(library->jumped || library->loaded || library->pointers || library->covered || library->left))
			continue;
		library->path = got->objects[i].map->path;
		code = keep_left(native, library);
		if (code == 0 && ret)
			code = add_library(ret, library);
		else if (news)
			say(library);
	}
	return code;
}

static int choose(struct native *native, const struct pl_maps *maps, const struct pl_got *got,
	const struct pl_inline_image *image, struct native_libraries *libraries, struct pl_probe_word **ret,
	uint32_t *ret_count)
{
	pl_autofree struct pl_engine_library *all = calloc(got->object_count + 1, sizeof(*all));
	int code = all ? native_choose(native, maps, got, image, all, ret, ret_count) : -ENOMEM;

	if (code == 0)
		code = give_libraries(native, got, all, *ret_count != 0, libraries);
	if (code == 0 && *ret_count)
		pl_log_debug("native allocators: %u words of %zu objects", *ret_count, got->object_count);
	return code;
}

int native_look(struct native *native, const struct pl_inline_image *image, struct native_libraries *libraries,
	struct pl_probe_word **ret, uint32_t *ret_count)
{
	struct pl_maps maps = {0};
	struct pl_got got = {0};
	bool open = false;
	size_t count;
	int code = pl_maps_read(native->python->pid, &maps);

	*ret = NULL;
	*ret_count = 0;
	if (code < 0)
		goto out;

	uint64_t loaded = count_loaded(&maps, &count);

	for (size_t i = 0; i < native->object_count; i++)
		open |= native->objects[i].open;
	if (loaded != native->loaded)
		native->looks_left = LOOKS_AGAIN;
	else if (!open || native->looks_left-- <= 0)
		goto out;
	native->loaded = loaded;
	code = update_objects(native, &maps, count, &got);
	if (code == 0)
		code = find_landing(native, &maps);
	if (code == 0)
		code = native_add_pointers(native, image, &maps, &got);
	if (code == 0)
		code = choose(native, &maps, &got, image, libraries, ret, ret_count);
out:
	pl_got_free(&got);
	pl_maps_free(&maps);
	return code;
}

int pl_engine_libraries(const struct pl_python *python, struct pl_engine_library **ret, size_t *ret_count)
{
	struct native native;
	struct native_libraries libraries = {0};
	struct pl_probe probe = {0};
	pl_autofree struct pl_probe_word *words = NULL;
	uint32_t count = 0;
	int code;

	native_init(&native, python);
	/* Words that are hooked already. */
	if (pl_probe_find(python->pid, &probe) == 0 && probe.filled) {
		native.code = probe.base;
		native.code_end = probe.base + probe.header.code_size;
	}
	pl_probe_free(&probe);
	code = native_look(&native, (const void *)(pl_inline_bytes + PL_INLINE_IMAGE_OFFSET), &libraries, &words, &count);
	native_free(&native);
	if (code < 0) {
		pl_engine_libraries_free(libraries.items, libraries.count);
		libraries = (struct native_libraries){0};
	}
	*ret = libraries.items;
	*ret_count = libraries.count;
	return code;
}

void pl_engine_libraries_free(struct pl_engine_library *libraries, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(libraries[i].path);
	free(libraries);
}
