/* SPDX-License-Identifier: MIT */
#include "pyleak/pools.h"

#include <string.h>

const char *pl_pool_name(const char *path, size_t *ret_length)
{
	static const char *const folders[] = {"/site-packages/", "/dist-packages/"};
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

static void add_line(struct pl_pool *pool, const struct pl_frame *line, int64_t mapped)
{
	size_t at = 0;

	while (at < pool->line_count &&
		(pool->lines[at]->filename != line->filename || pool->lines[at]->line != line->line))
		at++;
	if (at == PL_POOL_LINES) {
		at--;
		if (pool->line_mapped[at] >= mapped)
			return;
		pool->line_mapped[at] = 0;
	} else if (at == pool->line_count) {
		pool->line_mapped[pool->line_count++] = 0;
	}
	pool->lines[at] = line;
	pool->line_mapped[at] += mapped;
	for (; at > 0 && pool->line_mapped[at] > pool->line_mapped[at - 1]; at--) {
		const struct pl_frame *frame = pool->lines[at];
		int64_t size = pool->line_mapped[at];

		pool->lines[at] = pool->lines[at - 1];
		pool->line_mapped[at] = pool->line_mapped[at - 1];
		pool->lines[at - 1] = frame;
		pool->line_mapped[at - 1] = size;
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
