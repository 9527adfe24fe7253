/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"
#include "pyleak/hook.h"
#include "pyleak/inline_abi.h"
#include "pyleak/memory.h"
#include "pyleak/page.h"
#include "pyleak/process.h"
#include "pyleak/resident.h"
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
/* Of a stack that the thread is not on at the moment: what of it was ever used. */
#define OTHER_STACK_MAX (1ULL << 30)

struct scan {
	pid_t tid;
	const struct pl_maps *maps;
	uint64_t code_start, code_end;
	uint64_t mark; /* 0: the probe counts */
	struct pl_probe_left *left;
};

static enum outside stays(const struct scan *scan, enum outside outside, enum pl_probe_stay stay, uint64_t where)
{
	*scan->left = (struct pl_probe_left){.stay = stay, .tid = scan->tid, .where = where};
	return outside;
}

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

/* As far as it can be read without a gap, which *ret_end (may be NULL) says. *ret_descriptor (may be NULL): whether a thread's
 * descriptor lies there. */
static bool stack_is_clear(const struct scan *scan, uint64_t start, uint64_t end, bool *ret_descriptor, uint64_t *ret_end)
{
	enum { CHUNK = 1 << 16 };
	pl_autofree uint64_t *words = malloc(CHUNK);
	uint64_t at = start & ~7ULL;
	ssize_t got = CHUNK;

	if (!words)
		return stays(scan, OUTSIDE_UNKNOWN, PL_PROBE_STAY_UNSEEN, 0) == OUTSIDE_YES;
	if (end - start > STACK_SCAN_MAX)
		end = start + STACK_SCAN_MAX;
	for (; at < end && got == CHUNK; at += (uint64_t)got) {
		got = pl_memory_read_some(scan->tid, at, words, end - at < CHUNK ? end - at : CHUNK);
		if (got <= 0)
			break;
		for (size_t i = 0; i < (size_t)got / 8; i++) {
			const uint64_t address = at + 8 * i;

			if (scan->mark && (words[i] ^ scan->mark) == address)
				return stays(scan, OUTSIDE_NO, PL_PROBE_STAY_CALL, address) == OUTSIDE_YES;
			if (in_code(scan, words[i]) && word_is_in_sigframe(scan, address))
				return stays(scan, OUTSIDE_NO, PL_PROBE_STAY_SIGNAL, address) == OUTSIDE_YES;
			if (ret_descriptor && is_descriptor(words + i, (size_t)got / 8 - i, at + 8 * i))
				*ret_descriptor = true;
		}
	}
	if (ret_end)
		*ret_end = at;
	return true;
}

static const struct pl_map *find_stack(const struct pl_maps *maps)
{
	for (size_t i = 0; i < maps->count; i++)
		if (strcmp(maps->items[i].path, "[stack]") == 0)
			return &maps->items[i];
	return NULL;
}

/* All that can be read. */
static bool gaps_are_clear(const struct scan *scan, struct pl_range all)
{
	for (uint64_t at = all.start, seen; at < all.end; at = seen > at ? seen : pl_page_start(at) + PL_PAGE)
		if (!stack_is_clear(scan, at, all.end, NULL, &seen))
			return false;
	return true;
}

/*
 * What was ever used of a stack that the thread is not on. The kernel may show the stacks of several threads as one mapping
 * (glibc 2.42 makes guard pages that are none of their own: MADV_GUARD_INSTALL): in between lie pages that cannot be read.
 */
static bool other_stack_is_clear(const struct scan *scan, uint64_t start, uint64_t end)
{
	enum { RUNS = 16 };
	struct pl_range all = {pl_page_start(end - start > OTHER_STACK_MAX ? end - OTHER_STACK_MAX : start), pl_page_end(end)};
	pl_autoclose int fd = pl_resident_open(scan->tid);

	while (all.start < all.end) {
		struct pl_range runs[RUNS];
		size_t count = 0;

		if (fd < 0 || pl_resident_runs(fd, all, true, runs, RUNS, &count, &all.start) < 0)
			return gaps_are_clear(scan, all);
		/* Those that were swapped out too; as such show guard pages as well. */
		for (size_t i = 0; i < count; i++)
			if (!gaps_are_clear(scan, runs[i]))
				return false;
	}
	return true;
}

/* The stack that the thread is on, and if that is an alternate one, its own as well. Its own ends at what the thread
 * pointer points to; that of the first thread is "[stack]" (not in the child of a fork in another thread). */
static bool stacks_are_clear(const struct scan *scan, const pl_registers *regs, bool leader)
{
	uint64_t sp = pl_registers_sp(regs), pointer = pl_registers_thread_pointer(regs), seen = 0;
	const struct pl_map *current = pl_maps_find(scan->maps, sp), *own = pl_maps_find(scan->maps, pointer);
	const struct pl_map *first = leader ? find_stack(scan->maps) : NULL;

	if (current &&
		!stack_is_clear(scan, sp - PL_ARCH_RED_ZONE > current->start ? sp - PL_ARCH_RED_ZONE : current->start,
			current->end, NULL, &seen))
		return false;
	if (first == current && first)
		return true;
	if (first && !other_stack_is_clear(scan, first->start, first->end))
		return false;
	return !own || (sp <= pointer && pointer < seen) || other_stack_is_clear(scan, own->start, pointer);
}

