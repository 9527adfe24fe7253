/* SPDX-License-Identifier: MIT */
#include "breakpoint_stacks.h"

#include <libunwind-ptrace.h>

#include "pyleak/memory.h"
#include "pyleak/units.h"

#define COPY_BYTES 16384
#define PHYSICAL_FRAMES 128
#define TIME_SHARE 4
#define SKIP_MAX 64
#define PAUSE_MAX_NSEC (200 * PL_NSEC_PER_MSEC)

/* What libunwind asks about. */
struct walk {
	struct breakpoint_stacks *stacks;
	pid_t tid;
	const pl_registers *regs;
	bool lost; /* of a frame there are no tables: from here on it would guess by the frame pointer */
};

static int access_register(unw_addr_space_t space, unw_regnum_t number, unw_word_t *value, int write, void *argument)
{
	const struct walk *walk = argument;

	return !write && pl_registers_by_number(walk->regs, number, value) ? 0 : -UNW_EBADREG;
}

static int access_memory(unw_addr_space_t space, unw_word_t address, unw_word_t *value, int write, void *argument)
{
	const struct walk *walk = argument;

	return !write && pl_memory_read(walk->tid, address, value, sizeof(*value)) == 0 ? 0 : -UNW_EINVAL;
}

static int find_proc_info(
	unw_addr_space_t space, unw_word_t address, unw_proc_info_t *info, int wanted, void *argument)
{
	struct walk *walk = argument;
	int code = _UPT_find_proc_info(space, address, info, wanted, walk->stacks->process);

	walk->lost |= code < 0;
	return code;
}

static void put_unwind_info(unw_addr_space_t space, unw_proc_info_t *info, void *argument)
{
	const struct walk *walk = argument;

	_UPT_put_unwind_info(space, info, walk->stacks->process);
}

static int no_list(unw_addr_space_t space, unw_word_t *address, void *argument)
{
	return -UNW_ENOINFO;
}

static int no_float(unw_addr_space_t space, unw_regnum_t number, unw_fpreg_t *value, int write, void *argument)
{
	return -UNW_EBADREG;
}

static int no_resume(unw_addr_space_t space, unw_cursor_t *cursor, void *argument)
{
	return -UNW_EINVAL;
}

static int no_name(unw_addr_space_t space, unw_word_t address, char *name, size_t size, unw_word_t *offset, void *argument)
{
	return -UNW_ENOINFO;
}

static unw_accessors_t accessors = {
	.find_proc_info = find_proc_info,
	.put_unwind_info = put_unwind_info,
	.get_dyn_info_list_addr = no_list,
	.access_mem = access_memory,
	.access_reg = access_register,
	.access_fpreg = no_float,
	.resume = no_resume,
	.get_proc_name = no_name,
};

static bool make_space(struct breakpoint_stacks *stacks)
{
	if (!stacks->space)
		stacks->space = unw_create_addr_space(&accessors, 0);
	if (!stacks->process)
		stacks->process = _UPT_create(stacks->memory->pid);
	if (!stacks->unwinder)
		stacks->unwinder = pl_unwinder_new(stacks->memory);
	return stacks->space && stacks->process && stacks->unwinder;
}

/* False: libunwind has no tables of a frame, perhaps because it does not find the objects of another root. */
static bool walk_in_place(struct breakpoint_stacks *stacks, pid_t tid, const pl_registers *regs, struct native_stack *stack)
{
	struct walk walk = {.stacks = stacks, .tid = tid, .regs = regs};
	unw_cursor_t cursor;
	unw_word_t address;

	if (unw_init_remote(&cursor, stacks->space, &walk) < 0)
		return false;
	for (int i = 0; i < PHYSICAL_FRAMES && unw_get_reg(&cursor, UNW_REG_IP, &address) == 0 && address; i++) {
		if (pl_unwind_address(stacks->unwinder, address, native_stack_add, stack) != 0)
			return true;
		if (unw_step(&cursor) <= 0 || walk.lost)
			return !walk.lost;
	}
	return true;
}

static void walk_copy(struct breakpoint_stacks *stacks, pid_t tid, const pl_registers *regs, struct native_stack *stack)
{
	static unsigned char bytes[COPY_BYTES];
	uint64_t sp = pl_registers_sp(regs);
	ssize_t size = pl_memory_read_some(tid, sp, bytes, sizeof(bytes));
	const struct pl_stack_copy copy = {
		.pc = pl_registers_ip(regs),
		.sp = sp,
		.bp = pl_registers_frame_pointer(regs),
		.start = sp,
		.bytes = bytes,
		.size = (size_t)size,
	};

	if (size > 0)
		(void)pl_unwind_stack(stacks->unwinder, &copy, PHYSICAL_FRAMES, native_stack_add, stack);
}

static uint32_t walk(struct breakpoint_stacks *stacks, pid_t tid, const pl_registers *regs)
{
	const struct native_stack none = {
		.sites = stacks->sites, .limit = (size_t)stacks->limit, .python = stacks->python};
	struct native_stack stack = none;

	if (!make_space(stacks))
		return UINT32_MAX;
	if (!walk_in_place(stacks, tid, regs, &stack)) {
		stack = none;
		walk_copy(stacks, tid, regs, &stack);
	}
	return native_stack_intern(&stack);
}

bool breakpoint_stacks_take(
	struct breakpoint_stacks *stacks, pid_t tid, const pl_registers *regs, uint32_t site, uint64_t block)
{
	int64_t now = stacks->limit ? pl_now_ns() : 0;
	struct sampled *sampled;
	uint32_t stack;

	if (!stacks->limit || now < stacks->next_ns)
		return false;
	sampled = stack_samples_find(&stacks->samples, site);
	if (!sampled || (sampled->pause && sampled->pause--))
		return false;
	stacks->random = stacks->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	sampled->pause = (uint32_t)(stacks->random >> 33) % SKIP_MAX;
	/* The next site that comes has its first one seen, however often this one allocates. */
	if (sampled->count < 2)
		sampled->pause = sampled->count;
	stack = walk(stacks, tid, regs);
	stacks->next_ns = now + (pl_now_ns() - now) * TIME_SHARE;
	if (stacks->next_ns > now + PAUSE_MAX_NSEC) /* files were read, for the first time */
		stacks->next_ns = now + PAUSE_MAX_NSEC;
	if (stack == UINT32_MAX)
		return false;
	stack_samples_add(sampled, block, stack);
	return true;
}

void breakpoint_stacks_review(
	struct breakpoint_stacks *stacks, bool (*is_live)(void *context, uint32_t site, uint64_t block), void *context)
{
	for (size_t i = 0; i < stacks->samples.count; i++) {
		struct sampled *site = &stacks->samples.items[i];
		uint32_t stack;

		for (size_t j = 0; j < site->count; j++)
			site->samples[j].live = site->samples[j].live && is_live(context, (uint32_t)site->key, site->samples[j].block);
		stack = stack_samples_choose(site);
		if (stack != UINT32_MAX)
			pl_sites_set_stack(stacks->sites, (uint32_t)site->key, stack);
	}
}

void breakpoint_stacks_free(struct breakpoint_stacks *stacks)
{
	if (stacks->process)
		_UPT_destroy(stacks->process);
	if (stacks->space)
		unw_destroy_addr_space(stacks->space);
	pl_unwinder_free(stacks->unwinder);
	stack_samples_free(&stacks->samples);
}
