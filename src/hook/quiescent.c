/* SPDX-License-Identifier: MIT */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"
#include "pyleak/hook.h"
#include "pyleak/memory.h"
#include "quiescent.h"

/*
 * The proof that the probe's pages can go. Not enough by themselves, measured over 500 removals
 * under hammering threads each: instruction pointers only (the process died in 296), with a count
 * of the threads inside (92), with the other registers as well (0: a caller may hold the hook's
 * address for a few instructions before it calls). Pending signal frames come on top: a handler may
 * have interrupted any of those instructions.
 *
 * All threads need not be seen at one instant. Once the words are put back nobody comes in any more, so a thread that was
 * seen outside stays there, and a new one begins there. One that sleeps in a system call is not even stopped: where it
 * will go on, and on which stack, the kernel says; that it has not run while its stack was read, the number of its
 * switches does. What it has in the registers that calls preserve is not known, and need not be: between the load of a
 * hooked word and the call through it, code makes no other call, so that who is in a system call holds no such address. (A
 * word that is loaded as a value leads elsewhere, and so does a type's tp_dealloc: subtype_dealloc() has that of the base in
 * hand while attributes are let go of. test_free_lists.py: test_a_deallocator_that_was_loaded.) It may in a page fault:
 * there it is held to be looked at.
 *
 * Return addresses are not looked for on stacks: dead slots would never let it come to rest. The
 * probe itself counts who will return into it, or leaves a mark on the stack that names its own
 * address and is wiped before the return.
 */

#define STACK_SCAN_MAX (16ULL << 20)

struct scan {
	pid_t tid;
	const struct pl_maps *maps;
	uint64_t code_start, code_end;
	uint64_t mark; /* 0: the probe counts */
};

static bool in_code(const struct scan *scan, uint64_t word)
{
	return word >= scan->code_start && word < scan->code_end;
}

/* The frame of a breakpoint that was hit without a tracer. Its handler is in our code: while it has
 * still to return, the thread's own registers, or the frame of a signal that came on top, say so.
 * What remains on the stack is a dead frame, for as long as no other call happens to cover it. Another
 * such frame may cover a part, what says why the signal came too: who was to return from it is left. */
static bool is_own_trap(const struct scan *scan, uint64_t frame, uint64_t restorer, const pl_registers *regs)
{
	int32_t info[3]; /* si_signo, si_errno, si_code */
	uint64_t trap = pl_registers_breakpoint(regs);
	uint8_t instruction[8];

	if (!in_code(scan, trap) || pl_memory_read(scan->tid, trap, instruction, pl_arch_breakpoint_size) < 0 ||
		memcmp(instruction, pl_arch_breakpoint, pl_arch_breakpoint_size) != 0)
		return false;
	return in_code(scan, restorer) ||
	       (pl_memory_read(scan->tid, frame + PL_ARCH_SIGFRAME_INFO, info, sizeof(info)) == 0 && info[0] == SIGTRAP &&
		       info[2] == PL_ARCH_BREAKPOINT_CODE);
}

/* A word on a stack points into the code: is it a register within a signal frame, that rt_sigreturn
 * will put back? Such a frame says what code calls rt_sigreturn, or at least where the thread goes on. */
static bool word_is_in_sigframe(const struct scan *scan, uint64_t address)
{
	for (unsigned int i = 0; i < PL_ARCH_SIGFRAME_REGISTERS; i++) {
		uint64_t frame = address - PL_ARCH_SIGFRAME_FIRST_REGISTER - 8 * i;
		uint8_t bytes[PL_ARCH_SIGFRAME_BYTES];
		uint64_t restorer;
		pl_registers regs;

		if (pl_memory_read(scan->tid, frame, bytes, sizeof(bytes)) < 0)
			continue;
		if (!pl_arch_sigframe_registers(bytes, sizeof(bytes), &regs, &restorer))
			continue;

		const struct pl_map *map = pl_maps_find(scan->maps, restorer ? restorer : pl_registers_ip(&regs));

		if (map && map->flags & PL_MAP_EXEC &&
			pl_registers_point_into(&regs, scan->code_start, scan->code_end) &&
			!is_own_trap(scan, frame, restorer, &regs))
			return true;
	}
	return false;
}

/* A C library's descriptor of a thread, which it puts on top of the thread's stack: glibc's tcbhead_t names itself at 0
 * and at 16. */
static bool is_descriptor(const uint64_t *words, size_t left, uint64_t address)
{
	return left >= 3 && words[0] == address && words[2] == address;
}

/* *ret_descriptor (may be NULL): whether a thread's descriptor lies there. */
static bool stack_is_clear(const struct scan *scan, uint64_t start, uint64_t end, bool *ret_descriptor)
{
	enum { CHUNK = 1 << 16 };
	pl_autofree uint64_t *words = malloc(CHUNK);

	if (!words)
		return false;
	if (end - start > STACK_SCAN_MAX)
		end = start + STACK_SCAN_MAX;
	for (uint64_t at = start & ~7ULL; at < end; at += CHUNK) {
		ssize_t got = pl_memory_read_some(scan->tid, at, words, end - at < CHUNK ? end - at : CHUNK);

		if (got <= 0)
			break;
		for (size_t i = 0; i < (size_t)got / 8; i++) {
			if (scan->mark && (words[i] ^ scan->mark) == at + 8 * i)
				return false;
			if (in_code(scan, words[i]) && word_is_in_sigframe(scan, at + 8 * i))
				return false;
			if (ret_descriptor && is_descriptor(words + i, (size_t)got / 8 - i, at + 8 * i))
				*ret_descriptor = true;
		}
	}
	return true;
}

