/* SPDX-License-Identifier: MIT */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "caller.h"
#include "native_stacks.h"
#include "pyleak/index.h"
#include "pyleak/stats.h"
#include "pyleak/units.h"
#include "strings.h"

#define FIRST_CAPACITY 1024

struct site {
	const uint32_t *frames; /* numbers; in the arena */
	const struct pl_frame *innermost;
	int64_t born_ns;
	uint32_t frame_count;
	pid_t process;
	uint8_t domain;
	bool more;
	uint32_t stack; /* number + 1; 0: none */
	struct caller_place own;
	struct pl_native_caller caller; /* module NULL: none */
};

struct pl_sites {
	struct arena arena;
	struct strings strings;
	struct native_stacks stacks;
	pid_t process; /* of what is interned now */
	struct pl_frame unknown;
	struct site *items;	  /* [capacity] */
	struct pl_totals *totals; /* [capacity]; apart, so that a snapshot is one copy */
	size_t count, capacity;
	struct pl_index index;
	/* Frames by their numbers, in the arena: they are pointed to. */
	struct frame_numbers {
		const struct pl_frame **items;
		uint8_t *kinds; /* enum frame_kind */
		size_t count, capacity;
		struct pl_index index;
	} frames;
	const char *const *libraries; /* borrowed; NULL: none */
	/* The trace that is looked for, by the numbers of its frames, and the one before it, with which it mostly has its
	 * outer frames in common. */
	struct numbers {
		uint32_t *items;
		size_t count, capacity;
	} numbers, last;
};

struct pl_sites *pl_sites_new(void)
{
	struct pl_sites *sites = calloc(1, sizeof(*sites));
	const char *unknown = sites ? pl_sites_string(sites, "<unknown>") : NULL;

	if (!unknown) {
		pl_sites_free(sites);
		return NULL;
	}
	sites->unknown = (struct pl_frame){.filename = unknown, .function = unknown};
	return sites;
}

void pl_sites_free(struct pl_sites *sites)
{
	if (!sites)
		return;
	strings_free(&sites->strings);
	native_stacks_free(&sites->stacks);
	arena_free(&sites->arena);
	free(sites->items);
	free(sites->totals);
	pl_index_free(&sites->index);
	free(sites->frames.items);
	free(sites->frames.kinds);
	pl_index_free(&sites->frames.index);
	free(sites->numbers.items);
	free(sites->last.items);
	free(sites);
}

const char *pl_sites_string(struct pl_sites *sites, const char *text)
{
	return strings_intern(&sites->strings, &sites->arena, text);
}

static bool is_frame(const void *context, uint32_t item, const void *wanted)
{
	const struct frame_numbers *frames = context;
	const struct pl_frame *a = frames->items[item], *b = wanted;

	return a->filename == b->filename && a->function == b->function && a->line == b->line;
}

static uint64_t hash_frame(const struct pl_frame *frame)
{
	return pl_hash(pl_hash((uint64_t)frame->line, (uint64_t)(uintptr_t)frame->filename),
		(uint64_t)(uintptr_t)frame->function);
}

uint32_t pl_sites_frame_number(const struct pl_sites *sites, const struct pl_frame *frame)
{
	return pl_index_find(&sites->frames.index, hash_frame(frame), is_frame, &sites->frames, frame);
}

static bool grow_frames(struct frame_numbers *frames)
{
	size_t capacity = frames->capacity ? 2 * frames->capacity : FIRST_CAPACITY;
	const struct pl_frame **items = reallocarray(frames->items, capacity, sizeof(void *));

	uint8_t *kinds;

	if (!items)
		return false;
	frames->items = items;
	kinds = realloc(frames->kinds, capacity);
	if (!kinds)
		return false;
	frames->kinds = kinds;
	frames->capacity = capacity;
	return true;
}

/* UINT32_MAX: out of memory. */
static uint32_t number_frame(struct pl_sites *sites, const struct pl_frame *frame)
{
	struct frame_numbers *frames = &sites->frames;
	uint32_t found = pl_sites_frame_number(sites, frame);
	struct pl_frame *copy;

	if (found != UINT32_MAX)
		return found;
	if (frames->count >= UINT32_MAX - 1 || (frames->count == frames->capacity && !grow_frames(frames)))
		return UINT32_MAX;
	copy = arena_take(&sites->arena, sizeof(*copy));
	if (!copy || !pl_index_add(&frames->index, hash_frame(frame), (uint32_t)frames->count))
		return UINT32_MAX;
	*copy = *frame;
	frames->items[frames->count] = copy;
	frames->kinds[frames->count] = (uint8_t)caller_kind(copy, sites->libraries);
	return (uint32_t)frames->count++;
}

