/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "allocator_hooks.h"
#include "breakpoint_stacks.h"
#include "engine.h"
#include "pyleak/breakpoint_abi.h"
#include "pyleak/cleanup.h"
#include "pyleak/hook.h"
#include "pyleak/log.h"
#include "pyleak/memory.h"
#include "pyleak/process.h"
#include "pyleak/table.h"
#include "pyleak/units.h"
#include "resolver.h"

/*
 * The engine that stops. Each allocator word leads to an entry of src/probe/breakpoint.S; at its
 * breakpoint the thread's arguments and result are read, its Python stack is walked in remote
 * memory, and it goes on.
 *
 *   malloc, calloc   after the original: size and result are known
 *   free             before it: afterwards the address may be another thread's
 *   realloc          before: the old block's record is taken out and kept with the thread;
 *                    after: the new one goes in, or the old one back if the call failed
 *
 * Domains nest (PyObject_Malloc over 512 bytes asks PyMem_RawMalloc, the debug hooks ask the ones
 * below them): an entry that finds the mark of another one further up its stack leaves the counting
 * to that one, as tracemalloc does with its reentrancy flag.
 */

#define MAX_FRAMES 128
#define STOP_PATIENCE_NSEC (5 * PL_NSEC_PER_SEC)
#define REMOVE_PATIENCE_NSEC (2 * PL_NSEC_PER_SEC)
#define HEALTH_CHECK_NSEC PL_NSEC_PER_SEC
#define BIRTH_TRIES 20
#define BIRTH_PAUSE_NSEC (5 * PL_NSEC_PER_MSEC)
/* How far up an outer entry's mark can be: the frames between the domains of CPython, its debug
 * hooks and tracemalloc's take some hundred bytes. */
#define MARK_SEARCH_BYTES 2048
/* Of a block whose native stack was looked at. */
#define SAMPLED (UINT64_C(1) << 32)

struct breakpoint_engine {
	struct pl_engine engine;
	const struct pl_python *python;
	struct pl_tracee *tracee; /* NULL when finished */
	struct pl_probe probe;
	struct pl_resolver resolver;
	struct pl_table blocks; /* address → site + 1, perhaps with SAMPLED, and size */
	struct breakpoint_stacks stacks;
	size_t frames;
	int64_t next_check;
	int8_t hook_before[PL_BREAKPOINT_CODE_SIZE]; /* offset of the instruction pointer → hook number + 1 */
	int8_t hook_after[PL_BREAKPOINT_CODE_SIZE];
};

static void note_freed(struct breakpoint_engine *self, const uint64_t block[2])
{
	struct pl_totals *totals = pl_sites_totals(self->engine.sites, (uint32_t)(block[0] - 1));

	totals->freed_count++;
	totals->freed_size += block[1];
}

static void note_allocated(struct breakpoint_engine *self, uint64_t address, uint32_t site, uint64_t size,
	bool sampled)
{
	struct pl_table_entry *entry = pl_table_insert(&self->blocks, address);

	if (!entry)
		return;

	/* A record under this address means that its free did not come through a hook. */
	if (entry->value[0])
		note_freed(self, entry->value);

	struct pl_totals *totals = pl_sites_totals(self->engine.sites, site);

	totals->allocated_count++;
	totals->allocated_size += size;
	entry->value[0] = ((uint64_t)site + 1) | (sampled ? SAMPLED : 0);
	entry->value[1] = size;
}

static uint32_t current_site(struct breakpoint_engine *self, struct pl_thread *thread, const pl_registers *regs)
{
	struct pl_frame_ref stack[MAX_FRAMES];
	bool more = false;
	size_t count = pl_python_thread_stack(self->python, pl_registers_thread_pointer(regs), &thread->hint, stack,
		self->frames, &more);

	return pl_resolver_site(&self->resolver, stack, count, more);
}

/* The native stack, from who called the allocator on: above the frame of the entry. */
static bool take_native_stack(
	struct breakpoint_engine *self, struct pl_thread *thread, const pl_registers *regs, uint32_t site, uint64_t block)
{
	uint64_t sp = pl_registers_sp(regs), address;
	pl_registers caller = *regs;

	if (pl_memory_read_u64(thread->tid, sp + PL_BREAKPOINT_FRAME_RETURN, &address) < 0)
		return false;
	pl_registers_set_ip(&caller, address);
	pl_registers_set_sp(&caller, sp + PL_BREAKPOINT_FRAME_CALLER);
	return breakpoint_stacks_take(&self->stacks, thread->tid, &caller, site, block);
}