/*
 * What the code of a probe uses by its own address is in front of it: the header and, of the inline engine, the config. Nobody
 * else is given such an address; one that is in a register was left there by a recorder that has returned. On aarch64, which
 * has many registers, x13 and x15 kept one for seconds under threads that were busy all the while (test_plant.c:
 * lets_go_of_who_has_an_address_left).
 */
static uint64_t start_of_code(const struct pl_probe *probe)
{
	return probe->base + (probe->header.engine == PL_PROBE_INLINE ? PL_INLINE_TYPES_OFFSET : PL_PROBE_CODE_OFFSET);
}

static struct scan make_scan(
	const struct pl_probe *probe, const struct pl_maps *maps, pid_t tid, struct pl_probe_left *left)
{
	return (struct scan){
		.tid = tid,
		.maps = maps,
		.code_start = start_of_code(probe),
		.code_end = probe->base + probe->header.code_size,
		.mark = probe->header.mark,
		.left = left,
	};
}

enum outside pl_thread_outside(const struct pl_thread *thread, bool leader, const struct pl_probe *probe,
	const struct pl_maps *maps, struct pl_probe_left *left)
{
	const struct scan scan = make_scan(probe, maps, thread->tid, left);
	pl_registers regs;

	if (thread->state != PL_THREAD_STOPPED || pl_thread_registers(thread, &regs) < 0)
		return stays(&scan, OUTSIDE_UNKNOWN, PL_PROBE_STAY_UNSEEN, 0);
	if (pl_registers_point_into(&regs, scan.code_start, scan.code_end))
		return stays(&scan, OUTSIDE_NO, PL_PROBE_STAY_CODE, pl_registers_ip(&regs));
	/* A stack that is newer than the look at what is mapped. */
	if (!pl_maps_find(maps, pl_registers_sp(&regs)))
		return stays(&scan, OUTSIDE_UNKNOWN, PL_PROBE_STAY_STACK, pl_registers_sp(&regs));
	return stacks_are_clear(&scan, &regs, leader) ? OUTSIDE_YES : OUTSIDE_NO;
}

static enum outside look_at_sleeper(bool leader, const struct pl_asleep *asleep, const struct scan *scan)
{
	const struct pl_map *map = pl_maps_find(scan->maps, asleep->sp);
	bool own = leader && map && map == find_stack(scan->maps);

	if (in_code(scan, asleep->ip))
		return stays(scan, OUTSIDE_NO, PL_PROBE_STAY_CODE, asleep->ip);
	if (!map)
		return stays(scan, OUTSIDE_UNKNOWN, PL_PROBE_STAY_STACK, asleep->sp);
	if (!stack_is_clear(scan, asleep->sp - PL_ARCH_RED_ZONE > map->start ? asleep->sp - PL_ARCH_RED_ZONE : map->start,
		    map->end, &own, NULL))
		return OUTSIDE_NO;
	return own ? OUTSIDE_YES : stays(scan, OUTSIDE_UNKNOWN, PL_PROBE_STAY_STACK, asleep->sp);
}

enum outside pl_sleeper_outside(pid_t pid, pid_t tid, const struct pl_probe *probe, const struct pl_maps *maps,
	struct pl_asleep *ret, struct pl_probe_left *left)
{
	const struct scan scan = make_scan(probe, maps, tid, left);
	struct pl_asleep after;
	enum outside outside;

	if (pl_asleep_read(pid, tid, ret) < 0)
		return stays(&scan, OUTSIDE_UNKNOWN, PL_PROBE_STAY_UNSEEN, 0);
	outside = look_at_sleeper(tid == pid && pid == probe->pid, ret, &scan);
	if (outside == OUTSIDE_YES && (pl_asleep_read(pid, tid, &after) < 0 || !pl_asleep_same(ret, &after)))
		return stays(&scan, OUTSIDE_UNKNOWN, PL_PROBE_STAY_UNSEEN, 0);
	return outside;
}

int pl_probe_objects(const struct pl_probe *probe, pid_t tid, uint32_t *ret)
{
	uint32_t inside;

	*ret = 0;
	for (uint32_t i = 0; i < probe->header.inside_words; i++) {
		int code = pl_memory_read(tid, probe->header.inside_address + i * sizeof(inside), &inside, sizeof(inside));

		if (code < 0)
			return code;
		/* None of them may make up for another one. */
		*ret = inside > UINT32_MAX - *ret ? UINT32_MAX : *ret + inside;
	}
	return 0;
}

/* -- an object in hand ------------------------------------------------------------------------------------ */

/* PyObject.ob_type where types have copies (up to 3.13, with a GIL). */
enum { OBJECT_TYPE = 8, HOLDER_SCAN = 1 << 17, HOLDER_THREADS = 256, HOLDER_READS = 1 << 17 };