const struct pl_frame *pl_sites_frame(const struct pl_sites *sites, uint32_t number)
{
	assert(number < sites->frames.count);
	return sites->frames.items[number];
}

static bool is_site(const void *context, uint32_t item, const void *wanted)
{
	const struct pl_sites *sites = context;
	const struct site *a = &sites->items[item], *b = wanted;

	return a->frame_count == b->frame_count && a->domain == b->domain && a->more == b->more &&
	       a->caller.module == b->caller.module && a->caller.symbol == b->caller.symbol &&
	       a->caller.offset == b->caller.offset && a->process == b->process &&
	       memcmp(a->frames, b->frames, a->frame_count * sizeof(*a->frames)) == 0;
}

static bool grow(struct pl_sites *sites)
{
	size_t capacity = sites->capacity ? 2 * sites->capacity : FIRST_CAPACITY;
	struct site *items = realloc(sites->items, capacity * sizeof(*items));
	struct pl_totals *totals;

	if (!items)
		return false;
	sites->items = items;
	totals = realloc(sites->totals, capacity * sizeof(*totals));
	if (!totals)
		return false;
	sites->totals = totals;
	sites->capacity = capacity;
	return true;
}

static struct caller_place find_own(const struct pl_sites *sites, const struct site *site)
{
	/* A place of native code that no Python called. */
	if (site->caller.module && site->innermost->filename == site->caller.module && !site->innermost->line)
		return (struct caller_place){0, PL_CALLER_NONE};
	return caller_find(sites->frames.kinds, site->frames, site->frame_count);
}

void pl_sites_set_libraries(struct pl_sites *sites, const char *const *globs)
{
	sites->libraries = globs;
	for (size_t i = 0; i < sites->frames.count; i++)
		sites->frames.kinds[i] = (uint8_t)caller_kind(sites->frames.items[i], globs);
	for (size_t i = 0; i < sites->count; i++)
		sites->items[i].own = find_own(sites, &sites->items[i]);
}

struct pl_caller pl_sites_caller(const struct pl_sites *sites, uint32_t site)
{
	const struct site *item = &sites->items[site];

	assert(site < sites->count);
	return (struct pl_caller){
		.frame = pl_sites_frame(sites, item->frames[item->own.index]),
		.index = item->own.index,
		.count = item->frame_count,
		.kind = item->own.kind,
		.more = item->more,
	};
}

static uint32_t add(struct pl_sites *sites, struct site site, uint64_t hash)
{
	uint32_t *frames;

	if (sites->count >= UINT32_MAX - 1 || (sites->count == sites->capacity && !grow(sites)))
		return UINT32_MAX;
	frames = arena_take(&sites->arena, site.frame_count * sizeof(*frames));
	if (!frames || !pl_index_add(&sites->index, hash, (uint32_t)sites->count))
		return UINT32_MAX;
	memcpy(frames, site.frames, site.frame_count * sizeof(*frames));
	site.frames = frames;
	site.innermost = pl_sites_frame(sites, frames[0]);
	site.own = find_own(sites, &site);
	site.born_ns = pl_now_ns();
	sites->items[sites->count] = site;
	sites->totals[sites->count] = (struct pl_totals){0};
	return (uint32_t)sites->count++;
}

/* Into sites->numbers. */
static bool number_trace(struct pl_sites *sites, const struct pl_frame *frames, size_t count)
{
	const struct numbers last = sites->numbers;
	struct numbers *numbers = &sites->numbers;

	*numbers = sites->last;
	sites->last = last;
	numbers->count = 0;
	if (count > numbers->capacity) {
		uint32_t *grown = reallocarray(numbers->items, 2 * count, sizeof(*grown));

		if (!grown)
			return false;
		numbers->items = grown;
		numbers->capacity = 2 * count;
	}
	for (size_t outer = 1; outer <= count; outer++) {
		const struct pl_frame *frame = &frames[count - outer];
		uint32_t number = outer <= last.count ? last.items[last.count - outer] : UINT32_MAX;

		if (number == UINT32_MAX || !is_frame(&sites->frames, number, frame))
			number = number_frame(sites, frame);
		if (number == UINT32_MAX)
			return false;
		numbers->items[count - outer] = number;
	}
	numbers->count = count;
	return true;
}

