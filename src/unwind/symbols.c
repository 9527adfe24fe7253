/* SPDX-License-Identifier: MIT */
#include <dwarf.h>
#include <elfutils/libdw.h>
#include <errno.h>
#include <libiberty/demangle.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"
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
	free(unwinder->demangled);
	pl_maps_free(&unwinder->maps);
	free(unwinder);
}

static const char *demangle(struct pl_unwinder *unwinder, const char *name)
{
	if (!name || name[0] != '_' || name[1] != 'Z')
		return name;
	free(unwinder->demangled);
	unwinder->demangled = cplus_demangle_v3(name, DMGL_PARAMS | DMGL_ANSI);
	return unwinder->demangled ? unwinder->demangled : name;
}

/* The linkage name has the parameters and namespaces that the plain one lacks. */
static const char *die_name(struct pl_unwinder *unwinder, Dwarf_Die *die)
{
	Dwarf_Attribute attribute;
	const char *linkage = dwarf_formstring(dwarf_attr_integrate(die, DW_AT_linkage_name, &attribute));

	if (!linkage)
		linkage = dwarf_formstring(dwarf_attr_integrate(die, DW_AT_MIPS_linkage_name, &attribute));
	return linkage ? demangle(unwinder, linkage) : dwarf_diename(die);
}

/* Where an inlined function was called: the place in the function around it. */
static void move_to_call(Dwarf_Die *cu, Dwarf_Die *inlined, struct pl_native_frame *frame)
{
	Dwarf_Attribute attribute;
	Dwarf_Word file = 0, line = 0;
	Dwarf_Files *files;

	frame->filename = NULL;
	if (dwarf_formudata(dwarf_attr(inlined, DW_AT_call_file, &attribute), &file) == 0 &&
		dwarf_getsrcfiles(cu, &files, NULL) == 0)
		frame->filename = dwarf_filesrc(files, file, NULL, NULL);
	(void)dwarf_formudata(dwarf_attr(inlined, DW_AT_call_line, &attribute), &line);
	frame->line = line <= INT32_MAX ? (int)line : 0;
}

static bool is_function(Dwarf_Die *die)
{
	int tag = dwarf_tag(die);

	return tag == DW_TAG_subprogram || tag == DW_TAG_inlined_subroutine || tag == DW_TAG_entry_point;
}

/* The functions that the instruction is in, innermost first. 0: the DWARF does not say; 1: visited, and *ret is what
 * visit said. */
static int visit_scopes(struct pl_unwinder *unwinder, Dwarf_Die *cu, Dwarf_Addr pc, struct pl_native_frame *frame,
	pl_unwind_visit visit, void *context, int *ret)
{
	pl_autofree Dwarf_Die *scopes = NULL;
	pl_autofree Dwarf_Die *parents = NULL;
	int count = dwarf_getscopes(cu, pc, &scopes), inner = 0, visited = 0;

	while (inner < count && !is_function(&scopes[inner]))
		inner++;
	if (inner >= count)
		return 0;
	/* dwarf_getscopes() goes on with where the inlined function is defined, this with where it was inlined. */
	count = dwarf_getscopes_die(&scopes[inner], &parents);
	for (int i = 0; i < count; i++) {
		if (!is_function(&parents[i]))
			continue;
		frame->function = die_name(unwinder, &parents[i]);
		*ret = visit(context, frame);
		visited = 1;
		if (*ret || dwarf_tag(&parents[i]) != DW_TAG_inlined_subroutine)
			break;
		move_to_call(cu, &parents[i], frame);
	}
	return visited;
}

int unwinder_visit(struct pl_unwinder *unwinder, Dwfl_Module *module, uint64_t pc, pl_unwind_visit visit, void *context)
{
	struct pl_native_frame frame = {0};
	Dwarf_Addr bias = 0;
	Dwarf_Die *cu = dwfl_module_addrdie(module, pc, &bias);
	Dwfl_Line *line = dwfl_module_getsrc(module, pc);
	const char *path = dwfl_module_info(module, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
	int ret = 0;

	frame.module = path;
	if (line)
		frame.filename = dwfl_lineinfo(line, NULL, &frame.line, NULL, NULL, NULL);
	if (cu && visit_scopes(unwinder, cu, pc - bias, &frame, visit, context, &ret))
		return ret;
	frame.function = demangle(unwinder, dwfl_module_addrname(module, pc));
	return visit(context, &frame);
}

int pl_unwind_address(struct pl_unwinder *unwinder, uint64_t address, pl_unwind_visit visit, void *context)
{
	Dwfl_Module *module = unwinder_module(unwinder, address);

	return module ? unwinder_visit(unwinder, module, address - 1, visit, context) : -ENOENT;
}
