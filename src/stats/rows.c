/* SPDX-License-Identifier: MIT */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "caller.h"
#include "order.h"
#include "pyleak/cleanup.h"
#include "pyleak/index.h"
#include "pyleak/stats.h"

struct grouping {
	const struct pl_rows_options *options;
	bool difference;
	struct pl_row *items;
	size_t count, capacity;
	struct pl_index index;
};

static uint64_t since(uint64_t now, uint64_t before)
{
	return now > before ? now - before : 0;
}

/* What one site adds to its row; false: nothing. */
static bool compute(
	const struct pl_totals *now, const struct pl_totals *before, bool difference, struct pl_row *figures)
{
	static const struct pl_totals nothing = {0};
	const struct pl_totals *from = before ? before : &nothing;

	*figures = (struct pl_row){
		.size = pl_totals_size(now),
		.count = pl_totals_count(now),
	};
	figures->window = (struct pl_totals){
		.allocated_size = since(now->allocated_size, from->allocated_size),
		.allocated_count = since(now->allocated_count, from->allocated_count),
		.freed_size = since(now->freed_size, from->freed_size),
		.freed_count = since(now->freed_count, from->freed_count),
		.size_variance = now->size_variance,
		.count_variance = now->count_variance,
	};
	if (difference) {
		figures->size_diff = figures->size - pl_totals_size(from);
		figures->count_diff = figures->count - pl_totals_count(from);
		figures->life_diff = (int64_t)((uint64_t)figures->size_diff + now->apart_size - from->apart_size);
		/* Blocks that live through the window are the same samples on both sides and cancel out:
		 * the sum is what it can be at most. */
		figures->size_diff_variance = now->size_variance + from->size_variance;
		figures->count_diff_variance = now->count_variance + from->count_variance;
	}
	return figures->size || figures->count || figures->size_diff || figures->count_diff || figures->life_diff ||
	       figures->window.allocated_count || figures->window.allocated_size || figures->window.freed_count ||
	       figures->window.freed_size;
}

static struct pl_row describe(const struct pl_sites *sites, uint32_t site, enum pl_group group_by)
{
	const struct pl_native_thread *thread = group_by == PL_GROUP_CALLER ? pl_sites_thread(sites, site) : NULL;
	const struct pl_frame *frame = group_by == PL_GROUP_CALLER ? pl_sites_caller(sites, site).frame
								   : pl_sites_innermost(sites, site);
	/* A thread of a library's own: whoever it allocates for, the function that it runs is its caller. */
	const struct pl_frame begins = {
		.filename = thread ? thread->begins.module : NULL,
		.function = thread ? thread->begins.frame.function : NULL,
	};

	if (begins.filename)
		frame = &begins;

	return (struct pl_row){
		.domain = pl_sites_domain(sites, site),
		.pid = pl_sites_process(sites, site),
		.filename = frame->filename,
		.function = group_by == PL_GROUP_FILE ? NULL : frame->function,
		.line = group_by == PL_GROUP_FILE ? 0 : frame->line,
		.site = site,
		.born_ns = pl_sites_born(sites, site),
	};
}

/* Where no Python was running the place is a function of an object file, and has no line. */
static bool is_object(const struct pl_row *row)
{
	return row->domain == PL_SITE_NATIVE && row->line == 0;
}

static bool same_row(const struct pl_row *a, const struct pl_row *b, enum pl_group group_by)
{
	if (a->domain != b->domain || a->pid != b->pid || a->filename != b->filename)
		return false;
	if (group_by == PL_GROUP_LINE || group_by == PL_GROUP_CALLER)
		return a->line == b->line && (!is_object(a) || a->function == b->function);
	if (group_by == PL_GROUP_TRACEBACK)
		return a->site == b->site;
	return group_by == PL_GROUP_FILE || a->function == b->function;
}

bool pl_row_is_same(const struct pl_row *a, const struct pl_row *b, enum pl_group group_by)
{
	return group_by == PL_GROUP_TRACEBACK ? a->site == b->site : same_row(a, b, group_by);
}

