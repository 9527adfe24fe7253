/* SPDX-License-Identifier: MIT */
#include "engine.h"

#include <math.h>
#include <errno.h>
#include <stdlib.h>

int pl_engine_run(struct pl_engine *engine, int64_t until_ns, const volatile int *stop, struct pl_error *err)
{
	return engine->ops->run(engine, until_ns, stop, err);
}

int pl_engine_look(struct pl_engine *engine)
{
	return engine->ops->look ? engine->ops->look(engine) : -ENOTSUP;
}

void pl_engine_end(struct pl_engine *engine)
{
	if (engine->ops->end)
		engine->ops->end(engine);
}

void pl_engine_retire(struct pl_engine *engine)
{
	if (engine->ops->retire)
		engine->ops->retire(engine);
}

void pl_engine_begin(struct pl_engine *engine, int64_t until_ns)
{
	if (engine->ops->begin)
		engine->ops->begin(engine, until_ns);
}

int pl_engine_update(struct pl_engine *engine, struct pl_engine_state *ret)
{
	*ret = (struct pl_engine_state){0};
	return engine->ops->update(engine, ret);
}

const struct pl_facts *pl_engine_facts(const struct pl_engine *engine)
{
	return &engine->facts;
}

int64_t pl_engine_stop_ns(const struct pl_engine *engine)
{
	return engine->stop_ns;
}

uint64_t pl_engine_memory(const struct pl_engine *engine)
{
	return engine->ops->memory ? engine->ops->memory(engine) : 0;
}

double pl_engine_rounding(const struct pl_engine *engine, uint32_t alignment)
{
	return engine->ops->rounding ? engine->ops->rounding(engine, alignment) : -1;
}

void pl_engine_touched(struct pl_engine *engine, struct pl_touched *ret)
{
	ret->untouched = ret->pools = 0;
	if (engine->ops->touched)
		engine->ops->touched(engine, ret);
}

int pl_live_blocks_init(struct pl_live_blocks *blocks, size_t groups, size_t most)
{
	*blocks = (struct pl_live_blocks){
		.items = calloc(groups ? groups : 1, most * sizeof(*blocks->items)),
		.seen = calloc(groups ? groups : 1, sizeof(*blocks->seen)),
		.groups = groups,
		.most = most,
	};
	return blocks->items && blocks->seen ? 0 : -ENOMEM;
}

size_t pl_live_blocks_kept(const struct pl_live_blocks *blocks, size_t group)
{
	return blocks->seen[group] < blocks->most ? blocks->seen[group] : blocks->most;
}

double pl_live_block_weight(const struct pl_live_block *block)
{
	return block->rate ? -1 / expm1(-fmax((double)block->size, 1) / (double)block->rate) : 1;
}

void pl_live_blocks_free(struct pl_live_blocks *blocks)
{
	free(blocks->items);
	free(blocks->seen);
	*blocks = (struct pl_live_blocks){0};
}

int pl_engine_live_blocks(const struct pl_engine *engine, const uint32_t *group_of_site, size_t site_count,
	struct pl_live_blocks *blocks)
{
	return engine->ops->live_blocks ? engine->ops->live_blocks(engine, group_of_site, site_count, blocks) : -ENOTSUP;
}

void pl_engine_live_sites(const struct pl_engine *engine, bool *has, size_t count)
{
	if (engine->ops->live_sites)
		engine->ops->live_sites(engine, has, count);
}

int pl_engine_owned(struct pl_engine *engine, const struct pl_range *ranges, size_t count, int64_t *ret)
{
	return engine->ops->owned ? engine->ops->owned(engine, ranges, count, ret) : -ENOTSUP;
}

const struct pl_engine_library *pl_engine_left(const struct pl_engine *engine, size_t *ret_count)
{
	*ret_count = 0;
	return engine->ops->left ? engine->ops->left(engine, ret_count) : NULL;
}

int pl_engine_disarm(struct pl_engine *engine)
{
	return engine->ops->disarm ? engine->ops->disarm(engine) : -ENOTSUP;
}

int pl_engine_finish(struct pl_engine *engine, struct pl_error *err)
{
	return engine->ops->finish(engine, err);
}

void pl_engine_free(struct pl_engine *engine)
{
	if (engine)
		engine->ops->free(engine);
}
