/* SPDX-License-Identifier: MIT */
#include "pyleak/pools.h"

#include <string.h>

/* Blocks of a package; how many times as many the first line has; paths whose package is known. */
enum { BLOCKS_MIN = 16, FAR_BEHIND = 4, PATHS_KNOWN = 256 };
#define WEIGHT_MAX (UINT64_C(1) << 40) /* of a site: what a process says of itself can be anything, and there are two million */

static const char *const folders[] = {"/site-packages/", "/dist-packages/"};

static bool is_in_package(const char *path)
{
	return strstr(path, folders[0]) || strstr(path, folders[1]);
}

const char *pl_pool_name(const char *path, size_t *ret_length)
{
	const char *name = NULL, *end;

	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
		for (const char *found = path; (found = strstr(found, folders[i]));) {
			found += strlen(folders[i]);
			name = found > name ? found : name;
		}
	}
	if (!name)
		name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	/* A package that has a folder for its library alone. */
	name += name[0] == '_';
	end = name + strcspn(name, "/.");
	*ret_length = (size_t)(end - name);
	return name;
}

static struct pl_pool *find_pool(struct pl_pools *pools, const struct pl_native_caller *caller)
{
	for (size_t i = 0; i < pools->count; i++)
		if (pools->items[i].module == caller->module)
			return &pools->items[i];
	if (pools->count == PL_POOLS_MAX)
		return NULL;
	pools->items[pools->count] = (struct pl_pool){
		.module = caller->module,
		.allocator = caller->symbol ? caller->symbol : "an allocator",
	};
	return &pools->items[pools->count++];
}

static void add_line(struct pl_pool *pool, const struct pl_frame *line, int64_t weight)
{
	size_t at = 0;

	while (at < pool->line_count &&
		(pool->lines[at]->filename != line->filename || pool->lines[at]->line != line->line))
		at++;
	if (at == PL_POOL_LINES) {
		at--;
		if (pool->line_weight[at] >= weight)
			return;
		pool->line_weight[at] = 0;
	} else if (at == pool->line_count) {
		pool->line_weight[pool->line_count++] = 0;
	}
	pool->lines[at] = line;
	/* What a process says of itself can be anything. */
	if (__builtin_add_overflow(pool->line_weight[at], weight, &pool->line_weight[at]))
		pool->line_weight[at] = INT64_MAX;
	for (; at > 0 && pool->line_weight[at] > pool->line_weight[at - 1]; at--) {
		const struct pl_frame *frame = pool->lines[at];
		int64_t size = pool->line_weight[at];

		pool->lines[at] = pool->lines[at - 1];
		pool->line_weight[at] = pool->line_weight[at - 1];
		pool->lines[at - 1] = frame;
		pool->line_weight[at - 1] = size;
	}
}

/* Of a thread of the library's own there is no line. */
static const struct pl_frame *line_of(const struct pl_sites *sites, uint32_t site)
{
	size_t count;
	const uint32_t *numbers = pl_sites_trace(sites, site, &count, NULL);
	const struct pl_frame *innermost = pl_sites_innermost(sites, site);

	if (!innermost->line)
		return NULL;
	for (size_t i = 0; i < count; i++)
		if (!pl_is_library(pl_sites_frame(sites, numbers[i])->filename))
			return pl_sites_frame(sites, numbers[i]);
	return innermost;
}

/* What is far behind the first is no hint. */
static void take_lines(struct pl_pool *pool, const struct pl_pool *found, enum pl_pool_lines by)
{
	pool->lines_by = by;
	pool->line_count = 0;
	for (size_t i = 0; i < found->line_count && found->line_weight[i] >= found->line_weight[0] / FAR_BEHIND; i++) {
		pool->lines[i] = found->lines[i];
		pool->line_weight[i] = found->line_weight[i];
		pool->line_count++;
	}
}

/* What a pool has mapped does not say who fills it. */
static void add_allocating_lines(const struct pl_snapshot *now, const struct pl_snapshot *before, struct pl_pool *pool)
{
	struct pl_pool found = {.line_count = 0};
	int64_t with_line = 0, without = 0;

	for (size_t site = 0; site < now->count; site++) {
		const struct pl_native_caller *caller = pl_sites_native_caller(now->sites, (uint32_t)site);
		uint64_t old = before && site < before->count ? before->totals[site].allocated_size : 0;
		uint64_t size = now->totals[site].allocated_size - old;
		const struct pl_frame *line;

		if (pl_sites_domain(now->sites, (uint32_t)site) != PL_SITE_NATIVE || !caller || caller->module != pool->module ||
			now->totals[site].allocated_size <= old || size > WEIGHT_MAX)
			continue;
		line = line_of(now->sites, (uint32_t)site);
		*(line ? &with_line : &without) += (int64_t)(size >> 8) + 1;
		if (line)
			add_line(&found, line, (int64_t)size);
	}
	/* Where threads of its own allocate, what is left says nothing. */
	if (!found.line_count || with_line < without)
		return;
	take_lines(pool, &found, PL_POOL_ALLOCATED);
}

/* Whether two paths are of one package: …/site-packages/polars and …/site-packages/_polars_runtime_32. */
static bool is_same_package(const char *left, const char *right)
{
	size_t left_length, right_length, shorter;

	if (!is_in_package(left) || !is_in_package(right))
		return false;
	left = pl_pool_name(left, &left_length);
	right = pl_pool_name(right, &right_length);
	shorter = left_length < right_length ? left_length : right_length;
	return shorter && memcmp(left, right, shorter) == 0 &&
	       (left_length == right_length || (left_length > shorter ? left : right)[shorter] == '_');
}

