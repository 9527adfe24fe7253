/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "allocator_hooks.h"
#include "engine.h"
#include "free_lists.h"
#include "inline_read.h"
#include "inline_rounding.h"
#include "inline_stacks.h"
#include "native.h"
#include "native_caller.h"
#include "pyleak/cleanup.h"
#include "pyleak/hook.h"
#include "pyleak/log.h"
#include "pyleak/memory.h"
#include "pyleak/process.h"
#include "pyleak/units.h"

/*
 * The engine that does not stop. The probe records by itself; the tracer is attached for the
 * milliseconds of planting and of removing, and reads the probe's tables from outside in between.
 */

#define STOP_PATIENCE_NSEC (5 * PL_NSEC_PER_SEC)
#define REMOVE_PATIENCE_NSEC (2 * PL_NSEC_PER_SEC)
#define LOOK_NSEC (20 * PL_NSEC_PER_MSEC)
/* What is read while nobody asks, so that a process that ends leaves something to report. */
#define PASS_NSEC (500 * PL_NSEC_PER_MSEC)
/* How often is looked for libraries that were loaded: at most so often, and for a fiftieth of the time. */
#define NATIVE_LOOK_NSEC (100 * PL_NSEC_PER_MSEC)
#define NATIVE_LOOK_SHARE 50
/* Rows for words of GOTs: 512 KiB, of which only what is used takes memory. */
#define WORDS_MAX 16384U
/* Sites whose native stacks are looked at again: while nobody asks, and for a report. */
#define STACKS_BEFORE_PASS_NSEC (200 * PL_NSEC_PER_MSEC)
#define STACKS_BY_THE_WAY 128
#define STACKS_REPORTED 8192
#define PAGE 4096ULL

struct inline_engine {
	struct pl_engine engine;
	const struct pl_python *python;
	struct pl_probe probe;
	struct pl_inline_reader reader;
	struct native native;
	struct native_callers callers;
	struct inline_stacks stacks;
	int64_t next_native_look;
	uint64_t start_time;
	int64_t next_pass;
	bool apart;     /* its sites bear its number */
	int process_fd; /* a pidfd: becomes readable when the process ends; -1 before Linux 5.3 */
	struct inline_rounding last_rounding; /* once it is finished: before the tables went */
	bool planted;   /* by us, or adopted: there is something to remove */
	bool keep;
	bool words_changed; /* a word that led to us does not any more: said once */
	bool gone;      /* the process ended, or runs another program */
};

static int read_tracee(void *context, uint64_t address, void *buffer, size_t length)
{
	const struct pl_python *python = context;

	return pl_memory_read(python->pid, address, buffer, length);
}

static int find_caller(void *context, uint64_t address, struct pl_native_caller *ret)
{
	return native_caller_find(context, address, ret);
}

/* What planting needs to know of the process, gathered while it is stopped. */
struct planting {
	const struct pl_python *python;
	struct pl_inline_options options;
	const struct pl_probe_plan *plan;
	struct free_lists free_lists;
	const struct native *native; /* NULL: left alone */
	struct pl_python_current current;
	uint64_t leader, leader_thread;
	struct pl_python_detached detached;
	uint64_t gil;
	uint64_t rss;
	const struct pl_account *account;
	bool wrapped; /* the mem or obj allocator is */
};

/* In config.engine[], which is the tracer's own. */
enum {
	CONFIG_RSS,
	CONFIG_ACCOUNT_KNOWN, /* a bit for each part; 0: no account was taken */
	CONFIG_ACCOUNT_OVERHEAD,
	CONFIG_ACCOUNT_PARTS,
};
_Static_assert(CONFIG_ACCOUNT_PARTS + PL_ACCOUNT_PARTS <= 16, "config.engine");

#define ACCOUNT_PART_MAX (INT64_C(1) << 56)

