/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "pyleak/units.h"
#include "unwind_private.h"

/* Mappings are read anew for an address in no module, but not for each such address. */
#define REPORT_AGE_NSEC (100 * PL_NSEC_PER_MSEC)

/* The object that the process has mapped: in a container another file than ours may have that name, and in a root of its
 * own the process may have none. */
static int find_elf(Dwfl_Module *module, void **user, const char *name, Dwarf_Addr base, char **file_name, Elf **elf)
{
	const struct pl_unwinder *unwinder = *user;
	const struct pl_map *map = unwinder && name[0] == '/' ? pl_maps_find(&unwinder->maps, base) : NULL;
	int fd = map ? pl_space_open_mapped(unwinder->space, &unwinder->maps, map) : -ENOENT;

	/* The vdso, from memory. What is not mapped there any more has a name in our file system only by chance. */
	if (fd < 0)
		return name[0] == '/' ? -1 : dwfl_linux_proc_find_elf(module, user, name, base, file_name, elf);
	/* Beside it the debug file is looked for. */
	if (asprintf(file_name, "%s%s", unwinder->root, name) < 0)
		*file_name = NULL;
	return fd;
}

static const Dwfl_Callbacks callbacks = {
	.find_elf = find_elf,
	.find_debuginfo = unwinder_find_debug_file,
};

static int set_user(Dwfl_Module *module, void **user, const char *name, Dwarf_Addr start, void *unwinder)
{
	*user = unwinder;
	return DWARF_CB_OK;
}

static int report(struct pl_unwinder *unwinder)
{
	if (unwinder->dwfl && pl_now_ns() - unwinder->reported_ns < REPORT_AGE_NSEC)
		return -EAGAIN;
	if (!unwinder->dwfl)
		unwinder->dwfl = dwfl_begin(&callbacks);
	if (!unwinder->dwfl)
		return -ENOMEM;
	/* What is reported again under the same name and address is kept as it is. */
	dwfl_report_begin(unwinder->dwfl);
	(void)dwfl_linux_proc_report(unwinder->dwfl, unwinder->space->pid);
	(void)dwfl_report_end(unwinder->dwfl, NULL, NULL);
	(void)dwfl_getmodules(unwinder->dwfl, set_user, unwinder, 0);
	pl_maps_free(&unwinder->maps);
	(void)pl_space_maps(unwinder->space, &unwinder->maps);
	unwinder->reported_ns = pl_now_ns();
	unwinder_forget(&unwinder->known);
	return 0;
}

Dwfl_Module *unwinder_module(struct pl_unwinder *unwinder, uint64_t address)
{
	Dwfl_Module *module = unwinder->dwfl ? dwfl_addrmodule(unwinder->dwfl, address) : NULL;

	if (!module && report(unwinder) == 0)
		module = dwfl_addrmodule(unwinder->dwfl, address);
	return module;
}

struct pl_unwinder *pl_unwinder_new(struct pl_space *space)
{
	struct pl_unwinder *unwinder = calloc(1, sizeof(*unwinder));

	if (!unwinder)
		return NULL;
	unwinder->space = space;
	(void)snprintf(unwinder->root, sizeof(unwinder->root), "/proc/%d/root", (int)space->pid);
	return unwinder;
}

void pl_unwinder_free(struct pl_unwinder *unwinder)
{
	if (!unwinder)
		return;
	if (unwinder->dwfl)
		dwfl_end(unwinder->dwfl);
	unwinder_forget(&unwinder->known);
	unwinder_objects_free(unwinder);
	free(unwinder->demangled);
	pl_maps_free(&unwinder->maps);
	free(unwinder);
}
