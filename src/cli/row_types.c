/* SPDX-License-Identifier: MIT */
#include "row_types.h"

#include <stdlib.h>
#include <string.h>

#include "pyleak/census.h"
#include "pyleak/cleanup.h"
#include "row_order.h"

/* Each takes a read, some microseconds. Of a row, as many as it has, or enough to know the shares of its types. */
enum { ROWS_LOOKED_AT = 200, BLOCKS_LOOKED_AT = 32768, BLOCKS_OF_ROW_MIN = 64, BLOCKS_OF_ROW_MAX = 4096, CHAINS_OF_ROW = 16 };

/* Of a row of tracebacks: of a chain that has any number, one of a few is near to its end. */
static void look_at_chains(struct pl_block_types *types, const struct pl_live_block *blocks, size_t count,
	struct pl_row_types *ret)
{
	const size_t step = count > CHAINS_OF_ROW ? count / CHAINS_OF_ROW : 1;

	if (!pl_row_types_share(ret, "traceback"))
		return;
	for (size_t i = 0; i < count && ret->chain < PL_CHAIN_MAX; i += step) {
		unsigned int chain = 0;

		/* What lies beside it is of the same line, and mostly its frame. */
		for (size_t k = i; k < count && k < i + step && !chain; k++)
			chain = pl_block_chain(types, blocks[k].address, blocks[k].size);
		if (chain > ret->chain)
			ret->chain = chain;
	}
}

static void add_process(const struct pl_target *target, const uint32_t *group_of_site, size_t site_count, size_t count,
	struct pl_row_types *ret)
{
	struct pl_block_types *types = NULL;
	struct pl_live_blocks blocks;
	const size_t most = BLOCKS_LOOKED_AT / (count ? count : 1) + BLOCKS_OF_ROW_MIN;

	if (pl_live_blocks_init(&blocks, count, most < BLOCKS_OF_ROW_MAX ? most : BLOCKS_OF_ROW_MAX) == 0 &&
		pl_engine_live_blocks(target->engine, group_of_site, site_count, &blocks) == 0 &&
		pl_block_types_open(target->python, &types) == 0) {
		for (size_t row = 0; row < count; row++) {
			size_t kept = pl_live_blocks_kept(&blocks, row);
			double each = kept ? (double)blocks.seen[row] / (double)kept : 0;

			for (size_t i = 0; i < kept; i++) {
				const struct pl_live_block *block = &blocks.items[row * blocks.most + i];
				const double weight = each * pl_live_block_weight(block);

				pl_row_types_add(&ret[row], pl_block_type(types, block->address, block->size), weight);
				ret[row].blocks += weight;
				ret[row].sampled |= block->rate != 0;
			}
			look_at_chains(types, &blocks.items[row * blocks.most], kept, &ret[row]);
			ret[row].sampled |= kept < blocks.seen[row];
		}
	}
	pl_block_types_close(types);
	pl_live_blocks_free(&blocks);
}

static void look(struct pl_targets *targets, const uint32_t *group_of_site, size_t site_count, const int64_t *live,
	size_t count, struct pl_row_types *ret)
{
	for (size_t i = 0; i < count; i++)
		ret[i] = (struct pl_row_types){.sampled = targets->facts.sample != 0};
	for (size_t i = 0; i < pl_targets_count(targets); i++) {
		const struct pl_target *target = pl_targets_at(targets, i);

		if (target->engine && !target->ended)
			add_process(target, group_of_site, site_count, count, ret);
	}
	for (size_t i = 0; i < count; i++)
		pl_row_types_finish(&ret[i], live[i]);
}

static struct pl_row_types *types_of_rows(struct pl_targets *targets, const struct pl_rows *rows, size_t count)
{
	struct pl_row_types *types = calloc(count ? count : 1, sizeof(*types));
	pl_autofree uint32_t *groups = malloc((rows->site_count + 1) * sizeof(*groups));
	pl_autofree int64_t *live = calloc(count + 1, sizeof(*live));

	if (!types || !groups || !live) {
		free(types);
		return NULL;
	}
	for (size_t site = 0; site < rows->site_count; site++) {
		uint32_t row = rows->row_of_site[site];

		/* Blocks of native allocators are no objects. */
		groups[site] = row < count && rows->items[row].domain == PL_SITE_PYTHON ? row : UINT32_MAX;
	}
	for (size_t i = 0; i < count; i++)
		live[i] = rows->items[i].count;
	look(targets, groups, rows->site_count, live, count, types);
	return types;
}

void pl_row_types_of_row(struct pl_targets *targets, const struct pl_sites *sites, const struct pl_row *row,
	enum pl_group group_by, struct pl_row_types *ret)
{
	const size_t count = pl_sites_count(sites);
	pl_autofree uint32_t *groups = malloc((count + 1) * sizeof(*groups));

	*ret = (struct pl_row_types){0};
	if (!groups || row->domain != PL_SITE_PYTHON)
		return;
	for (size_t site = 0; site < count; site++)
		groups[site] = pl_row_has_site(row, group_by, sites, (uint32_t)site) ? 0 : UINT32_MAX;
	look(targets, groups, count, &row->count, 1, ret);
}

/* Of a family: in how many of its processes something of each row is live. */
static void count_processes(struct pl_targets *targets, const struct pl_rows *rows, size_t count, struct pl_row_types *ret)
{
	pl_autofree bool *has = malloc((rows->site_count + 1) * sizeof(*has));
	pl_autofree bool *found = malloc((count + 1) * sizeof(*found));

	for (size_t i = 0; has && found && targets->family && i < pl_targets_count(targets); i++) {
		const struct pl_target *target = pl_targets_at(targets, i);

		if (!target->engine || target->ended)
			continue;
		memset(has, 0, rows->site_count * sizeof(*has));
		memset(found, 0, count * sizeof(*found));
		pl_engine_live_sites(target->engine, has, rows->site_count);
		for (size_t site = 0; site < rows->site_count; site++)
			if (has[site] && rows->row_of_site[site] < count)
				found[rows->row_of_site[site]] = true;
		for (size_t row = 0; row < count; row++) {
			ret[row].processes += found[row];
			ret[row].living++;
		}
	}
}

struct pl_row_types *pl_row_types_of_snapshots(struct pl_targets *targets, const struct pl_options *options,
	const struct pl_history *history, const struct pl_snapshot *now, const struct pl_snapshot *before, size_t *ret_count)
{
	struct pl_row_types *types = NULL;
	struct pl_rows rows = {0};

	*ret_count = 0;
	if (pl_rows_in_order(options, history, now, before, &rows) == 0) {
		size_t count = options->limit && options->limit < ROWS_LOOKED_AT ? options->limit : ROWS_LOOKED_AT;

		*ret_count = rows.count < count ? rows.count : count;
		types = types_of_rows(targets, &rows, *ret_count);
		if (types)
			count_processes(targets, &rows, *ret_count, types);
	}
	pl_rows_free(&rows);
	return types;
}