static void save_account(uint64_t *words, const struct pl_account *account)
{
	words[CONFIG_ACCOUNT_OVERHEAD] = (uint64_t)account->arenas_overhead;
	for (int part = 0; account->taken && part < PL_ACCOUNT_PARTS; part++) {
		words[CONFIG_ACCOUNT_KNOWN] |= (uint64_t)account->known[part] << part;
		words[CONFIG_ACCOUNT_PARTS + part] = (uint64_t)account->parts[part];
	}
}

static struct pl_account load_account(const uint64_t *words)
{
	struct pl_account account = {
		.taken = words[CONFIG_ACCOUNT_KNOWN] != 0,
		.rss = words[CONFIG_RSS],
		.arenas_overhead = (int64_t)(words[CONFIG_ACCOUNT_OVERHEAD] % ACCOUNT_PART_MAX),
		.alignment = PL_ACCOUNT_ALIGNMENT,
	};

	for (int part = 0; part < PL_ACCOUNT_PARTS; part++) {
		int64_t bytes = (int64_t)words[CONFIG_ACCOUNT_PARTS + part];

		account.known[part] = words[CONFIG_ACCOUNT_KNOWN] >> part & 1;
		/* The process can write anything there: no sum of it may overflow. */
		account.parts[part] = bytes > -ACCOUNT_PART_MAX && bytes < ACCOUNT_PART_MAX ? bytes : 0;
	}
	return account;
}

static uint64_t realtime_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * PL_NSEC_PER_SEC + (uint64_t)now.tv_nsec;
}

static void fill(void *context, uint8_t *image, uint64_t base, uint64_t tables)
{
	const struct planting *planting = context;
	struct pl_inline_config config;

	pl_inline_configure(&planting->options, planting->python, tables, &config);
	config.thread_tls = planting->current.offset;
	config.thread_module = planting->current.module;
	config.thread_stride = planting->current.stride;
	config.thread_room = planting->current.room;
	config.thread_generation = planting->current.generation;
	config.gil = planting->gil;
	config.leader = planting->leader;
	config.leader_thread = planting->leader_thread;
	config.interpreters_head = planting->python->interpreters_head;
	if (planting->detached.interpreter) {
		config.finalizing = planting->python->finalizing;
		config.main_interpreter = planting->detached.interpreter;
		if (planting->detached.tid != PL_NO_FIELD) {
			config.thread_native_id = planting->detached.native_id;
			config.thread_tid = planting->detached.tid;
		}
	}
	config.planted_realtime = realtime_ns();
	config.planted_monotonic = (uint64_t)pl_now_ns();
	config.engine[CONFIG_RSS] = planting->rss;
	save_account(config.engine, planting->account);
	if (planting->wrapped)
		config.nested_size = 0;
	free_lists_fill(planting->python, &planting->free_lists, image, base, &config.free_lists);
	for (uint32_t i = 0; i < PL_INLINE_ENTRIES; i++) {
		config.original[i] = planting->plan->hooks[i].original;
		config.slot[i] = planting->plan->hooks[i].address;
	}
	if (planting->native) {
		config.native = 1;
		for (uint32_t i = PL_INLINE_ENTRY_NATIVE; i < PL_INLINE_ENTRY_COUNT; i++) {
			config.original[i] = planting->native->original[i];
			config.flags[i] = planting->native->flags[i];
		}
		memcpy(config.quiet, planting->native->quiet + PL_INLINE_FIRST_ALLOC, sizeof(config.quiet));
	}
	memcpy(image + PL_INLINE_CONFIG_OFFSET, &config, sizeof(config));
}

static uint64_t image_size(void)
{
	return (pl_inline_bytes_size + PAGE - 1) & ~(PAGE - 1);
}