/* Of which pools' packages a path is: a bit for each. Paths are interned, and come again and again. */
struct packages {
	const struct pl_pools *pools;
	struct {
		const char *path;
		uint8_t mask;
	} known[PATHS_KNOWN];
};
_Static_assert(PL_POOLS_MAX <= 8, "a bit for each");

static uint8_t packages_of(struct packages *packages, const char *path)
{
	size_t at = (uintptr_t)path / 16 % PATHS_KNOWN;
	uint8_t mask = 0;

	if (packages->known[at].path == path)
		return packages->known[at].mask;
	for (size_t i = 0; i < packages->pools->count; i++)
		mask |= (uint8_t)(is_same_package(path, packages->pools->items[i].module) << i);
	packages->known[at].path = path;
	packages->known[at].mask = mask;
	return mask;
}

static uint8_t packages_below(struct packages *packages, const struct pl_sites *sites, uint32_t site)
{
	const struct pl_native_caller *caller = pl_sites_native_caller(sites, site);
	size_t count;
	const uint32_t *numbers = pl_sites_trace(sites, site, &count, NULL);
	uint8_t mask = caller ? packages_of(packages, caller->module) : 0;

	for (size_t i = 0; i < count; i++) {
		const char *path = pl_sites_frame(sites, numbers[i])->filename;

		/* What a library's line is called from is the program's. */
		if (!pl_is_library(path))
			break;
		mask |= packages_of(packages, path);
	}
	return mask;
}

static uint64_t blocks_of(const struct pl_totals *totals, bool kept)
{
	return totals->allocated_count - (kept ? totals->freed_count : 0);
}

/* By numbers of blocks: what stays of a package's own objects is small. */
static void add_lines_of_packages(
	const struct pl_snapshot *now, const struct pl_snapshot *before, struct pl_pools *pools, enum pl_pool_lines by)
{
	struct pl_pool found[PL_POOLS_MAX] = {0};
	struct packages packages = {.pools = pools};

	for (size_t site = 0; site < now->count; site++) {
		const bool kept = by == PL_POOL_KEPT;
		uint64_t old = before && site < before->count ? blocks_of(&before->totals[site], kept) : 0;
		int64_t blocks = (int64_t)(blocks_of(&now->totals[site], kept) - old);
		const struct pl_frame *line;
		uint8_t mask;

		if (blocks <= 0 || pl_sites_domain(now->sites, (uint32_t)site) == PL_SITE_POOL)
			continue;
		mask = packages_below(&packages, now->sites, (uint32_t)site);
		line = mask ? line_of(now->sites, (uint32_t)site) : NULL;
		for (size_t i = 0; line && i < pools->count; i++)
			if (mask >> i & 1)
				add_line(&found[i], line, blocks);
	}
	for (size_t i = 0; i < pools->count; i++)
		if (found[i].line_count && found[i].line_weight[0] >= BLOCKS_MIN && (by == PL_POOL_KEPT || !pools->items[i].line_count))
			take_lines(&pools->items[i], &found[i], by);
}

void pl_pools_make(const struct pl_snapshot *now, const struct pl_snapshot *before, int64_t resident, struct pl_pools *ret)
{
	int64_t mapped = 0;

	memset(ret, 0, sizeof(*ret));
	for (size_t site = 0; site < now->count; site++) {
		const struct pl_totals *old = before && site < before->count ? &before->totals[site] : NULL;
		const struct pl_native_caller *caller;
		const struct pl_frame *line;
		struct pl_pool *pool;
		int64_t size;

		if (pl_sites_domain(now->sites, (uint32_t)site) != PL_SITE_POOL)
			continue;
		caller = pl_sites_native_caller(now->sites, (uint32_t)site);
		size = pl_totals_size(&now->totals[site]) - (old ? pl_totals_size(old) : 0);
		pool = caller ? find_pool(ret, caller) : NULL;
		if (!pool)
			continue;
		pool->mapped += size;
		line = line_of(now->sites, (uint32_t)site);
		if (line && size > 0)
			add_line(pool, line, size);
	}
	for (size_t i = 0; i < ret->count; i++) {
		ret->items[i].lines_by = PL_POOL_MAPPED;
		if (!ret->items[i].line_count)
			add_allocating_lines(now, before, &ret->items[i]);
	}
	if (ret->count) {
		add_lines_of_packages(now, before, ret, PL_POOL_KEPT);
		add_lines_of_packages(now, before, ret, PL_POOL_WORKED);
	}
	for (size_t i = 0; i < ret->count; i++)
		mapped += ret->items[i].mapped > 0 ? ret->items[i].mapped : 0;
	for (size_t i = 0; i < ret->count; i++) {
		struct pl_pool *pool = &ret->items[i];

		/* Of several by what each has mapped. */
		if (ret->count == 1)
			pool->size = resident;
		else if (mapped && pool->mapped > 0)
			pool->size = (int64_t)((double)resident * ((double)pool->mapped / (double)mapped));
	}
	for (size_t i = 1; i < ret->count; i++)
		for (size_t at = i; at > 0 && ret->items[at].size > ret->items[at - 1].size; at--) {
			struct pl_pool pool = ret->items[at];

			ret->items[at] = ret->items[at - 1];
			ret->items[at - 1] = pool;
		}
}