static bool is_live_sample(void *context, uint32_t site, uint64_t block)
{
	const struct breakpoint_engine *self = context;
	const struct pl_table_entry *entry = pl_table_find(&self->blocks, block);

	return entry && entry->value[0] == (((uint64_t)site + 1) | SAMPLED);
}

/* What an entry keeps on its stack, and whether another entry is active further up. */
struct call {
	uint64_t arguments[2];
	bool nested;
};

static int read_call(const struct pl_thread *thread, const pl_registers *regs, struct call *ret)
{
	uint64_t words[(PL_BREAKPOINT_FRAME_SIZE + MARK_SEARCH_BYTES) / 8];
	uint64_t sp = pl_registers_sp(regs);
	ssize_t got = pl_memory_read_some(thread->tid, sp, words, sizeof(words));

	if (got < PL_BREAKPOINT_FRAME_SIZE)
		return -EFAULT;
	ret->arguments[0] = words[0];
	ret->arguments[1] = words[1];
	ret->nested = false;
	for (size_t i = PL_BREAKPOINT_FRAME_SIZE / 8; i < (size_t)got / 8 && !ret->nested; i++)
		ret->nested = (words[i] ^ PL_BREAKPOINT_MARK) == sp + 8 * i;
	return 0;
}

static void before_free(struct breakpoint_engine *self, const pl_registers *regs)
{
	struct pl_table_entry entry;
	uint64_t address = pl_registers_second_argument(regs);

	if (!address)
		return;
	if (pl_table_remove(&self->blocks, address, &entry))
		note_freed(self, entry.value);
	pl_resolver_forget(&self->resolver, address);
}

static void before_realloc(struct breakpoint_engine *self, struct pl_thread *thread, const pl_registers *regs)
{
	struct pl_table_entry entry = {0};
	struct call call;

	if (read_call(thread, regs, &call) < 0 || call.nested)
		return;
	if (call.arguments[0])
		(void)pl_table_remove(&self->blocks, call.arguments[0], &entry);
	thread->aside[0] = entry.key;
	thread->aside[1] = entry.value[0];
	thread->aside[2] = entry.value[1];
}

/* The old block is gone, or, if the call failed, still there. */
static void after_realloc(struct breakpoint_engine *self, struct pl_thread *thread, bool failed)
{
	if (thread->aside[0] && failed) {
		struct pl_table_entry *entry = pl_table_insert(&self->blocks, thread->aside[0]);

		if (entry) {
			entry->value[0] = thread->aside[1];
			entry->value[1] = thread->aside[2];
		}
	} else if (thread->aside[0]) {
		note_freed(self, &thread->aside[1]);
	}
	thread->aside[0] = 0;
}

static void after_call(struct breakpoint_engine *self, struct pl_thread *thread, const pl_registers *regs,
	enum pl_allocator_function function)
{
	uint64_t result = (uint64_t)pl_registers_result(regs), size;
	struct call call;

	if (read_call(thread, regs, &call) < 0 || call.nested)
		return;
	switch (function) {
	case PL_FN_CALLOC:
		size = call.arguments[0] * call.arguments[1];
		break;
	case PL_FN_REALLOC:
		size = call.arguments[1];
		after_realloc(self, thread, !result);
		break;
	default:
		size = call.arguments[0];
		break;
	}
	if (!result)
		return;

	uint32_t site = current_site(self, thread, regs);

	if (site == UINT32_MAX)
		return;
	note_allocated(self, result, site, size, take_native_stack(self, thread, regs, site, result));
}

static bool on_breakpoint(struct pl_tracee *tracee, struct pl_thread *thread, const pl_registers *regs)
{
	struct breakpoint_engine *self = tracee->context;
	uint64_t offset = pl_registers_ip(regs) - self->probe.base;

	if (offset >= PL_BREAKPOINT_CODE_SIZE)
		return false;

	int before = self->hook_before[offset] - 1, after = self->hook_after[offset] - 1;

	if (after >= 0)
		after_call(self, thread, regs, (enum pl_allocator_function)(after % PL_FN_COUNT));
	else if (before >= 0 && before % PL_FN_COUNT == PL_FN_FREE)
		before_free(self, regs);
	else if (before >= 0)
		before_realloc(self, thread, regs);
	return true;
}

static void index_entries(struct breakpoint_engine *self)
{
	for (int hook = 0; hook < PL_BREAKPOINT_HOOKS; hook++) {
		const struct pl_breakpoint_entry *entry = &pl_breakpoint_entries[hook];

		if (entry->before_call)
			self->hook_before[entry->before_call] = (int8_t)(hook + 1);
		if (entry->after_call)
			self->hook_after[entry->after_call] = (int8_t)(hook + 1);
	}
}