static int make_plan(const struct pl_python *python, struct planting *planting, const uint8_t *image, struct pl_probe_plan *plan)
{
	const struct pl_inline_image *header = (const void *)(image + PL_INLINE_IMAGE_OFFSET);

	*plan = (struct pl_probe_plan){
		.engine = PL_PROBE_INLINE,
		.image = image,
		.code_size = image_size(),
		.tables_size = pl_inline_data_size(&planting->options),
		.tables_kept = PL_INLINE_KEPT_SIZE,
		.fill = fill,
		.context = planting,
		.armed_value = python->free_threaded   ? PL_INLINE_THREADS :
			       planting->options.sample ? PL_INLINE_SAMPLE :
							 PL_INLINE_GIL,
		.mark = PL_INLINE_MARKER,
		.inside_words = 2,
		.inside_offset = pl_inline_data_size(&planting->options) - PL_INLINE_KEPT_SIZE,
	};
	planting->plan = plan;
	/* A context of its own: not pymalloc but what wraps it (debug, tracemalloc), through which small
	 * requests too may reach the raw domain. */
	for (int domain = PL_PYMEM_MEM; domain <= PL_PYMEM_OBJ; domain++) {
		uint64_t wrapper;
		int code = pl_memory_read_u64(python->pid, python->allocators[domain], &wrapper);

		if (code < 0)
			return code;
		planting->wrapped |= wrapper != 0;
	}
	return allocator_hooks_plan(python, header->entry, plan);
}

/* Where the running thread state is, checked in every thread. */
static int find_current(struct pl_tracee *tracee, struct planting *planting, struct pl_error *err)
{
	pl_autofree uint64_t *pointers = NULL;
	size_t count = 0;

	if (planting->python->thread_current)
		return 0;
	pointers = calloc(tracee->count, sizeof(*pointers));
	if (!pointers)
		return -ENOMEM;
	for (size_t i = 0; i < tracee->count; i++) {
		pl_registers regs;

		if (pl_thread_registers(&tracee->threads[i], &regs) == 0)
			pointers[count++] = pl_registers_thread_pointer(&regs);
	}
	return pl_python_current(planting->python, pointers, count, &planting->current, err);
}

/* The first thread, and its state if that may be looked at in native code. A leader that has ended has no registers. */
static void find_leader(struct pl_tracee *tracee, struct planting *planting)
{
	for (size_t i = 0; i < tracee->count; i++) {
		pl_registers regs;

		if (tracee->threads[i].tid != planting->python->pid || pl_thread_registers(&tracee->threads[i], &regs) < 0)
			continue;
		planting->leader = pl_registers_thread_pointer(&regs);
		planting->leader_thread = pl_python_first_thread(planting->python, planting->leader);
	}
}

static int adopt_config(struct inline_engine *self, int native_frames)
{
	const struct pl_inline_config *config = &self->reader.config;
	struct pl_inline_image image;
	int code = pl_memory_read(self->python->pid, self->probe.base + PL_INLINE_IMAGE_OFFSET, &image, sizeof(image));

	if (code == 0 && (image.magic != PL_INLINE_MAGIC || image.abi != PL_INLINE_ABI))
		code = -EPROTO;
	if (code == 0)
		code = pl_memory_read(self->python->pid, self->probe.base + PL_INLINE_CONFIG_OFFSET, &self->reader.config,
			sizeof(self->reader.config));
	if (code == 0)
		code = pl_inline_reader_init(&self->reader);
	if (code < 0)
		return code;
	inline_stacks_init(&self->stacks, self->python, self->probe.base, config->native ? native_frames : 0);
	self->engine.facts = (struct pl_engine_facts){
		.engine = "inline",
		.frames = (int)config->frame_limit,
		.sample = config->sample,
		.native = config->native != 0,
		.since_ns = (int64_t)config->planted_monotonic,
		.since = {(time_t)(config->planted_realtime / PL_NSEC_PER_SEC),
			(long)(config->planted_realtime % PL_NSEC_PER_SEC)},
		.rss = config->engine[CONFIG_RSS],
		.account = load_account(config->engine),
	};
	return 0;
}

static int plant_sized(struct inline_engine *self, const struct pl_engine_options *options, uint64_t chunk_count,
	struct pl_error *err)
{
	const struct pl_python *python = self->python;
	struct planting planting = {
		.python = python,
		.options = {.frames = (uint32_t)options->frames, .sample = options->sample, .chunk_count = chunk_count},
		.rss = options->rss,
		.account = &options->account,
		.native = options->native ? &self->native : NULL,
	};
	struct pl_probe_plan plan = {0};
	struct pl_maps maps = {0};
	struct pl_gadgets gadgets;
	struct pl_tracee *tracee = NULL;
	pl_autofree uint8_t *image = calloc(1, image_size());
	pl_autofree struct pl_probe_word *words = NULL;
	int code;

