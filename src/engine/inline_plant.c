/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "allocator_hooks.h"
#include "free_lists.h"
#include "inline_check.h"
#include "inline_engine.h"
#include "pyleak/cleanup.h"
#include "pyleak/memory.h"
#include "pyleak/page.h"
#include "pyleak/resident.h"
#include "pyleak/units.h"

/* Rows for words of GOTs: 512 KiB, of which only what is used takes memory. */
#define WORDS_MAX 16384U
#define LEADER_PATIENCE_NSEC (100 * PL_NSEC_PER_MSEC)
_Static_assert(PL_INLINE_ERRAND_OFFSET + sizeof(struct pl_probe_errand) <= PL_INLINE_KEPT_SIZE, "one page for both");
enum { THREADS_CHECKED = 4096, LOOKS = 20 };

/* What planting needs to know of the process, read while it runs. */
struct planting {
	const struct pl_python *python;
	struct pl_inline_options options;
	const struct pl_probe_plan *plan;
	struct free_lists free_lists;
	const struct native *native; /* NULL: left alone */
	struct pl_python_current current;
	uint64_t leader, leader_thread, leader_stack_end;
	struct pl_python_detached detached;
	uint64_t gil;
	uint64_t rss;
	const struct pl_account *account;
	struct pl_arena_map arena_map;
	bool wrapped; /* the mem or obj allocator is */
	bool own;     /* all three are the interpreter's: what pymalloc does not have the C library has */
	bool pools;   /* the obj allocator is not the C library's own */
	void (*begins)(void *context, uint64_t own);
	void *begins_context;
	struct pl_range tables; /* what of them is there before anything is recorded */
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
		.rss = words[CONFIG_RSS] % ACCOUNT_PART_MAX,
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
	struct planting *planting = context;
	struct pl_inline_config config;

	pl_inline_configure(&planting->options, planting->python, tables, &config);
	planting->tables = (struct pl_range){config.data_start, config.pool};
	config.thread_tls = planting->current.offset;
	config.thread_module = planting->current.module;
	config.thread_stride = planting->current.stride;
	config.thread_room = planting->current.room;
	config.thread_generation = planting->current.generation;
	config.gil = planting->gil;
	config.thread_self = planting->python->thread_self;
	config.leader = planting->leader;
	config.leader_thread = planting->leader_thread;
	config.leader_stack_end = planting->leader_stack_end;
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
	config.arena_map = planting->arena_map.root;
	config.arena_node_bits = planting->arena_map.node_bits;
	config.arena_leaf_bits = planting->arena_map.leaf_bits;
	if (planting->wrapped)
		config.nested_size = 0;
	if (planting->wrapped || !planting->pools)
		config.pool_bytes = 0;
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
	for (uint32_t i = PL_INLINE_FREE; i < PL_INLINE_ENTRIES; i += PL_INLINE_FUNCTIONS)
		if (planting->own && !planting->wrapped && pl_inline_is_glibcs(&config))
			config.flags[i] = PL_INLINE_NATIVE_GLIBC;
	memcpy(image + PL_INLINE_CONFIG_OFFSET, &config, sizeof(config));
}

static void arming(void *context)
{
	const struct planting *planting = context;

	if (planting->begins)
		planting->begins(planting->begins_context, pl_resident_or_swapped(planting->python->pid, planting->tables));
}

static uint64_t image_size(void)
{
	return pl_page_max_end(pl_inline_bytes_size);
}

/* Whose functions the tables have: those of the interpreter call the C library for all that is not pymalloc's. Without a GIL
 * blocks are mimalloc's. */