bool pl_row_has_site(const struct pl_row *row, enum pl_group group_by, const struct pl_sites *sites, uint32_t site)
{
	const struct pl_row key = describe(sites, site, group_by);

	return pl_row_is_same(row, &key, group_by);
}

static uint64_t hash_row(const struct pl_row *row, enum pl_group group_by)
{
	uint64_t hash = pl_hash((uint64_t)row->pid << 8 | row->domain, (uint64_t)(uintptr_t)row->filename);

	if (group_by == PL_GROUP_LINE || group_by == PL_GROUP_CALLER)
		return pl_hash(hash, is_object(row) ? (uint64_t)(uintptr_t)row->function : (uint64_t)row->line);
	if (group_by == PL_GROUP_FUNCTION)
		return pl_hash(hash, (uint64_t)(uintptr_t)row->function);
	if (group_by == PL_GROUP_TRACEBACK)
		return pl_hash(hash, row->site);
	return hash;
}

static bool has_key(const void *context, uint32_t item, const void *key)
{
	const struct grouping *grouping = context;

	return same_row(&grouping->items[item], key, grouping->options->group_by);
}

/* UINT32_MAX: there is no row with this key. */
static uint32_t find_row(const struct grouping *grouping, const struct pl_row *key)
{
	return pl_index_find(&grouping->index, hash_row(key, grouping->options->group_by), has_key, grouping, key);
}

static struct pl_row *make_row(struct grouping *grouping, const struct pl_row *key)
{
	uint32_t found = find_row(grouping, key);

	if (found != UINT32_MAX)
		return &grouping->items[found];
	if (grouping->count == grouping->capacity) {
		size_t capacity = grouping->capacity ? 2 * grouping->capacity : 256;
		struct pl_row *items = realloc(grouping->items, capacity * sizeof(*items));

		if (!items)
			return NULL;
		grouping->items = items;
		grouping->capacity = capacity;
	}
	if (!pl_index_add(&grouping->index, hash_row(key, grouping->options->group_by), (uint32_t)grouping->count))
		return NULL;
	grouping->items[grouping->count] = *key;
	grouping->items[grouping->count].number = (uint32_t)grouping->count;
	return &grouping->items[grouping->count++];
}

/* Whether a site stands for its row better than the one that does so far. */
static bool is_heavier(const struct pl_row *figures, const struct pl_row *row, bool difference)
{
	if (difference && figures->life_diff != row->site_life_diff)
		return figures->life_diff > row->site_life_diff;
	if (figures->size != row->site_size)
		return figures->size > row->site_size;
	return figures->count > row->site_count;
}

static int add_site(
	struct grouping *grouping, const struct pl_sites *sites, uint32_t site, const struct pl_row *figures)
{
	const struct pl_row key = describe(sites, site, grouping->options->group_by);
	struct pl_row *row = make_row(grouping, &key);

	if (!row)
		return -ENOMEM;
	if (row->site == site || is_heavier(figures, row, grouping->difference)) {
		row->site = site;
		row->site_size = figures->size;
		row->site_size_diff = figures->size_diff;
		row->site_life_diff = figures->life_diff;
		row->site_count = figures->count;
		/* A lambda or a comprehension has its line in common with the function around it. */
		row->function = key.function;
	}
	if (key.born_ns < row->born_ns)
		row->born_ns = key.born_ns;
	pl_row_add(row, figures);
	return 0;
}

/* Every site of a wanted domain and the number of its row, also where the site itself has no figures now. */
static void number_sites(struct grouping *grouping, const struct pl_sites *sites, uint32_t *row_of_site, size_t count)
{
	for (size_t site = 0; site < count; site++) {
		const struct pl_row key = describe(sites, (uint32_t)site, grouping->options->group_by);

		/* Rows stand as they were made: their numbers are those of the index. */
		row_of_site[site] = find_row(grouping, &key);
	}
}