	if (!image)
		return pl_fail(err, -ENOMEM, "out of memory");
	memcpy(image, pl_inline_bytes, pl_inline_bytes_size);
	/* All that can be read is read before the process is stopped. */
	planting.gil = pl_python_main_gil(python);
	code = pl_maps_read(python->pid, &maps);
	if (code == 0)
		code = pl_gadgets_find(python->pid, &maps, &gadgets, err);
	if (code == 0)
		code = make_plan(python, &planting, image, &plan);
	plan.kept = options->keep;
	if (code == 0 && options->native) {
		code = native_look(&self->native, (const void *)(image + PL_INLINE_IMAGE_OFFSET), &words, &plan.word_count);
		plan.words = words;
		plan.word_capacity = WORDS_MAX;
		if (plan.word_count > WORDS_MAX)
			plan.word_count = WORDS_MAX;
	}
	if (code == 0 && !options->park)
		free_lists_plan(python, (const void *)(image + PL_INLINE_IMAGE_OFFSET), &planting.free_lists, &plan);
	if (code == 0)
		code = pl_tracee_seize(python->pid, STOP_PATIENCE_NSEC, &tracee, err);
	if (code == 0)
		code = find_current(tracee, &planting, err);
	if (code == 0)
		find_leader(tracee, &planting);
	/* Frames that are not objects (3.11+) lie in mappings, which only the native hooks see go. */
	if (code == 0 && (options->native || python->layout.frame_instruction_is_index))
		pl_python_detached(python, &planting.detached);
	if (code == 0 && !options->park)
		free_lists_settle(python, &planting.free_lists, &plan);
	if (code == 0)
		code = pl_probe_plant(tracee, &maps, &gadgets, &plan, &self->probe, err);

	int64_t stop_ns = pl_tracee_detach(tracee);

	if (stop_ns > self->engine.stop_ns)
		self->engine.stop_ns = stop_ns;
	pl_maps_free(&maps);
	if (code == 0) {
		self->planted = true;
		code = adopt_config(self, options->native_frames);
		self->engine.facts.account = options->account;
	}
	if (code == 0) {
		native_adopt(&self->native, &self->probe, &self->reader.config);
		/* For words that were bound between the look and the stop. */
		native_look_again(&self->native);
	}
	return code;
}

/*
 * The map of live blocks is address space, not memory, but a process may have a limit to that too
 * (ulimit -v, vm.overcommit_memory 2): then it gets a map for a smaller heap, and what does not fit
 * in is counted as lost. At least half of what it has left stays its own.
 */
static int find_room(pid_t pid, int frames, uint64_t *ret_chunk_count, uint64_t *ret_size, struct pl_error *err)
{
	static const uint64_t chunk_counts[] = {0 /* the default */, 128, 16, 4};
	uint64_t left = pl_address_space_left(pid);

	for (size_t i = 0; i < sizeof(chunk_counts) / sizeof(chunk_counts[0]); i++) {
		const struct pl_inline_options sized = {.frames = (uint32_t)frames, .chunk_count = chunk_counts[i]};

		*ret_chunk_count = sized.chunk_count;
		*ret_size = pl_inline_data_size(&sized);
		if (*ret_size <= left / 2)
			return 0;
	}
	return pl_fail(err, -ENOMEM,
		"process %d may map only %" PRIu64 " MiB more (ulimit -v, or vm.overcommit_memory 2), too little for the "
		"recorder: use --engine breakpoint",
		(int)pid, left >> 20);
}

