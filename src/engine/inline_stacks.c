/* SPDX-License-Identifier: MIT */
#include "inline_stacks.h"

#include <stdio.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "native_stack.h"
#include "pyleak/cleanup.h"
#include "pyleak/hook.h"
#include "pyleak/log.h"
#include "pyleak/memory.h"
#include "pyleak/process.h"
#include "pyleak/trace.h"
#include "pyleak/units.h"

#define STACKS_PER_LOOK 4
#define LOOK_NSEC (20 * PL_NSEC_PER_MSEC)
/* Unwinding takes no more of our time than this part. */
#define UNWIND_SHARE 20
#define REST_MAX_NSEC (500 * PL_NSEC_PER_MSEC)
/* A thread that was preempted in the midst of copying; if it was ended there, its claim is given up. */
#define LOOKS_PER_REVIEW 25
#define WAIT_NSEC (2 * PL_NSEC_PER_SEC)
#define BOUNDS_NSEC (500 * PL_NSEC_PER_MSEC)
/* How long a site rests that was asked about: a site that does not grow longer each time, up to a minute. */
/* Larger ones are what an arena of malloc has in reserve. */
#define GUARD_MAX (1 << 20)
#define PAUSE_NSEC (500 * PL_NSEC_PER_MSEC)
#define PAUSE_MAX 128
#define PAUSE_KNOWN 16
#define PHYSICAL_FRAMES 128

void inline_stacks_init(struct inline_stacks *stacks, const struct pl_python *python, struct inline_memory *memory, int limit)
{
	*stacks = (struct inline_stacks){.memory = memory, .python = python->object_path, .limit = limit,
		.random = (uint64_t)pl_now_ns() | 1};
}

void inline_stacks_free(struct inline_stacks *stacks)
{
	if (stacks->count)
		pl_log_debug("%llu native stacks were unwound in %.1f ms", (unsigned long long)stacks->count,
			(double)stacks->unwound_ns / PL_NSEC_PER_MSEC);
	stack_samples_free(&stacks->samples);
	inline_asks_free(&stacks->asks);
	stacks->count = 0;
}

static int read_at(const struct inline_stacks *stacks, uint64_t address, void *buffer, size_t length)
{
	return inline_memory_read(stacks->memory, address, buffer, length);
}

static void write_at(const struct inline_stacks *stacks, uint64_t address, const void *bytes, size_t length)
{
	(void)inline_memory_write(stacks->memory, address, bytes, length);
}

#define CONTROL(stacks, reader, field) ((reader)->config.control + offsetof(struct pl_inline_control, field))

/* The mapping of a thread's descriptor, from the end of the stack's guard on; 0: it is not known to be a stack. */
static uint64_t stack_low(const struct pl_maps *maps, uint64_t descriptor, uint64_t *ret_high)
{
	const struct pl_map *map = pl_maps_find(maps, descriptor), *below = map ? map - 1 : NULL;

	if (!map || map == maps->items || map->inode || !(map->flags & PL_MAP_WRITE) || !(map->flags & PL_MAP_READ) ||
		below->end != map->start || below->inode || below->end - below->start > GUARD_MAX ||
		below->flags & (PL_MAP_READ | PL_MAP_WRITE | PL_MAP_EXEC))
		return 0;
	*ret_high = map->end;
	return map->start;
}

static void publish_main(const struct inline_stacks *stacks, const struct pl_inline_reader *reader, const struct pl_maps *maps)
{
	uint64_t words[3] = {0}, now[3];

	for (size_t i = 0; i < maps->count; i++)
		if (strcmp(maps->items[i].path, "[stack]") == 0 && maps->items[i].flags & PL_MAP_READ) {
			words[0] = maps->items[i].start;
			words[1] = maps->items[i].end;
			words[2] = pl_inline_bounds_check(0, words[0], words[1]);
		}
	if (read_at(stacks, CONTROL(stacks, reader, main_low), now, sizeof(now)) == 0 && memcmp(now, words, sizeof(now)) != 0)
		write_at(stacks, CONTROL(stacks, reader, main_low), words, sizeof(words));
}