static uint32_t intern(struct pl_sites *sites, enum pl_site_domain domain, const struct pl_frame *frames, size_t count,
	bool more, struct pl_native_caller caller)
{
	struct site wanted = {
		.caller = caller,
		.frame_count = count ? (uint32_t)count : 1,
		.process = sites->process,
		.domain = (uint8_t)domain,
		.more = more,
	};
	uint64_t hash = pl_hash(wanted.frame_count, (uint64_t)sites->process << 32 | (uint64_t)domain << 1 | more);
	uint32_t found;

	assert(domain < PL_SITE_DOMAIN_COUNT);
	assert(count < UINT32_MAX);
	if (!number_trace(sites, count ? frames : &sites->unknown, wanted.frame_count))
		return UINT32_MAX;
	wanted.frames = sites->numbers.items;
	hash = pl_hash(hash, (uint64_t)(uintptr_t)caller.module ^ caller.offset);
	for (size_t i = 0; i < wanted.frame_count; i++)
		hash = pl_hash(hash, wanted.frames[i]);
	found = pl_index_find(&sites->index, hash, is_site, sites, &wanted);
	return found != UINT32_MAX ? found : add(sites, wanted, hash);
}

uint32_t pl_sites_intern(
	struct pl_sites *sites, enum pl_site_domain domain, const struct pl_frame *frames, size_t count, bool more)
{
	return intern(sites, domain, frames, count, more, (struct pl_native_caller){0});
}

uint32_t pl_sites_intern_native(struct pl_sites *sites, const struct pl_frame *frames, size_t count, bool more,
	const struct pl_native_caller *caller)
{
	const struct pl_frame native = {
		.filename = caller->module,
		.function = caller->symbol ? caller->symbol : sites->unknown.function,
	};

	return intern(sites, PL_SITE_NATIVE, count ? frames : &native, count ? count : 1, more, *caller);
}

uint32_t pl_sites_intern_older(
	struct pl_sites *sites, uint32_t size_class, const struct pl_frame *frames, size_t count, bool more)
{
	return intern(sites, PL_SITE_OLDER, frames, count, more, (struct pl_native_caller){.offset = size_class});
}

uint32_t pl_sites_older_class(const struct pl_sites *sites, uint32_t site)
{
	assert(site < sites->count);
	return sites->items[site].domain == PL_SITE_OLDER ? (uint32_t)sites->items[site].caller.offset : 0;
}

uint32_t pl_sites_intern_pool(struct pl_sites *sites, const struct pl_frame *frames, size_t count, bool more,
	const struct pl_native_caller *caller)
{
	return intern(sites, PL_SITE_POOL, frames, count, more, *caller);
}

const struct pl_native_caller *pl_sites_native_caller(const struct pl_sites *sites, uint32_t site)
{
	assert(site < sites->count);
	return sites->items[site].caller.module ? &sites->items[site].caller : NULL;
}

uint32_t pl_sites_intern_thread_stack(struct pl_sites *sites, const struct pl_native_line *lines, size_t count, bool more,
	const struct pl_native_thread *thread)
{
	for (size_t i = 0; i < count; i++)
		if (number_frame(sites, &lines[i].frame) == UINT32_MAX)
			return UINT32_MAX;
	if ((thread->begins.module && number_frame(sites, &thread->begins.frame) == UINT32_MAX) ||
		(thread->meanwhile.filename && number_frame(sites, &thread->meanwhile) == UINT32_MAX))
		return UINT32_MAX;
	return native_stacks_intern(&sites->stacks, &sites->arena, lines, count, more, thread);
}

uint32_t pl_sites_intern_stack(struct pl_sites *sites, const struct pl_native_line *lines, size_t count, bool more)
{
	static const struct pl_native_thread none;

	return pl_sites_intern_thread_stack(sites, lines, count, more, &none);
}