int pl_engine_room(pid_t pid, uint64_t *ret_size, struct pl_error *err)
{
	struct pl_maps maps = {0};
	uint64_t chunk_count;
	int code = find_room(pid, PL_INLINE_FRAMES_MAX, &chunk_count, ret_size, err);

	if (code == 0)
		code = pl_maps_read(pid, &maps);
	if (code == 0 && !pl_probe_place(&maps, image_size(), *ret_size))
		code = pl_fail(err, -EEXIST, "no free place for the probe in process %d", (int)pid);
	pl_maps_free(&maps);
	return code < 0 ? pl_fail(err, code, "process %d cannot be read: %s", (int)pid, strerror(-code)) : 0;
}

static int plant(struct inline_engine *self, const struct pl_engine_options *options, struct pl_error *err)
{
	uint64_t chunk_count, size;
	int code = find_room(self->python->pid, options->frames, &chunk_count, &size, err);

	return code < 0 ? code : plant_sized(self, options, chunk_count, err);
}

/* A program that was started in this process since has none of our pages. */
static bool still_there(const struct inline_engine *self)
{
	char magic[sizeof(self->probe.header.magic)];
	uint64_t start_time;

	return pl_process_start_time(self->python->pid, &start_time) == 0 && start_time == self->start_time &&
	       pl_memory_read(self->python->pid, self->probe.base, magic, sizeof(magic)) == 0 &&
	       memcmp(magic, PL_PROBE_MAGIC, sizeof(magic)) == 0;
}

/* Entries that were given out since. The original goes last: an entry with one is complete. */
static int write_entries(struct inline_engine *self, struct pl_tracee *tracee)
{
	struct pl_inline_config *config = &self->reader.config;
	uint64_t address = self->probe.base + PL_INLINE_CONFIG_OFFSET;
	int code = 0;

	for (uint32_t i = PL_INLINE_ENTRY_NATIVE; code == 0 && i < PL_INLINE_ENTRY_COUNT; i++) {
		if (config->original[i] == self->native.original[i])
			continue;
		config->flags[i] = self->native.flags[i];
		code = pl_tracee_write(tracee, address + offsetof(struct pl_inline_config, flags) + i, &config->flags[i], 1);
		if (code == 0 && self->native.quiet[i])
			code = pl_tracee_write(tracee,
				address + offsetof(struct pl_inline_config, quiet) + 8 * (i - PL_INLINE_FIRST_ALLOC),
				&self->native.quiet[i], 8);
		if (code == 0)
			code = pl_tracee_write(tracee, address + offsetof(struct pl_inline_config, original) + 8 * i,
				&self->native.original[i], 8);
		config->original[i] = self->native.original[i];
	}
	return code;
}

/* Whether no other pyleak has given out entries since this one knows them. */
static int check_entries(struct inline_engine *self)
{
	struct pl_inline_config now;
	int code = pl_memory_read(self->python->pid, self->probe.base + PL_INLINE_CONFIG_OFFSET, &now, sizeof(now));

	if (code < 0 || memcmp(now.original, self->reader.config.original, sizeof(now.original)) == 0)
		return code;
	memcpy(self->reader.config.original, now.original, sizeof(now.original));
	memcpy(self->reader.config.flags, now.flags, sizeof(now.flags));
	native_adopt(&self->native, &self->probe, &now);
	return -EAGAIN;
}

/* Hooks words of libraries that were loaded since: one short stop. */
static int extend(struct inline_engine *self, const struct pl_probe_word *words, uint32_t count)
{
	pid_t pid = self->python->pid;
	struct pl_tracee *tracee = NULL;
	uint32_t redirected = 0;
	int code = pl_tracee_seize(pid, STOP_PATIENCE_NSEC, &tracee, NULL);

	if (code == 0) {
		/* As it is now: another pyleak may have extended it, or removed it. */
		pl_probe_free(&self->probe);
		code = pl_probe_find(pid, &self->probe);
	}
	if (code == 0 && !self->probe.filled)
		code = -ENOENT;
	if (code == 0)
		code = check_entries(self);
	if (code == 0)
		code = write_entries(self, tracee);
	if (code == 0)
		code = pl_probe_extend(tracee, &self->probe, words, count, &redirected);

	int64_t stop_ns = pl_tracee_detach(tracee);

	if (stop_ns > self->engine.stop_ns)
		self->engine.stop_ns = stop_ns;
	if (code == -ENOSPC && !self->native.full) {
		pl_log_note("process %d has loaded more libraries than the probe has room for: some are not recorded", (int)pid);
		self->native.full = true;
		code = 0;
	}
	if (redirected < count && !self->native.full)
		native_look_again(&self->native);
	pl_log_debug("%u of %u words of libraries loaded since hooked, in %.1f ms", redirected, count, (double)stop_ns / 1e6);
	return code;
}