static bool is_in(uint64_t address, uint64_t start, uint64_t size)
{
	return address - start < size;
}

/* How many words of what is in use of this stack lead to an object whose type is the probe's copy of one. *reads: that may
 * yet be made, of all stacks. */
static size_t count_objects(const struct pl_probe *probe, pid_t tid, uint64_t sp, size_t *reads)
{
	pl_autofree uint64_t *words = malloc(HOLDER_SCAN);
	ssize_t got = words ? pl_memory_read_some(tid, sp & ~7ULL, words, HOLDER_SCAN) : 0;
	size_t count = 0;

	for (ssize_t i = 0; i < got / 8 && *reads; i++) {
		uint64_t type;

		if (words[i] & 7 || words[i] < PL_PAGE || words[i] >> PL_ADDRESS_BITS || is_in(words[i], probe->base, probe->mapped_size) ||
			is_in(words[i], probe->tables, probe->tables_mapped_size))
			continue;
		--*reads;
		if (pl_memory_read_u64(tid, words[i] + OBJECT_TYPE, &type) == 0 &&
			(is_in(type, probe->base, probe->mapped_size) || is_in(type, probe->tables, probe->tables_mapped_size)))
			count++;
	}
	return count;
}

/* The one with most of them: who has an object in hand passes it from call to call, and others may have a word of it left. */
pid_t pl_probe_find_holder(const struct pl_probe *probe)
{
	pl_autofree pid_t *tids = NULL;
	size_t count = 0, reads = HOLDER_READS, most = 0;
	pid_t holder = 0;

	if (pl_process_threads(probe->pid, &tids, &count) < 0)
		return 0;
	for (size_t i = 0; i < count && i < HOLDER_THREADS; i++) {
		struct pl_asleep asleep;

		size_t objects = pl_asleep_read(probe->pid, tids[i], &asleep) == 0 ? count_objects(probe, tids[i], asleep.sp, &reads) : 0;

		if (objects > most) {
			most = objects;
			holder = tids[i];
		}
	}
	return holder;
}

int pl_probe_who_stays(const struct pl_probe *probe, struct pl_probe_left *ret)
{
	pl_autofree pid_t *tids = NULL;
	struct pl_maps maps = {0};
	size_t count = 0;
	int code = pl_process_threads(probe->pid, &tids, &count);
	bool found = false;

	*ret = (struct pl_probe_left){0};
	if (code == 0)
		code = pl_maps_read(probe->pid, &maps);
	for (size_t i = 0; code == 0 && probe->filled && i < count && !found; i++) {
		struct pl_asleep asleep;

		found = pl_sleeper_outside(probe->pid, tids[i], probe, &maps, &asleep, ret) == OUTSIDE_NO;
	}
	if (code == 0 && probe->filled && !found) {
		*ret = (struct pl_probe_left){.stay = PL_PROBE_STAY_OBJECTS};
		found = pl_probe_objects(probe, probe->pid, &ret->objects) == 0 && ret->objects != 0;
		ret->tid = found ? pl_probe_find_holder(probe) : 0;
	}
	pl_maps_free(&maps);
	return code < 0 ? code : found ? 0 : -ENOENT;
}

/* -- all of them at one instant --------------------------------------------------------------------------- */

bool all_outside(struct pl_tracee *tracee, const struct pl_probe *probe, const struct pl_maps *maps, struct pl_probe_left *left)
{
	uint32_t objects = 0;

	if (!tracee->count || pl_probe_objects(probe, tracee->threads[0].tid, &objects) < 0)
		return stays(&(struct scan){.left = left}, OUTSIDE_UNKNOWN, PL_PROBE_STAY_UNSEEN, 0) == OUTSIDE_YES;
	/* Of breakpoints, threads are counted. */
	*left = (struct pl_probe_left){
		.stay = probe->header.engine == PL_PROBE_INLINE ? PL_PROBE_STAY_OBJECTS : PL_PROBE_STAY_CALL, .objects = objects};
	if (objects)
		return false;
	for (size_t i = 0; i < tracee->count; i++) {
		const struct pl_thread *thread = &tracee->threads[i];
		const struct scan scan = make_scan(probe, maps, thread->tid, left);
		pl_registers regs;

		if (thread->state == PL_THREAD_GONE)
			continue;
		if (thread->state != PL_THREAD_STOPPED || pl_thread_registers(thread, &regs) < 0)
			return stays(&scan, OUTSIDE_UNKNOWN, PL_PROBE_STAY_UNSEEN, 0) == OUTSIDE_YES;
		if (pl_registers_point_into(&regs, scan.code_start, scan.code_end))
			return stays(&scan, OUTSIDE_NO, PL_PROBE_STAY_CODE, pl_registers_ip(&regs)) == OUTSIDE_YES;
		if (!stacks_are_clear(&scan, &regs, thread->tid == tracee->pid))
			return false;
	}
	return true;
}

bool pl_probe_quiescent(struct pl_tracee *tracee, const struct pl_probe *probe, const struct pl_maps *maps)
{
	struct pl_probe_left left;

	return all_outside(tracee, probe, maps, &left);
}