static int make_plan(const struct pl_python *python, struct pl_probe_plan *plan)
{
	uint32_t entries[ALLOCATOR_HOOKS];

	*plan = (struct pl_probe_plan){
		.engine = PL_PROBE_BREAKPOINT,
		.image = pl_breakpoint_image,
		.code_size = PL_BREAKPOINT_CODE_SIZE,
		.data_size = PL_BREAKPOINT_DATA_SIZE,
		.armed_offset = PL_BREAKPOINT_ARMED,
		.armed_value = 1,
		.inside_words = 1,
		.inside_offset = PL_BREAKPOINT_INSIDE,
		.scratch_offset = PL_BREAKPOINT_SCRATCH,
		.trap_handler_offset = pl_breakpoint_trap_handler,
		.restorer_offset = pl_breakpoint_restorer,
	};
	for (int hook = 0; hook < ALLOCATOR_HOOKS; hook++)
		entries[hook] = pl_breakpoint_entries[hook].entry;
	return allocator_hooks_plan(python, entries, plan);
}

static bool has_signal(uint64_t set, int signal)
{
	return set >> (signal - 1) & 1;
}

/* The C library blocks all signals around a thread's birth and death (pthread_create(), start_thread()
 * in glibc; musl does the same): who blocks SIGTRAP by intention still does a little later. */
static bool thread_blocks_trap(pid_t tid)
{
	bool blocks = true;

	for (int i = 0; blocks && i < BIRTH_TRIES; i++) {
		struct pl_process process;

		if (i)
			pl_sleep_ns(BIRTH_PAUSE_NSEC);
		/* /proc/TID shows a thread's own mask though it is in no listing. */
		blocks = pl_process_read(tid, &process) == 0 && has_signal(process.sig_blocked, SIGTRAP);
		pl_process_free(&process);
	}
	return blocks;
}

/* A thread that blocks SIGTRAP would be killed by a breakpoint if this tracer died: the kernel
 * resets the action and delivers it all the same (kernel/signal.c, force_sig_info_to_task()). */
static int refuse_blocked_trap(pid_t pid, struct pl_error *err)
{
	pl_autofree pid_t *tids = NULL;
	size_t count;
	int code = pl_process_threads(pid, &tids, &count);

	if (code < 0)
		return pl_fail(err, code, "no process %d", (int)pid);
	for (size_t i = 0; i < count; i++)
		if (thread_blocks_trap(tids[i]))
			return pl_fail(err, -EPERM,
				"thread %d of process %d blocks SIGTRAP, and a breakpoint could kill it: this engine "
				"cannot be used on it",
				(int)tids[i], (int)pid);
	return 0;
}

static int breakpoint_finish(struct pl_engine *engine, struct pl_error *err)
{
	struct breakpoint_engine *self = (struct breakpoint_engine *)engine;
	struct pl_error failure = {0};
	int code = 0;

	if (!self->tracee)
		return 0;
	if (!self->tracee->ended) {
		code = pl_tracee_stop(self->tracee, STOP_PATIENCE_NSEC, &failure);
		if (code == 0)
			code = pl_probe_remove(self->tracee, &self->probe, REMOVE_PATIENCE_NSEC, &failure);
		/* A process that ends by itself, or starts another program, takes the hooks with it. */
		if (self->tracee->ended || code == -ESRCH || !pl_process_is_alive(self->tracee->pid, self->tracee->start_time))
			code = 0;
		if (code < 0)
			code = pl_fail(err, code, "%s", failure.text);
	}
	pl_tracee_detach(PL_TAKE(self->tracee));
	return code;
}

static void breakpoint_free(struct pl_engine *engine)
{
	struct breakpoint_engine *self = (struct breakpoint_engine *)engine;

	(void)breakpoint_finish(engine, NULL);
	pl_table_free(&self->blocks);
	pl_resolver_free(&self->resolver);
	breakpoint_stacks_free(&self->stacks);
	pl_probe_free(&self->probe);
	free(self);
}

/* The handler that lets a breakpoint outlive us must stay in code; a thread that blocks SIGTRAP
 * makes the kernel take it away at its first breakpoint. */
static int check_health(struct breakpoint_engine *self, struct pl_error *err)
{
	struct pl_process process;
	bool lost = pl_process_read(self->tracee->pid, &process) == 0 && !has_signal(process.sig_caught, SIGTRAP);

	pl_process_free(&process);
	if (!lost)
		return 0;
	return pl_fail(err, -ECANCELED,
		"process %d lost its SIGTRAP handler (a thread blocks SIGTRAP): recording was ended for its safety",
		(int)self->tracee->pid);
}