/* Libraries come and go. Whoever has not planted the probe has no claim on the process: it takes one. */
static void follow_libraries(struct inline_engine *self, int64_t now)
{
	const uint8_t *image = pl_inline_bytes + PL_INLINE_IMAGE_OFFSET;
	pl_autofree struct pl_probe_word *words = NULL;
	uint32_t count = 0;

	if (!self->engine.facts.native || now < self->next_native_look)
		return;

	int code = native_look(&self->native, (const void *)image, &words, &count);
	bool claimed = false;

	if (code == 0 && count && !self->planted) {
		claimed = pl_probe_claim(self->python->pid) == 0;
		if (!claimed) {
			native_look_again(&self->native);
			count = 0;
		}
	}
	if (code == 0 && count)
		code = extend(self, words, count);
	if (claimed)
		pl_probe_unclaim(self->python->pid);
	if (code < 0)
		pl_log_debug("libraries of process %d could not be looked at: %s", (int)self->python->pid, strerror(-code));

	int64_t taken = pl_now_ns() - now;

	self->next_native_look = now + NATIVE_LOOK_NSEC;
	if (taken * NATIVE_LOOK_SHARE > NATIVE_LOOK_NSEC)
		self->next_native_look = now + taken * NATIVE_LOOK_SHARE;
}

/* Another tool may hook on top of ours, or write what it saved before we came over them
 * (tracemalloc.stop()): the one sees everything still, the other ends the recording unseen. */
static void watch_words(struct inline_engine *self)
{
	for (uint32_t i = 0; !self->words_changed && i < self->probe.header.hook_count; i++) {
		const struct pl_probe_hook *hook = &self->probe.hooks[i];
		uint64_t word;

		self->words_changed = hook->kind == PL_PROBE_HOOK_WORD &&
				      pl_memory_read_u64(self->python->pid, hook->address, &word) == 0 && word != hook->entry;
	}
	if (self->words_changed)
		pl_log_warning("another tool has changed the allocator hooks of process %d (tracemalloc?): what it does not "
			       "pass on is not recorded any more",
			(int)self->python->pid);
}

static int inline_pass(struct inline_engine *self, size_t stacks)
{
	int code;

	if (self->gone || !still_there(self)) {
		self->gone = true;
		return -ESRCH;
	}
	if (!self->words_changed)
		watch_words(self);
	pl_sites_set_process(self->engine.sites, self->apart ? self->python->pid : 0);
	code = pl_inline_reader_pass(&self->reader);
	if (code == 0)
		inline_stacks_review(&self->stacks, &self->reader, self->planted, stacks);
	return code;
}

static int inline_look(struct pl_engine *engine)
{
	struct inline_engine *self = (struct inline_engine *)engine;
	struct pollfd process = {.fd = self->process_fd, .events = POLLIN};
	int64_t now = pl_now_ns();

	if (self->process_fd >= 0 && poll(&process, 1, 0) > 0)
		self->gone = true;
	if (self->gone)
		return -ESRCH;
	follow_libraries(self, now);
	/* To open objects for it can take long: not shortly before a pass, which a process that is about to end needs. */
	if (now < self->next_pass - STACKS_BEFORE_PASS_NSEC)
		inline_stacks_look(&self->stacks, &self->reader, &self->callers, self->planted);
	if (now < self->next_pass)
		return 0;
	self->next_pass = now + PASS_NSEC;
	return inline_pass(self, STACKS_BY_THE_WAY) == -ESRCH ? -ESRCH : 0;
}