static void publish_threads(
	const struct inline_stacks *stacks, const struct pl_inline_reader *reader, const struct pl_maps *maps)
{
	size_t count = 1 + reader->config.slot_count;
	pl_autofree struct pl_inline_bounds *rows = calloc(count, sizeof(*rows));

	if (!rows || read_at(stacks, reader->config.bounds, rows, count * sizeof(*rows)) < 0)
		return;
	for (size_t i = 0; i < count; i++) {
		struct pl_inline_bounds row = {.owner = rows[i].owner};

		if (!row.owner)
			continue;
		row.low = stack_low(maps, row.owner, &row.high);
		if (row.low)
			row.check = pl_inline_bounds_check(row.owner, row.low, row.high);
		else
			row.high = 0;
		if (memcmp(&row, &rows[i], sizeof(row)) != 0)
			write_at(stacks, reader->config.bounds + i * sizeof(row) + offsetof(struct pl_inline_bounds, low),
				(const char *)&row + offsetof(struct pl_inline_bounds, low),
				sizeof(row) - offsetof(struct pl_inline_bounds, low));
	}
}

static void publish_bounds(struct inline_stacks *stacks, const struct pl_inline_reader *reader, uint64_t wanted)
{
	struct pl_maps maps = {0};

	if (pl_maps_read(stacks->memory->pid, &maps) == 0) {
		publish_main(stacks, reader, &maps);
		if (wanted)
			publish_threads(stacks, reader, &maps);
	}
	pl_maps_free(&maps);
	stacks->bounds_seen = wanted;
}

/* What was seen of a thread that may be none of Python's: its name, and which line allocated last with the GIL. */
static void see_thread(const struct inline_stacks *stacks, const struct pl_inline_reader *reader,
	const struct pl_inline_stack *copied, struct native_stack *ret)
{
	char name[PL_PROCESS_THREAD_NAME];
	uint32_t local = copied->meanwhile >= PL_INLINE_SITE_FIRST && copied->meanwhile < reader->known ?
				 reader->local[copied->meanwhile] : UINT32_MAX;
	struct pl_caller caller;

	if (copied->site < reader->known && reader->local[copied->site] != UINT32_MAX) {
		ret->no_python = pl_sites_caller(reader->sites, reader->local[copied->site]).kind == PL_CALLER_NONE;
		ret->has_python = !ret->no_python;
	}
	if (ret->has_python)
		return;
	if (copied->tid && pl_process_thread_name(stacks->memory->pid, (pid_t)copied->tid, name) == 0)
		ret->thread.name = pl_sites_string(ret->sites, name);
	if (local == UINT32_MAX)
		return;
	caller = pl_sites_caller(reader->sites, local);
	if (caller.kind != PL_CALLER_NONE)
		ret->thread.meanwhile = *caller.frame;
}

static void take_stack(struct inline_stacks *stacks, const struct pl_inline_reader *reader, const struct pl_inline_stack *copied,
	struct native_callers *callers)
{
	const struct pl_stack_copy copy = {
		.pc = copied->pc,
		.sp = copied->sp,
		.bp = copied->bp,
		.start = copied->sp,
		.bytes = copied->copy,
		.size = copied->bytes,
	};
	const bool pythons = inline_asks_is_pythons(reader, copied->site);
	struct native_stack stack = {
		.sites = callers->sites, .limit = (size_t)stacks->limit, .python = stacks->python, .outside = pythons};
	struct pl_unwinder *unwinder = native_callers_unwinder(callers);
	struct sampled *site;
	uint32_t number;

	if (!pythons)
		see_thread(stacks, reader, copied, &stack);
	if (!unwinder || copied->bytes > sizeof(copied->copy) || copied->site >= PL_INLINE_SITES_MAX)
		return;
	(void)pl_unwind_stack(unwinder, &copy, PHYSICAL_FRAMES, native_stack_add, &stack);
	stacks->count++;
	number = pythons ? native_stack_intern_outside(&stack) : native_stack_intern(&stack);
	site = number == UINT32_MAX ? NULL : stack_samples_find(&stacks->samples, copied->site);
	if (site && !site->count && copied->site < reader->known)
		site->generation = reader->totals[copied->site].generation;
	if (!site)
		return;
	stack_samples_add(site, copied->block, number);
	if (site->growing && stacks->growing_count < PL_INLINE_STACKS)
		stacks->growing[stacks->growing_count++] = (size_t)(site - stacks->samples.items);
}

/* One more stack of this site, please: at random of as many allocations as it makes between two looks, or, one
 * time in four, between two reviews. Whether what leaks comes every 20 ms or in one burst now and then is not known. */
static void reopen(struct inline_stacks *stacks, const struct pl_inline_reader *reader, const struct sampled *site)
{
	const bool pythons = inline_asks_is_pythons(reader, site->key);
	uint64_t among = site->often;
	uint16_t skip;

	/* xorshift64 */
	stacks->random ^= stacks->random << 13;
	stacks->random ^= stacks->random >> 7;
	stacks->random ^= stacks->random << 17;
	if (stacks->random >> 62)
		among /= LOOKS_PER_REVIEW;
	if (among >= PL_INLINE_SKIP_ALL)
		among = PL_INLINE_SKIP_ALL - 1;
	skip = pythons ? inline_asks_add(&stacks->asks, site->key, stacks->random >> 8 & UINT32_MAX) :
			 (uint16_t)((stacks->random >> 8 & UINT32_MAX) % (among + 1));
	write_at(stacks, reader->config.skips + site->key * sizeof(skip), &skip, sizeof(skip));
}

