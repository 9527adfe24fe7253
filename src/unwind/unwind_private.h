/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_UNWIND_PRIVATE_H
#define PYLEAK_UNWIND_PRIVATE_H

#include <elfutils/libdwfl.h>

#include "pyleak/elf.h"
#include "pyleak/space.h"
#include "pyleak/table.h"
#include "pyleak/unwind.h"

/* known.c */
struct unwinder_known {
	struct known_frame *frames;
	size_t count, capacity;
	struct pl_table places; /* address + 1 to the first of its frames, and how many they are */
};

struct pl_unwinder {
	struct pl_space *space; /* borrowed */
	Dwfl *dwfl;          /* NULL: nothing was looked up yet */
	int64_t reported_ns; /* when the mappings were read */
	struct pl_maps maps; /* which were these */
	char root[32];       /* "/proc/PID/root" */
	char *demangled;     /* the last name that was */
	struct unwinder_known known;
	struct unwinder_object *objects; /* objects.c */
	size_t object_count;
	const struct pl_stack_copy *copy; /* the stack that is being walked */
};

/* The callback of libdwfl that finds debug files; *user is a struct pl_unwinder. */
int unwinder_find_debug_file(Dwfl_Module *module, void **user, const char *name, Dwarf_Addr base, const char *object,
			     const char *link, GElf_Word checksum, char **ret_path);

/* The module of an address, new ones included: an object may have been loaded since. NULL: none. */
Dwfl_Module *unwinder_module(struct pl_unwinder *unwinder, uint64_t address);

/* The frames at one address; `pc` is of the call itself, not behind it. The second one does not ask what is known. */
int unwinder_visit(struct pl_unwinder *unwinder, Dwfl_Module *module, uint64_t pc, pl_unwind_visit visit,
		   void *context);
int unwinder_look_up(struct pl_unwinder *unwinder, Dwfl_Module *module, uint64_t pc, pl_unwind_visit visit,
		     void *context);
void unwinder_forget(struct unwinder_known *known);
void unwinder_objects_free(struct pl_unwinder *unwinder);

#endif