static void inline_retire(struct pl_engine *engine)
{
	struct inline_engine *self = (struct inline_engine *)engine;

	pl_inline_reader_retire(&self->reader);
}

static int inline_run(struct pl_engine *engine, int64_t until_ns, const volatile int *stop, struct pl_error *err)
{
	struct inline_engine *self = (struct inline_engine *)engine;

	(void)err;
	for (int64_t now = pl_now_ns(); now < until_ns; now = pl_now_ns()) {
		int64_t left = until_ns - now < LOOK_NSEC ? until_ns - now : LOOK_NSEC;
		const struct timespec timeout = {0, left};
		struct pollfd process = {.fd = self->process_fd, .events = POLLIN};

		if (*stop)
			return -EINTR;
		(void)ppoll(&process, self->process_fd >= 0, &timeout, NULL);
		if (inline_look(engine) == -ESRCH)
			return -ESRCH;
	}
	return 0;
}

static int inline_update(struct pl_engine *engine, struct pl_engine_state *ret)
{
	struct inline_engine *self = (struct inline_engine *)engine;
	int64_t started = pl_now_ns();
	int code = inline_pass(self, STACKS_REPORTED);

	if (code < 0 && code != -ESRCH)
		pl_log_debug("the tables could not be read: %s", strerror(-code));
	pl_log_debug("a snapshot took %.1f ms", (double)(pl_now_ns() - started) / PL_NSEC_PER_MSEC);
	ret->rss = pl_process_rss(self->python->pid);
	ret->lost_events = self->reader.control.lost_events;
	ret->freed_before_count = self->reader.control.freed_native;
	ret->freed_before_size = self->reader.control.freed_native_size;
	/* Of all of these the blocks are counted, but not where. */
	ret->lost_sites = self->reader.control.lost_sites + self->reader.control.lost_codes + self->reader.control.untraced;
	return code == -ESRCH ? code : 0;
}

/* The chunks of the pool that were never given out are address space: nothing to look for. */
static uint64_t chunks_in_use(const struct inline_engine *self)
{
	uint64_t chunks = self->reader.control.next_chunk, most = self->reader.config.chunk_count;

	return chunks < most ? chunks : most;
}

static uint64_t inline_memory(const struct pl_engine *engine)
{
	const struct inline_engine *self = (const struct inline_engine *)engine;
	const struct pl_inline_config *config = &self->reader.config;

	if (self->gone)
		return 0;
	return pl_memory_resident(self->python->pid, config->data_start, config->pool - config->data_start) +
	       pl_memory_resident(self->python->pid, config->pool, chunks_in_use(self) * PL_INLINE_CHUNK_BYTES);
}

static void look_at_rounding(const struct inline_engine *self, struct inline_rounding *ret)
{
	*ret = (struct inline_rounding){0};
	/* Of samples the larger ones are more. */
	if (!self->gone && !self->reader.config.sample)
		inline_rounding_look(self->python->pid, &self->reader.config, chunks_in_use(self), ret);
}

static double inline_rounding_now(const struct pl_engine *engine, uint32_t alignment)
{
	const struct inline_engine *self = (const struct inline_engine *)engine;
	struct inline_rounding rounding = self->last_rounding;

	if (self->planted || self->keep)
		look_at_rounding(self, &rounding);
	return inline_rounding_mean(&rounding, alignment);
}

static int inline_finish(struct pl_engine *engine, struct pl_error *err)
{
	struct inline_engine *self = (struct inline_engine *)engine;
	struct pl_error failure = {0};
	int64_t stop_ns = 0;
	bool found;
	int code = 0;

	if (self->planted && !self->keep && !self->gone) {
		/* The tables go with the probe. */
		(void)inline_pass(self, STACKS_REPORTED);
		look_at_rounding(self, &self->last_rounding);
		code = pl_probe_detach(self->python->pid, REMOVE_PATIENCE_NSEC, &found, &stop_ns, &failure);
		/* A process that ends by itself, or starts another program, takes the hooks with it. */
		if (code < 0 && !still_there(self))
			code = 0;
		if (code < 0)
			code = pl_fail(err, code, "%s", failure.text);
		if (stop_ns > engine->stop_ns)
			engine->stop_ns = stop_ns;
	}
	if (self->keep && !self->gone)
		inline_stacks_end(&self->stacks, &self->reader, self->planted);
	self->planted = false;
	return code;
}