const struct pl_native_thread *pl_sites_stack_thread(const struct pl_sites *sites, uint32_t stack)
{
	return native_stacks_thread(&sites->stacks, stack);
}

const struct pl_native_thread *pl_sites_thread(const struct pl_sites *sites, uint32_t site)
{
	const struct site *item = &sites->items[site];

	assert(site < sites->count);
	return item->stack && item->own.kind == PL_CALLER_NONE ? native_stacks_thread(&sites->stacks, item->stack - 1) : NULL;
}

const struct pl_native_line *pl_sites_stack_lines(
	const struct pl_sites *sites, uint32_t stack, size_t *ret_count, bool *ret_more)
{
	return native_stacks_lines(&sites->stacks, stack, ret_count, ret_more);
}

size_t pl_sites_stack_count(const struct pl_sites *sites)
{
	return sites->stacks.count;
}

void pl_sites_set_stack(struct pl_sites *sites, uint32_t site, uint32_t stack)
{
	assert(site < sites->count);
	assert(stack < sites->stacks.count);
	sites->items[site].stack = stack + 1;
}

uint32_t pl_sites_stack(const struct pl_sites *sites, uint32_t site)
{
	assert(site < sites->count);
	return sites->items[site].stack - 1;
}

static bool is_nameless(const struct pl_sites *sites, const struct pl_native_line *line)
{
	return line->frame.function == sites->unknown.function && !line->frame.line;
}

void pl_sites_traceback(const struct pl_sites *sites, uint32_t site, struct pl_traceback *ret)
{
	const struct site *item = &sites->items[site];
	size_t count = item->frame_count, lines_count = 0;
	const struct pl_native_line *lines;

	assert(site < sites->count);
	ret->native = 0;
	ret->gap = false;
	if (item->stack) {
		lines = native_stacks_lines(&sites->stacks, item->stack - 1, &lines_count, &ret->gap);
		for (size_t i = 0; i < lines_count; i++) {
			/* Functions without a name, one called by the other, are one line. */
			if (ret->native && is_nameless(sites, &lines[i]) && is_nameless(sites, &lines[i - 1]) &&
				lines[i].module == lines[i - 1].module)
				continue;
			ret->frames[ret->native] = lines[i].frame;
			ret->modules[ret->native++] = lines[i].module;
		}
		lines_count = ret->native;
	}
	/* What stands for the Python frames of a site that has none is the innermost native one. */
	if (lines_count && item->caller.module && count == 1 && item->innermost->filename == item->caller.module &&
		!item->innermost->line)
		count = 0;
	if (count > PL_TRACEBACK_MAX - PL_NATIVE_FRAMES_MAX)
		count = PL_TRACEBACK_MAX - PL_NATIVE_FRAMES_MAX;
	for (size_t i = 0; i < count; i++)
		ret->frames[lines_count + i] = *pl_sites_frame(sites, item->frames[i]);
	ret->gap = ret->gap && count;
	ret->count = lines_count + count;
	ret->more = item->more;
}

void pl_sites_set_process(struct pl_sites *sites, pid_t pid)
{
	sites->process = pid;
}

pid_t pl_sites_process(const struct pl_sites *sites, uint32_t site)
{
	assert(site < sites->count);
	return sites->items[site].process;
}

size_t pl_sites_count(const struct pl_sites *sites)
{
	return sites->count;
}

struct pl_totals *pl_sites_totals(struct pl_sites *sites, uint32_t site)
{
	assert(site < sites->count);
	return &sites->totals[site];
}

const uint32_t *pl_sites_trace(const struct pl_sites *sites, uint32_t site, size_t *ret_count, bool *ret_more)
{
	assert(site < sites->count);
	*ret_count = sites->items[site].frame_count;
	if (ret_more)
		*ret_more = sites->items[site].more;
	return sites->items[site].frames;
}

const struct pl_frame *pl_sites_innermost(const struct pl_sites *sites, uint32_t site)
{
	assert(site < sites->count);
	return sites->items[site].innermost;
}

enum pl_site_domain pl_sites_domain(const struct pl_sites *sites, uint32_t site)
{
	assert(site < sites->count);
	return (enum pl_site_domain)sites->items[site].domain;
}

int64_t pl_sites_born(const struct pl_sites *sites, uint32_t site)
{
	assert(site < sites->count);
	return sites->items[site].born_ns;
}
