/* SPDX-License-Identifier: MIT */
#include <dwarf.h>
#include <elfutils/libdw.h>
#include <stdlib.h>

#include "pyleak/cleanup.h"
#include "unwind_private.h"

/* What is at an address, by the DWARF and the symbols of its object. */

static const char *demangle(struct pl_unwinder *unwinder, const char *name)
{
	if (!name)
		return NULL;
	free(unwinder->demangled);
	unwinder->demangled = pl_readable_symbol(name);
	return unwinder->demangled ? unwinder->demangled : name;
}

/* The linkage name has the parameters and namespaces that the plain one lacks. */
static const char *die_name(struct pl_unwinder *unwinder, Dwarf_Die *die)
{
	Dwarf_Attribute attribute;
	const char *linkage = dwarf_formstring(dwarf_attr_integrate(die, DW_AT_linkage_name, &attribute));

	if (!linkage)
		linkage = dwarf_formstring(dwarf_attr_integrate(die, DW_AT_MIPS_linkage_name, &attribute));
	return demangle(unwinder, linkage ? linkage : dwarf_diename(die));
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

/* The name of the function's symbol. libdwfl reads a symbol table whole, with all names, to find one: 160 MB of
 * jax's library. So it is asked of stripped objects only, whose debug files it knows. */
static const char *symbol_at(struct pl_unwinder *unwinder, Dwfl_Module *module, uint64_t pc)
{
	const struct pl_map *map = pl_maps_find(&unwinder->maps, pc);
	struct pl_elf *elf = map ? pl_unwind_object(unwinder, &unwinder->maps, map) : NULL;
	const char *name;
	uint64_t offset;

	if (!elf || pl_elf_is_stripped(elf))
		return dwfl_module_addrname(module, pc);
	return pl_elf_symbol_at(elf, pc, &name, &offset) == 0 ? name : NULL;
}

int unwinder_look_up(struct pl_unwinder *unwinder, Dwfl_Module *module, uint64_t pc, pl_unwind_visit visit, void *context)
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
	frame.function = demangle(unwinder, symbol_at(unwinder, module, pc));
	return visit(context, &frame);
}