static void inline_free(struct pl_engine *engine)
{
	struct inline_engine *self = (struct inline_engine *)engine;

	(void)inline_finish(engine, NULL);
	pl_inline_reader_free(&self->reader);
	pl_probe_free(&self->probe);
	inline_stacks_free(&self->stacks);
	native_free(&self->native);
	native_callers_free(&self->callers);
	if (self->process_fd >= 0)
		(void)close(self->process_fd);
	free(self);
}

static const struct pl_engine_ops inline_ops = {
	.run = inline_run,
	.look = inline_look,
	.retire = inline_retire,
	.update = inline_update,
	.memory = inline_memory,
	.rounding = inline_rounding_now,
	.finish = inline_finish,
	.free = inline_free,
};

static struct inline_engine *engine_new(const struct pl_python *python, struct pl_sites *sites, bool apart,
	struct pl_error *err)
{
	struct inline_engine *self = calloc(1, sizeof(*self));

	if (!self) {
		(void)pl_fail(err, -ENOMEM, "out of memory");
		return NULL;
	}
	self->engine.ops = &inline_ops;
	self->engine.sites = sites;
	self->apart = apart;
	self->next_pass = pl_now_ns() + PASS_NSEC;
	self->python = python;
	self->process_fd = (int)syscall(SYS_pidfd_open, python->pid, 0);
	native_init(&self->native, python);
	self->callers = (struct native_callers){.pid = python->pid, .sites = sites};
	self->reader.find_caller = find_caller;
	self->reader.caller_context = &self->callers;
	self->reader.read = read_tracee;
	self->reader.context = (void *)python;
	self->reader.minor = python->minor;
	self->reader.sites = self->engine.sites;
	if (pl_process_start_time(python->pid, &self->start_time) < 0) {
		(void)pl_fail(err, -ESRCH, "process %d has ended", (int)python->pid);
		inline_free(&self->engine);
		return NULL;
	}
	return self;
}

int pl_engine_start_inline(const struct pl_python *python, const struct pl_engine_options *options,
	struct pl_engine **ret, struct pl_error *err)
{
	struct inline_engine *self = engine_new(python, options->sites, options->apart, err);

	if (!self)
		return err->code;
	self->keep = options->keep;

	int code = plant(self, options, err);

	if (code < 0) {
		self->keep = false;
		code = pl_fail(err, code, "process %d cannot be hooked: %s", (int)python->pid, strerror(-code));
		inline_free(&self->engine);
		return code;
	}
	*ret = &self->engine;
	return 0;
}

int pl_engine_adopt(const struct pl_python *python, struct pl_probe *probe, struct pl_sites *sites, bool apart,
	int native_frames, struct pl_engine **ret, struct pl_error *err)
{
	struct inline_engine *self = engine_new(python, sites, apart, err);

	if (!self)
		return err->code;
	self->probe = *probe;
	*probe = (struct pl_probe){0};
	self->keep = true;

	int code = adopt_config(self, native_frames);

	if (code == 0)
		native_adopt(&self->native, &self->probe, &self->reader.config);
	if (code == -EPROTO)
		code = pl_fail(err, code,
			"the probe in process %d was planted by another version of pyleak: read it with that version, or "
			"remove it with 'pyleak detach %d'",
			(int)python->pid, (int)python->pid);
	if (code < 0) {
		code = pl_fail(err, code, "the probe in process %d cannot be read: %s; 'pyleak detach %d' removes it",
			(int)python->pid, strerror(-code), (int)python->pid);
		inline_free(&self->engine);
		return code;
	}
	*ret = &self->engine;
	return 0;
}
