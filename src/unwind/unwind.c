/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include "pyleak/arch.h"
#include "pyleak/units.h"
#include "unwind_private.h"

/* One thread, which has no number of its own: the copy. */
#define THREAD 1

struct walk {
	struct pl_unwinder *unwinder;
	pl_unwind_visit visit;
	void *context;
	int left; /* physical frames */
	int result;
};

static pid_t next_thread(Dwfl *dwfl, void *argument, void **thread_argument)
{
	if (*thread_argument)
		return 0;
	*thread_argument = argument;
	return THREAD;
}

/* What a word of a stack says without the code that signs an address of return, above the bits of addresses; libdw before
 * 0.192 takes it for a part of the address. No other word has a piece of code in these bits. */
static uint64_t without_code(const struct pl_unwinder *unwinder, uint64_t word)
{
	const uint64_t end = pl_maps_end(&unwinder->maps);
	const struct pl_map *map;
	uint64_t address;

	if (!PL_ARCH_SIGNS_RETURNS || !end || word < end)
		return word;
	address = word & (~UINT64_C(0) >> __builtin_clzll(end - 1));
	map = pl_maps_find(&unwinder->maps, address);
	return map && map->flags & PL_MAP_EXEC ? address : word;
}

static bool read_memory(Dwfl *dwfl, Dwarf_Addr address, Dwarf_Word *ret, void *argument)
{
	const struct pl_unwinder *unwinder = argument;
	const struct pl_stack_copy *copy = unwinder->copy;

	if (!copy || address < copy->start || copy->size < sizeof(*ret) ||
		address - copy->start > copy->size - sizeof(*ret))
		return false;
	memcpy(ret, copy->bytes + (address - copy->start), sizeof(*ret));
	*ret = without_code(unwinder, *ret);
	return true;
}

static bool set_registers(Dwfl_Thread *thread, void *argument)
{
	const struct pl_unwinder *unwinder = argument;
	const Dwarf_Word frame_pointer = unwinder->copy->bp, stack_pointer = unwinder->copy->sp;

	if (!dwfl_thread_state_registers(thread, PL_ARCH_DWARF_FRAME_POINTER, 1, &frame_pointer) ||
		!dwfl_thread_state_registers(thread, PL_ARCH_DWARF_STACK_POINTER, 1, &stack_pointer))
		return false;
	dwfl_thread_state_register_pc(thread, unwinder->copy->pc);
	return true;
}

static const Dwfl_Thread_Callbacks thread_callbacks = {
	.next_thread = next_thread,
	.memory_read = read_memory,
	.set_initial_registers = set_registers,
};

static int on_frame(Dwfl_Frame *state, void *argument)
{
	struct walk *walk = argument;
	Dwfl_Module *module;
	Dwarf_Addr pc;

	/* Every pc here is one that a call returns to, the first one included. */
	if (walk->left-- <= 0 || !dwfl_frame_pc(state, &pc, NULL))
		return DWARF_CB_ABORT;
	module = unwinder_module(walk->unwinder, pc - 1);
	walk->result = module ? unwinder_visit(walk->unwinder, module, pc - 1, walk->visit, walk->context) : -ENOENT;
	return walk->result ? DWARF_CB_ABORT : DWARF_CB_OK;
}

int pl_unwind_stack(struct pl_unwinder *unwinder, const struct pl_stack_copy *copy, int limit, pl_unwind_visit visit,
	void *context)
{
	struct walk walk = {.unwinder = unwinder, .visit = visit, .context = context, .left = limit};
	int physical = limit;

	/* Reports the modules, and gives libdwfl one to know the architecture by. */
	if (!unwinder_module(unwinder, copy->pc - 1))
		return -ENOENT;
	unwinder->copy = copy;
	if (!dwfl_pid(unwinder->dwfl) || dwfl_pid(unwinder->dwfl) < 0)
		(void)dwfl_attach_state(unwinder->dwfl, NULL, unwinder->space->pid, &thread_callbacks, unwinder);
	(void)dwfl_getthread_frames(unwinder->dwfl, THREAD, on_frame, &walk);
	unwinder->copy = NULL;
	/* A walk that ends where the copy does, or for want of tables, is as good as one that reached the limit. */
	if (walk.result == -ENOENT && walk.left < physical - 1)
		return 0;
	return walk.result;
}

int pl_unwind_address(struct pl_unwinder *unwinder, uint64_t address, pl_unwind_visit visit, void *context)
{
	Dwfl_Module *module = unwinder_module(unwinder, address);

	return module ? unwinder_visit(unwinder, module, address - 1, visit, context) : -ENOENT;
}