/* 0; -EAGAIN: it is being written. */
static int read_stack(struct inline_stacks *stacks, const struct pl_inline_reader *reader, uint64_t claim,
	struct native_callers *callers)
{
	uint64_t address = reader->config.stacks + claim % PL_INLINE_STACKS * sizeof(struct pl_inline_stack), sequence, again;
	pl_autofree struct pl_inline_stack *copied = malloc(sizeof(*copied));

	if (!copied || read_at(stacks, address, &sequence, sizeof(sequence)) < 0)
		return 0;
	if (sequence != claim + 1)
		return sequence <= claim ? -EAGAIN : 0;
	/* With probe/inline/stack.c: what is read between two looks at this sequence was stored before it, and not yet for the
	 * next one. Within one copy words may be loaded in any order. */
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	if (read_at(stacks, address, copied, sizeof(*copied)) < 0)
		return 0;
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	if (read_at(stacks, address, &again, sizeof(again)) == 0 && again == claim + 1)
		take_stack(stacks, reader, copied, callers);
	return 0;
}

static void read_stacks(struct inline_stacks *stacks, const struct pl_inline_reader *reader, uint64_t next,
	struct native_callers *callers)
{
	int64_t now = pl_now_ns();

	/* The first look: what was there before is of another pyleak's time. Or the process has gone wild. */
	if (!stacks->looked || next < stacks->seen || next - stacks->seen > PL_INLINE_STACKS)
		stacks->seen = next;
	stacks->looked = true;
	while (stacks->seen < next) {
		if (read_stack(stacks, reader, stacks->seen, callers) == -EAGAIN) {
			if (!stacks->waiting_since_ns)
				stacks->waiting_since_ns = now;
			if (now - stacks->waiting_since_ns < WAIT_NSEC)
				return;
		}
		stacks->waiting_since_ns = 0;
		stacks->seen++;
		if (pl_now_ns() - now > LOOK_NSEC / 2)
			return;
	}
}

void inline_stacks_look(struct inline_stacks *stacks, const struct pl_inline_reader *reader, struct native_callers *callers,
	bool claimed, bool paced)
{
	int64_t now = pl_now_ns(), started = pl_thread_cpu_ns();
	struct pl_inline_control control;
	uint64_t granted;
	bool bounds;

	if (!stacks->limit || now < stacks->next_look_ns || !inline_memory_open(stacks->memory) ||
		read_at(stacks, reader->config.control, &control, sizeof(control)) < 0)
		return;
	stacks->growing_count = 0;
	paced = paced && control.next_stack != stacks->seen;
	if (paced)
		pl_trace_pace_begin();
	read_stacks(stacks, reader, control.next_stack, callers);
	if (paced)
		pl_trace_pace_end();

	int64_t taken = pl_thread_cpu_ns() - started;

	stacks->unwound_ns += taken;
	stacks->next_look_ns = now + (taken * UNWIND_SHARE > LOOK_NSEC ? taken * UNWIND_SHARE : 0);
	if (stacks->next_look_ns > now + REST_MAX_NSEC) /* files were read, for the first time */
		stacks->next_look_ns = now + REST_MAX_NSEC;
	granted = stacks->seen + STACKS_PER_LOOK;
	bounds = control.bounds_wanted != stacks->bounds_seen || now >= stacks->next_bounds_ns;
	if ((granted == control.granted_stacks && !bounds) || !inline_memory_begin(stacks->memory, claimed))
		return;
	if (bounds) {
		publish_bounds(stacks, reader, control.bounds_wanted);
		stacks->next_bounds_ns = now + BOUNDS_NSEC;
	}
	for (size_t i = 0; i < stacks->growing_count; i++)
		reopen(stacks, reader, &stacks->samples.items[stacks->growing[i]]);
	inline_asks_send(&stacks->asks, reader, stacks->memory->pid, stacks->memory->fd);
	if (granted != control.granted_stacks)
		write_at(stacks, CONTROL(stacks, reader, granted_stacks), &granted, sizeof(granted));
	inline_memory_end(stacks->memory, claimed);
}