static const struct pl_map *find_stack(const struct pl_maps *maps)
{
	for (size_t i = 0; i < maps->count; i++)
		if (strcmp(maps->items[i].path, "[stack]") == 0)
			return &maps->items[i];
	return NULL;
}

/* The stack that the thread is on, and if that is an alternate one, its own as well. */
static bool stacks_are_clear(const struct scan *scan, const pl_registers *regs, bool leader)
{
	uint64_t sp = pl_registers_sp(regs);
	const struct pl_map *current = pl_maps_find(scan->maps, sp);
	const struct pl_map *own =
		leader ? find_stack(scan->maps) : pl_maps_find(scan->maps, pl_registers_thread_pointer(regs));

	if (current &&
		!stack_is_clear(scan, sp - PL_ARCH_RED_ZONE > current->start ? sp - PL_ARCH_RED_ZONE : current->start,
			current->end, NULL))
		return false;
	return !own || own == current || stack_is_clear(scan, own->start, own->end, NULL);
}

static struct scan make_scan(const struct pl_probe *probe, const struct pl_maps *maps, pid_t tid)
{
	return (struct scan){
		.tid = tid,
		.maps = maps,
		.code_start = probe->base,
		.code_end = probe->base + probe->header.code_size,
		.mark = probe->header.mark,
	};
}

enum outside pl_thread_outside(
	const struct pl_thread *thread, bool leader, const struct pl_probe *probe, const struct pl_maps *maps)
{
	const struct scan scan = make_scan(probe, maps, thread->tid);
	pl_registers regs;

	if (thread->state != PL_THREAD_STOPPED || pl_thread_registers(thread, &regs) < 0)
		return OUTSIDE_UNKNOWN;
	if (pl_registers_point_into(&regs, scan.code_start, scan.code_end))
		return OUTSIDE_NO;
	/* A stack that is newer than the look at what is mapped. */
	if (!pl_maps_find(maps, pl_registers_sp(&regs)))
		return OUTSIDE_UNKNOWN;
	return stacks_are_clear(&scan, &regs, leader) ? OUTSIDE_YES : OUTSIDE_NO;
}

static enum outside look_at_sleeper(pid_t tid, bool leader, const struct pl_asleep *asleep, const struct pl_probe *probe,
	const struct pl_maps *maps)
{
	const struct scan scan = make_scan(probe, maps, tid);
	const struct pl_map *map = pl_maps_find(maps, asleep->sp);
	bool own = leader && map && map == find_stack(maps);

	if (in_code(&scan, asleep->ip))
		return OUTSIDE_NO;
	if (!map)
		return OUTSIDE_UNKNOWN;
	if (!stack_is_clear(&scan, asleep->sp - PL_ARCH_RED_ZONE > map->start ? asleep->sp - PL_ARCH_RED_ZONE : map->start, map->end, &own))
		return OUTSIDE_NO;
	return own ? OUTSIDE_YES : OUTSIDE_UNKNOWN;
}

enum outside pl_sleeper_outside(pid_t pid, pid_t tid, const struct pl_probe *probe, const struct pl_maps *maps,
	struct pl_asleep *ret)
{
	struct pl_asleep after;
	enum outside outside;

	if (pl_asleep_read(pid, tid, ret) < 0)
		return OUTSIDE_UNKNOWN;
	outside = look_at_sleeper(tid, tid == pid && pid == probe->pid, ret, probe, maps);
	if (outside == OUTSIDE_YES && (pl_asleep_read(pid, tid, &after) < 0 || !pl_asleep_same(ret, &after)))
		return OUTSIDE_UNKNOWN;
	return outside;
}

bool pl_probe_is_empty(const struct pl_probe *probe, pid_t tid)
{
	uint32_t inside;

	for (uint32_t i = 0; i < probe->header.inside_words; i++)
		if (pl_memory_read(tid, probe->header.inside_address + i * sizeof(inside), &inside, sizeof(inside)) < 0 || inside)
			return false;
	return true;
}

bool pl_probe_quiescent(struct pl_tracee *tracee, const struct pl_probe *probe, const struct pl_maps *maps)
{
	if (!tracee->count || !pl_probe_is_empty(probe, tracee->threads[0].tid))
		return false;
	for (size_t i = 0; i < tracee->count; i++) {
		const struct scan scan = make_scan(probe, maps, tracee->threads[i].tid);
		const struct pl_thread *thread = &tracee->threads[i];
		pl_registers regs;

		if (thread->state == PL_THREAD_GONE)
			continue;
		if (thread->state != PL_THREAD_STOPPED || pl_thread_registers(thread, &regs) < 0)
			return false;
		if (pl_registers_point_into(&regs, scan.code_start, scan.code_end) ||
			!stacks_are_clear(&scan, &regs, thread->tid == tracee->pid))
			return false;
	}
	return true;
}
