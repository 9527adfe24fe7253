/* SPDX-License-Identifier: MIT */
#include "allocator_hooks.h"

#include "pyleak/breakpoint_abi.h"
#include "pyleak/inline_abi.h"
#include "pyleak/memory.h"

/* Both probes know their hook by number. */
_Static_assert((int)PL_PYMEM_RAW == (int)PL_INLINE_RAW && (int)PL_PYMEM_MEM == (int)PL_INLINE_MEM &&
		(int)PL_PYMEM_OBJ == (int)PL_INLINE_OBJ && (int)PL_PYMEM_COUNT == (int)PL_INLINE_DOMAINS,
	"the same order");
_Static_assert((int)PL_FN_MALLOC == (int)PL_INLINE_MALLOC && (int)PL_FN_CALLOC == (int)PL_INLINE_CALLOC &&
		(int)PL_FN_REALLOC == (int)PL_INLINE_REALLOC && (int)PL_FN_FREE == (int)PL_INLINE_FREE &&
		(int)PL_FN_COUNT == (int)PL_INLINE_FUNCTIONS,
	"the same order");
_Static_assert((int)ALLOCATOR_HOOKS == (int)PL_BREAKPOINT_HOOKS && (int)ALLOCATOR_HOOKS == (int)PL_INLINE_ENTRIES,
	"they begin with these");

int allocator_hooks_plan(const struct pl_python *python, const uint32_t entries[ALLOCATOR_HOOKS],
	struct pl_probe_plan *plan)
{
	/* free first and malloc last, so that nothing is counted whose free would go by unseen. */
	static const enum pl_allocator_function order[] = {PL_FN_FREE, PL_FN_REALLOC, PL_FN_CALLOC, PL_FN_MALLOC};

	plan->hook_count = ALLOCATOR_HOOKS;
	for (int domain = 0; domain < PL_PYMEM_COUNT; domain++)
		for (int i = 0; i < PL_FN_COUNT; i++) {
			int hook = domain * PL_FN_COUNT + (int)order[i];
			uint64_t address = pl_python_slot(python, domain, order[i]);

			plan->hooks[hook].address = address;
			plan->hooks[hook].entry_offset = entries[hook];
			plan->order[domain * PL_FN_COUNT + i] = (uint32_t)hook;

			int code = pl_memory_read_u64(python->pid, address, &plan->hooks[hook].original);

			if (code < 0)
				return code;
		}
	return 0;
}