static int breakpoint_run(struct pl_engine *engine, int64_t until_ns, const volatile int *stop, struct pl_error *err)
{
	struct breakpoint_engine *self = (struct breakpoint_engine *)engine;

	while (pl_now_ns() < until_ns) {
		int code;

		if (*stop)
			return -EINTR;
		if (!self->tracee)
			return -ESRCH;
		code = pl_tracee_wait(self->tracee);
		if (code < 0)
			return code;
		if (pl_now_ns() < self->next_check)
			continue;
		code = check_health(self, err);
		if (code < 0)
			return code;
		self->next_check = pl_now_ns() + HEALTH_CHECK_NSEC;
	}
	return 0;
}

static int breakpoint_update(struct pl_engine *engine, struct pl_engine_state *ret)
{
	struct breakpoint_engine *self = (struct breakpoint_engine *)engine;

	if (self->tracee)
		engine->stop_ns = self->tracee->longest_stop;
	breakpoint_stacks_review(&self->stacks, is_live_sample, self);
	ret->rss = pl_process_rss(self->python->pid);
	return ret->rss ? 0 : -ESRCH;
}

static const struct pl_engine_ops breakpoint_ops = {
	.run = breakpoint_run,
	.update = breakpoint_update,
	.finish = breakpoint_finish,
	.free = breakpoint_free,
};

static int plant(struct breakpoint_engine *self, const struct pl_engine_options *options, struct pl_error *err)
{
	struct pl_probe_plan plan;
	struct pl_maps maps = {0};
	struct pl_gadgets gadgets;
	pid_t pid = self->python->pid;
	int code = refuse_blocked_trap(pid, err);

	/* All that can be read is read before the process is stopped. */
	if (code == 0)
		code = pl_maps_read(pid, &maps);
	if (code == 0)
		code = pl_gadgets_find(pid, &maps, &gadgets, err);
	if (code == 0)
		code = make_plan(self->python, &plan);
	if (code == 0 && options->begins)
		options->begins(options->begins_context, 0);
	if (code == 0)
		code = pl_tracee_seize(pid, STOP_PATIENCE_NSEC, &self->tracee, err);
	if (code == 0)
		code = pl_probe_plant(self->tracee, &maps, &gadgets, &plan, &self->probe, err);
	if (code == 0) {
		self->tracee->on_breakpoint = on_breakpoint;
		self->tracee->context = self;
		code = pl_tracee_follow_threads(self->tracee);
		self->engine.facts.since_ns = pl_now_ns();
		(void)clock_gettime(CLOCK_REALTIME, &self->engine.facts.started);
		pl_tracee_resume(self->tracee);
		self->engine.stop_ns = self->tracee->longest_stop;
	}
	pl_maps_free(&maps);
	return code;
}

int pl_engine_start_breakpoint(const struct pl_python *python, const struct pl_engine_options *options,
	struct pl_engine **ret, struct pl_error *err)
{
	struct breakpoint_engine *self = calloc(1, sizeof(*self));

	if (!self)
		return pl_fail(err, -ENOMEM, "out of memory");
	self->engine.ops = &breakpoint_ops;
	self->engine.sites = options->sites;
	self->engine.facts = (struct pl_facts){
		.pid = python->pid,
		.engine = "breakpoint",
		.frames = options->frames,
		.rss = options->rss,
		.account = options->account,
	};
	memcpy(self->engine.facts.python, python->version, sizeof(self->engine.facts.python));
	self->python = python;
	self->frames = (size_t)(options->frames > MAX_FRAMES ? MAX_FRAMES : options->frames);
	self->next_check = pl_now_ns() + HEALTH_CHECK_NSEC;
	self->stacks = (struct breakpoint_stacks){
		.memory = python->space,
		.python = python->object_path,
		.limit = options->native_frames,
		.sites = options->sites,
		.random = (uint64_t)pl_now_ns(),
	};
	pl_resolver_init(&self->resolver, python, self->engine.sites);
	index_entries(self);

	int code = plant(self, options, err);

	if (code < 0) {
		code = pl_fail(err, code, "process %d cannot be hooked: %s", (int)python->pid, strerror(-code));
		pl_tracee_detach(PL_TAKE(self->tracee));
		breakpoint_free(&self->engine);
		return code;
	}
	*ret = &self->engine;
	return 0;
}