static void look_at_owners(const struct pl_python *python, const struct pl_probe_plan *plan, struct planting *planting)
{
	struct pl_maps maps = {0};
	const struct pl_map *object, *map;

	planting->own = !python->free_threaded && pl_maps_read(python->pid, &maps) == 0;
	object = planting->own ? pl_maps_find(&maps, python->object_start) : NULL;
	for (uint32_t i = 0; i < PL_INLINE_ENTRIES && planting->own; i++) {
		map = pl_maps_find(&maps, plan->hooks[i].original);
		planting->own = object && map && pl_map_same_file(map, object);
	}
	/* Else the raw domain may be mimalloc's, too. */
	planting->own = planting->own && plan->hooks[PL_INLINE_OBJ * PL_INLINE_FUNCTIONS + PL_INLINE_FREE].original ==
						 plan->hooks[PL_INLINE_MEM * PL_INLINE_FUNCTIONS + PL_INLINE_FREE].original;
	/* PYTHONMALLOC=malloc */
	planting->pools = plan->hooks[PL_INLINE_OBJ * PL_INLINE_FUNCTIONS + PL_INLINE_FREE].original !=
			  plan->hooks[PL_INLINE_RAW * PL_INLINE_FUNCTIONS + PL_INLINE_FREE].original;
	pl_maps_free(&maps);
}

static int make_plan(const struct pl_python *python, struct planting *planting, const uint8_t *image, struct pl_probe_plan *plan)
{
	const struct pl_inline_image *header = (const void *)(image + PL_INLINE_IMAGE_OFFSET);
	int code;

	*plan = (struct pl_probe_plan){
		.engine = PL_PROBE_INLINE,
		.image = image,
		.code_size = image_size(),
		.tables_size = pl_inline_data_size(&planting->options),
		.tables_kept = PL_INLINE_KEPT_SIZE,
		.fill = fill,
		.arming = arming,
		.context = planting,
		.armed_value = python->free_threaded   ? PL_INLINE_THREADS :
			       planting->options.sample ? PL_INLINE_SAMPLE :
							 PL_INLINE_GIL,
		.mark = PL_INLINE_MARKER,
		.errand_entry_offset = header->errand,
		.errand_end_offset = header->errand_end,
		.errand_offset = pl_inline_data_size(&planting->options) - PL_INLINE_KEPT_SIZE + PL_INLINE_ERRAND_OFFSET,
		.inside_words = 2,
		.inside_offset = pl_inline_data_size(&planting->options) - PL_INLINE_KEPT_SIZE,
	};
	planting->plan = plan;
	/* A context of its own: not pymalloc but what wraps it (debug, tracemalloc), through which small
	 * requests too may reach the raw domain. */
	for (int domain = PL_PYMEM_MEM; domain <= PL_PYMEM_OBJ; domain++) {
		uint64_t wrapper;

		code = pl_memory_read_u64(python->pid, python->allocators[domain], &wrapper);
		if (code < 0)
			return code;
		planting->wrapped |= wrapper != 0;
	}
	code = allocator_hooks_plan(python, header->entry, plan);
	if (code == 0)
		look_at_owners(python, plan, planting);
	return code;
}

/* Where the running thread state is, checked in every thread that has one. While they run, one may end under the look, or be
 * half begun for as long as whoever starts it waits for a processor. */
static int find_current(struct planting *planting, struct pl_error *err)
{
	pl_autofree uint64_t *pointers = NULL;
	int code = -ENOTSUP;

	if (planting->python->thread_current)
		return 0;
	pointers = calloc(THREADS_CHECKED, sizeof(*pointers));
	if (!pointers)
		return -ENOMEM;
	for (int tries = 1; code == -ENOTSUP && tries <= LOOKS; tries++) {
		struct pl_error last = {0};
		size_t count;

		pl_sleep_ns((tries - 1) * PL_NSEC_PER_MSEC);
		count = pl_python_thread_pointers(planting->python, pointers, THREADS_CHECKED);
		code = pl_python_current(planting->python, pointers, count, &planting->current, &last);
		if (code < 0 && tries == LOOKS)
			(void)pl_fail(err, code, "%s", last.text);
	}
	return code;
}