/* Whether the block that was sampled is still that one: another at its address has not the mark. */
static bool is_live(struct inline_stacks *stacks, const struct pl_inline_reader *reader, uint64_t site, uint64_t block)
{
	uint64_t high = block >> PL_INLINE_CHUNK_SHIFT, chunk;
	uint32_t entry;

	/* Looked up each time: an empty chunk may have given its place to another. */
	return high < PL_INLINE_DIRECTORY_ENTRIES &&
	       read_at(stacks, reader->config.directory + 8 * high, &chunk, sizeof(chunk)) == 0 && (int64_t)(chunk = pl_inline_chunk(chunk)) > 0 &&
	       read_at(stacks, chunk + (block >> 2 & (PL_INLINE_CHUNK_BYTES - 4)), &entry, sizeof(entry)) == 0 &&
	       entry & PL_INLINE_ENTRY_STACK && entry >> PL_INLINE_SITE_SHIFT == site;
}

/* Whether more stacks of this site are to be copied now. One that grows, and of which none that was seen lives, is asked
 * about all the time: most of what it allocates is freed, and what leaks is rare. */
static bool wants_more(struct sampled *site, uint64_t live_size, uint64_t count, int64_t now)
{
	bool growing = live_size > site->live_size;
	size_t living = stack_samples_living(site);

	site->often = count - site->count_then > site->often / 2 ? count - site->count_then : site->often / 2;
	site->count_then = count;

	if (site->again_ns > now && !(growing && !living))
		return false;
	if (living == STACK_SAMPLES_KEPT)
		site->pause = PAUSE_KNOWN;
	else if (growing || !site->pause)
		site->pause = 1;
	else if (site->pause < PAUSE_MAX)
		site->pause *= 2;
	site->growing = growing && !living;
	site->live_size = live_size;
	site->again_ns = now + site->pause * PAUSE_NSEC;
	return true;
}


/* Several of the recorder's sites can be one by its lines: the one with most samples alive says which stack it has. */
static void place_stack(const struct pl_inline_reader *reader, const struct sampled *site, struct pl_table *placed)
{
	uint32_t stack = stack_samples_choose(site), local = reader->local[site->key];
	size_t living = stack_samples_living(site);
	struct pl_table_entry *entry;

	if (stack == UINT32_MAX || stack == NATIVE_STACK_INTERPRETERS || local == UINT32_MAX)
		return;
	entry = pl_table_insert(placed, (uint64_t)local + 1);
	if (!entry || entry->value[0] > living)
		return;
	entry->value[0] = living;
	pl_sites_set_stack(reader->sites, local, stack);
}

void inline_stacks_review(struct inline_stacks *stacks, const struct pl_inline_reader *reader, bool claimed, size_t count)
{
	int64_t now = pl_now_ns();
	struct pl_table placed = {0};

	if (stacks->limit)
		inline_asks_choose(&stacks->asks, reader, &stacks->samples);

	bool writing = stacks->samples.count && inline_memory_open(stacks->memory) && inline_memory_begin(stacks->memory, claimed);

	if (count > stacks->samples.count)
		count = stacks->samples.count;
	for (; writing && count; count--) {
		struct sampled *site = &stacks->samples.items[stacks->cursor++ % stacks->samples.count];

		if (site->key >= reader->capacity)
			continue;
		/* Another site has its row now, or will. */
		if (site->generation != reader->totals[site->key].generation)
			*site = (struct sampled){.key = site->key, .generation = reader->totals[site->key].generation};

		struct pl_inline_estimate recorded;

		pl_inline_estimate(&reader->totals[site->key], 0, &recorded);
		for (size_t i = 0; i < site->count; i++)
			if (site->samples[i].live)
				site->samples[i].live = is_live(stacks, reader, site->key, site->samples[i].block);
		place_stack(reader, site, &placed);
		if (wants_more(site, recorded.totals.allocated_size - recorded.totals.freed_size,
			    recorded.totals.allocated_count, now))
			reopen(stacks, reader, site);
	}
	if (writing) {
		inline_asks_send(&stacks->asks, reader, stacks->memory->pid, stacks->memory->fd);
		inline_memory_end(stacks->memory, claimed);
	}
	pl_table_free(&placed);
}

void inline_stacks_end(struct inline_stacks *stacks, const struct pl_inline_reader *reader, bool claimed)
{
	static const uint64_t none = 0;

	if (!stacks->limit || !inline_memory_open(stacks->memory) || !inline_memory_begin(stacks->memory, claimed))
		return;
	write_at(stacks, CONTROL(stacks, reader, granted_stacks), &none, sizeof(none));
	inline_memory_end(stacks->memory, claimed);
}
