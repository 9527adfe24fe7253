/* SPDX-License-Identifier: MIT */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "native_stacks.h"
#include "pyleak/stats.h"
#include "pyleak/units.h"
#include "strings.h"

#define FIRST_CAPACITY 1024

struct site {
	const struct pl_frame *frames; /* in the arena */
	uint64_t hash;
	int64_t born_ns;
	uint32_t frame_count;
	pid_t process;
	uint8_t domain;
	bool more;
	uint32_t stack; /* number + 1; 0: none */
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
	uint32_t *index; /* site + 1, or 0; twice as many as capacity, so that probing stays short */
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
	free(sites->index);
	free(sites);
}

const char *pl_sites_string(struct pl_sites *sites, const char *text)
{
	return strings_intern(&sites->strings, &sites->arena, text);
}

static bool equal(const struct site *a, const struct site *b)
{
	if (a->hash != b->hash || a->frame_count != b->frame_count || a->domain != b->domain || a->more != b->more ||
		a->caller.module != b->caller.module || a->caller.symbol != b->caller.symbol ||
		a->caller.offset != b->caller.offset || a->process != b->process)
		return false;
	for (size_t i = 0; i < a->frame_count; i++)
		if (a->frames[i].filename != b->frames[i].filename || a->frames[i].function != b->frames[i].function ||
			a->frames[i].line != b->frames[i].line)
			return false;
	return true;
}

/* Where the number of an equal site stands, or would. */
static uint32_t *find(const struct pl_sites *sites, const struct site *wanted)
{
	size_t mask = 2 * sites->capacity - 1;
	size_t i = wanted->hash & mask;

	while (sites->index[i] && !equal(&sites->items[sites->index[i] - 1], wanted))
		i = (i + 1) & mask;
	return &sites->index[i];
}

static bool grow(struct pl_sites *sites)
{
	size_t capacity = sites->capacity ? 2 * sites->capacity : FIRST_CAPACITY;
	struct site *items = realloc(sites->items, capacity * sizeof(*items));
	struct pl_totals *totals;
	uint32_t *index;

	if (!items)
		return false;
	sites->items = items;
	totals = realloc(sites->totals, capacity * sizeof(*totals));
	if (!totals)
		return false;
	sites->totals = totals;
	index = calloc(2 * capacity, sizeof(*index));
	if (!index)
		return false;
	for (size_t site = 0; site < sites->count; site++) {
		size_t i = items[site].hash & (2 * capacity - 1);

		while (index[i])
			i = (i + 1) & (2 * capacity - 1);
		index[i] = (uint32_t)site + 1;
	}
	free(sites->index);
	sites->index = index;
	sites->capacity = capacity;
	return true;
}

static uint32_t add(struct pl_sites *sites, struct site site)
{
	struct pl_frame *frames;

	if (sites->count >= UINT32_MAX - 1 || (sites->count == sites->capacity && !grow(sites)))
		return UINT32_MAX;
	frames = arena_take(&sites->arena, site.frame_count * sizeof(*frames));
	if (!frames)
		return UINT32_MAX;
	memcpy(frames, site.frames, site.frame_count * sizeof(*frames));
	site.frames = frames;
	site.born_ns = pl_now_ns();
	*find(sites, &site) = (uint32_t)sites->count + 1;
	sites->items[sites->count] = site;
	sites->totals[sites->count] = (struct pl_totals){0};
	return (uint32_t)sites->count++;
}

static uint32_t intern(struct pl_sites *sites, enum pl_site_domain domain, const struct pl_frame *frames, size_t count,
	bool more, struct pl_native_caller caller)
{
	struct site wanted = {
		.caller = caller,
		.frames = count ? frames : &sites->unknown,
		.frame_count = count ? (uint32_t)count : 1,
		.process = sites->process,
		.domain = (uint8_t)domain,
		.more = more,
	};

	assert(domain < PL_SITE_DOMAIN_COUNT);
	assert(count < UINT32_MAX);
	wanted.hash = hash_mix(wanted.frame_count, (uint64_t)wanted.process << 32 | (uint64_t)domain << 1 | more);
	wanted.hash = hash_mix(wanted.hash, (uint64_t)(uintptr_t)caller.module ^ caller.offset);
	for (size_t i = 0; i < wanted.frame_count; i++) {
		wanted.hash = hash_mix(wanted.hash, (uint64_t)(uintptr_t)wanted.frames[i].filename);
		wanted.hash = hash_mix(wanted.hash, (uint64_t)(uintptr_t)wanted.frames[i].function);
		wanted.hash = hash_mix(wanted.hash, (uint64_t)wanted.frames[i].line);
	}
	if (sites->capacity) {
		uint32_t found = *find(sites, &wanted);

		if (found)
			return found - 1;
	}
	return add(sites, wanted);
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

uint32_t pl_sites_intern_stack(struct pl_sites *sites, const struct pl_native_line *lines, size_t count, bool more)
{
	return native_stacks_intern(&sites->stacks, &sites->arena, lines, count, more);
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
			ret->frames[i] = lines[i].frame;
			ret->modules[i] = lines[i].module;
		}
		ret->native = lines_count;
	}
	/* What stands for the Python frames of a site that has none is the innermost native one. */
	if (lines_count && item->caller.module && count == 1 && item->frames[0].filename == item->caller.module &&
		!item->frames[0].line)
		count = 0;
	if (count > PL_TRACEBACK_MAX - PL_NATIVE_FRAMES_MAX)
		count = PL_TRACEBACK_MAX - PL_NATIVE_FRAMES_MAX;
	memcpy(&ret->frames[lines_count], item->frames, count * sizeof(*item->frames));
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

const struct pl_frame *pl_sites_frames(const struct pl_sites *sites, uint32_t site, size_t *ret_count, bool *ret_more)
{
	assert(site < sites->count);
	*ret_count = sites->items[site].frame_count;
	if (ret_more)
		*ret_more = sites->items[site].more;
	return sites->items[site].frames;
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