/* The first thread, and its state if that may be looked at in native code: what it is called by itself, only its registers
 * say. A leader that has ended has none. */
static void find_leader(struct inline_engine *self, struct planting *planting)
{
	pid_t pid = planting->python->pid;
	struct pl_tracee *tracee = NULL;
	const struct pl_thread leader = {.tid = pid};
	struct pl_maps maps;
	pl_registers regs;

	if (pl_maps_read(pid, &maps) == 0)
		for (size_t i = 0; i < maps.count; i++)
			if (strcmp(maps.items[i].path, "[stack]") == 0)
				planting->leader_stack_end = maps.items[i].end;
	pl_maps_free(&maps);
	/* One that has yet to begin stands already, and must not before it is hooked. */
	if (!pl_trace_holds(pid) && pl_tracee_hold(pid, pid, LEADER_PATIENCE_NSEC, &tracee) < 0)
		return;
	if (pl_thread_registers(&leader, &regs) == 0)
		planting->leader = pl_registers_thread_pointer(&regs);
	inline_note_stop(self, pl_tracee_detach(tracee));
	for (int looks = 0; planting->leader && !planting->leader_thread && looks < LOOKS; looks++)
		planting->leader_thread = pl_python_first_thread(planting->python, planting->leader);
}

/* A thread that ends under the look leaves nothing that can be believed. */
static void find_detached(struct planting *planting)
{
	for (int looks = 0; !planting->detached.interpreter && looks < LOOKS; looks++)
		pl_python_detached(planting->python, &planting->detached);
}

void inline_note_stop(struct inline_engine *self, int64_t stop_ns)
{
	if (stop_ns > self->engine.stop_ns)
		self->engine.stop_ns = stop_ns;
}

int inline_adopt_config(struct inline_engine *self, int native_frames)
{
	const struct pl_inline_config *config = &self->reader.config;
	struct pl_inline_image image;
	int64_t now = pl_now_ns();
	int code = pl_memory_read(self->python->pid, self->probe.base + PL_INLINE_IMAGE_OFFSET, &image, sizeof(image));

	if (code == 0 && (image.magic != PL_INLINE_MAGIC || image.abi != PL_INLINE_ABI))
		code = -EPROTO;
	if (code == 0)
		code = pl_memory_read(self->python->pid, self->probe.base + PL_INLINE_CONFIG_OFFSET, &self->reader.config,
			sizeof(self->reader.config));
	if (code == 0)
		code = inline_config_check(config, self->probe.tables, self->probe.tables_mapped_size);
	if (code == 0)
		code = pl_inline_reader_init(&self->reader);
	if (code < 0)
		return code;
	inline_memory_init(&self->memory, self->python->pid, self->probe.base);
	inline_stacks_init(&self->stacks, self->python, &self->memory, config->native ? native_frames : 0);
	self->engine.facts = (struct pl_facts){
		.pid = self->python->pid,
		.engine = "inline",
		.frames = (int)config->frame_limit,
		.sample = config->sample,
		.tables = config->tables,
		.native = config->native != 0,
		/* Another time namespace's clock may be ahead of ours. */
		.since_ns = (int64_t)config->planted_monotonic < now ? (int64_t)config->planted_monotonic : now,
		.started = {(time_t)(config->planted_realtime / PL_NSEC_PER_SEC),
			(long)(config->planted_realtime % PL_NSEC_PER_SEC)},
		.rss = config->engine[CONFIG_RSS] % ACCOUNT_PART_MAX,
		.account = load_account(config->engine),
	};
	memcpy(self->engine.facts.python, self->python->version, sizeof(self->engine.facts.python));
	return 0;
}

