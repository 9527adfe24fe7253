/* SPDX-License-Identifier: MIT */
#include "engine.h"

#include <errno.h>

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

void pl_engine_touched(const struct pl_engine *engine, struct pl_touched *ret)
{
	*ret = (struct pl_touched){0, 0};
	if (engine->ops->touched)
		engine->ops->touched(engine, ret);
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
