/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include "pyleak/arch.h"
#include "pyleak/space.h"
#include "python_private.h"

/*
 * A thread state names its thread by pthread_self(), the kernel by the thread pointer. On some processors they are the
 * same; on others struct pthread, whose size is each C library's own, lies in front of what the thread pointer points to.
 * The code of pthread_self() says how large it is.
 */

static bool may_be_c_library(const struct pl_map *map)
{
	static const char *const names[] = {"/libc.so", "/libc-", "/ld-musl-", "/libpthread"};
	const char *slash = strrchr(map->path, '/');

	for (size_t i = 0; slash && i < sizeof(names) / sizeof(names[0]); i++)
		if (strncmp(slash, names[i], strlen(names[i])) == 0)
			return true;
	return false;
}

static int ask(const struct object *object, int64_t *ret)
{
	uint64_t function;
	int r = object_export(object, "pthread_self", &function);

	return r < 0 ? r : pl_arch_thread_self(function, object_code_read, (void *)object, ret);
}

int thread_self_find(const struct object *interpreter, const struct pl_maps *maps, struct pl_python *python,
	struct pl_error *err)
{
	if (PL_ARCH_SELF_IS_POINTER || ask(interpreter, &python->thread_self) == 0)
		return 0;
	for (size_t i = 0; i < maps->count; i++) {
		const struct pl_map *map = &maps->items[i];
		struct object object;
		int r;

		if (map->offset || !map->inode || !may_be_c_library(map) || object_read(python->space, map, &object) < 0)
			continue;
		r = ask(&object, &python->thread_self);
		object_release(&object);
		if (r == 0)
			return 0;
	}
	return pl_fail(err, -ENOTSUP, "the C library of %s does not say what it calls its threads (pthread_self())",
		python->space->name);
}