/* The words to be hooked, those of types first. The landing page has rows for them then. */
static int plan_words(struct inline_engine *self, const struct pl_engine_options *options, struct planting *planting,
	const struct pl_inline_image *image, struct pl_probe_plan *plan, struct pl_probe_word **ret)
{
	pl_autofree struct pl_probe_word *native = NULL;
	struct pl_probe_word types[FREE_LISTS_WORDS];
	struct pl_maps maps = {0};
	uint32_t count = 0, type_count = 0;
	int code;

	if (options->native) {
		code = native_look(&self->native, image, NULL, &native, &count);
	} else {
		code = pl_maps_read(self->python->pid, &maps);
		if (code == 0)
			code = pl_landing_find(self->python->pid, &maps, &self->native.landing);
		pl_maps_free(&maps);
	}
	if (code < 0)
		return code;
	if (!options->park)
		type_count = free_lists_plan(self->python, image, &planting->free_lists, &self->native.landing, types);
	*ret = calloc(type_count + count + 1, sizeof(**ret));
	if (!*ret)
		return -ENOMEM;
	memcpy(*ret, types, type_count * sizeof(types[0]));
	if (count)
		memcpy(*ret + type_count, native, count * sizeof(native[0]));
	plan->words = *ret;
	plan->word_capacity = options->native ? WORDS_MAX : type_count;
	plan->word_count = type_count + count < plan->word_capacity ? type_count + count : plan->word_capacity;
	plan->landing = &self->native.landing;
	return 0;
}

static int plant_sized(struct inline_engine *self, const struct pl_engine_options *options, uint64_t chunk_count,
	struct pl_error *err)
{
	const struct pl_python *python = self->python;
	struct planting planting = {
		.python = python,
		.options = {.frames = (uint32_t)options->frames, .sample = options->sample, .tables = options->tables, .chunk_count = chunk_count},
		.rss = options->rss,
		.account = &options->account,
		.begins = options->begins,
		.begins_context = options->begins_context,
		.arena_map = options->arena_map,
		.native = options->native ? &self->native : NULL,
	};
	struct pl_probe_plan plan = {0};
	int64_t stop_ns = 0;
	pl_autofree uint8_t *image = calloc(1, image_size());
	pl_autofree struct pl_probe_word *words = NULL;
	int code;

	if (!image)
		return pl_fail(err, -ENOMEM, "out of memory");
	memcpy(image, pl_inline_bytes, pl_inline_bytes_size);
	planting.gil = pl_python_main_gil(python);
	code = make_plan(python, &planting, image, &plan);
	plan.kept = options->keep;
	if (code == 0)
		code = plan_words(self, options, &planting, (const void *)(image + PL_INLINE_IMAGE_OFFSET), &plan, &words);
	if (code == 0 && options->native && !options->sample)
		old_pools_look(&self->old_pools, &self->native, self->engine.sites);
	if (code == 0)
		code = find_current(&planting, err);
	if (code == 0)
		find_leader(self, &planting);
	/* Frames that are not objects (3.11+) lie in mappings, which only the native hooks see go. */
	if (code == 0 && (options->native || python->layout.frame_instruction_is_index))
		find_detached(&planting);
	if (code == 0 && !options->park)
		free_lists_settle(python, &planting.free_lists, &plan);
	if (code == 0)
		code = pl_probe_plant_running(python->pid, &plan, &self->probe, &stop_ns, err);
	inline_note_stop(self, stop_ns);
	if (code == 0) {
		self->planted = true;
		code = inline_adopt_config(self, options->native_frames);
		self->engine.facts.account = options->account;
	}
	if (code == 0) {
		inline_limit_look(&self->limit, &self->memory, &self->reader, &self->give, true);
		native_adopt(&self->native, &self->probe, &self->reader.config);
		native_look_at_missed(&self->native, plan.words, plan.word_count);
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

int inline_plant(struct inline_engine *self, const struct pl_engine_options *options, struct pl_error *err)
{
	uint64_t chunk_count, size;
	int code = find_room(self->python->pid, options->frames, &chunk_count, &size, err);

	return code < 0 ? code : plant_sized(self, options, chunk_count, err);
}