/* From the numbers of rows to where they stand now. */
static int place_sites(struct pl_rows *rows, size_t made)
{
	pl_autofree uint32_t *places = malloc((made ? made : 1) * sizeof(*places));

	if (!places)
		return -ENOMEM;
	for (size_t i = 0; i < made; i++)
		places[i] = UINT32_MAX;
	assert(!rows->count || rows->items);
	for (size_t i = 0; i < rows->count; i++)
		places[rows->items[i].number] = (uint32_t)i;
	for (size_t site = 0; site < rows->site_count; site++)
		if (rows->row_of_site[site] != UINT32_MAX)
			rows->row_of_site[site] = places[rows->row_of_site[site]];
	return 0;
}

static void select_files(struct grouping *grouping)
{
	const char *const *include = grouping->options->include, *const *exclude = grouping->options->exclude;
	size_t kept = 0;

	/* There what is excluded is not left out, but charged to who called it: pl_sites_set_libraries(). */
	if (grouping->options->group_by == PL_GROUP_CALLER)
		exclude = NULL;

	for (size_t i = 0; i < grouping->count; i++) {
		const char *filename = grouping->items[i].filename;

		/* An empty list of globs is none. */
		if (include && *include && !caller_matches(filename, include))
			continue;
		if (caller_matches(filename, exclude))
			continue;
		grouping->items[kept++] = grouping->items[i];
	}
	grouping->count = kept;
}

int pl_rows_make(const struct pl_snapshot *now, const struct pl_snapshot *before, const struct pl_rows_options *options,
	struct pl_rows *ret)
{
	struct grouping grouping = {.options = options, .difference = before != NULL};
	size_t made;
	int code = 0;

	*ret = (struct pl_rows){0};
	if (before && before->sites != now->sites)
		return -EINVAL;
	for (size_t site = 0; site < now->count && code == 0; site++) {
		const struct pl_totals *old = before && site < before->count ? &before->totals[site] : NULL;
		enum pl_site_domain domain = pl_sites_domain(now->sites, (uint32_t)site);
		struct pl_row figures;

		if (!(domain == PL_SITE_NATIVE ? options->native : domain == PL_SITE_PYTHON && options->python))
			continue;
		if (compute(&now->totals[site], old, grouping.difference, &figures))
			code = add_site(&grouping, now->sites, (uint32_t)site, &figures);
	}
	ret->items = grouping.items;
	ret->row_of_site = code == 0 ? malloc((now->count ? now->count : 1) * sizeof(*ret->row_of_site)) : NULL;
	if (!ret->row_of_site) {
		pl_index_free(&grouping.index);
		pl_rows_free(ret);
		return -ENOMEM;
	}
	ret->site_count = now->count;
	number_sites(&grouping, now->sites, ret->row_of_site, ret->site_count);
	pl_index_free(&grouping.index);
	made = grouping.count;
	select_files(&grouping);
	rows_sort(grouping.items, grouping.count, now->sites, options->group_by, options->sort);
	ret->count = grouping.count;
	code = place_sites(ret, made);
	if (code < 0) {
		pl_rows_free(ret);
		return code;
	}
	ret->total.site = UINT32_MAX;
	for (size_t i = 0; i < ret->count; i++)
		pl_row_add(&ret->total, &ret->items[i]);
	return 0;
}

const struct pl_frame *pl_row_caller(const struct pl_sites *sites, const struct pl_row *row)
{
	const struct pl_caller caller = pl_sites_caller(sites, row->site);

	if (caller.kind != PL_CALLER_OWN && caller.kind != PL_CALLER_TASK)
		return NULL;
	/* It is the row's own line. */
	if (caller.index == 0 || (caller.frame->filename == row->filename && caller.frame->line == row->line))
		return NULL;
	return caller.frame;
}

void pl_rows_free(struct pl_rows *rows)
{
	free(rows->items);
	free(rows->row_of_site);
	*rows = (struct pl_rows){0};
}
