/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_ENGINE_H
#define PYLEAK_ENGINE_ENGINE_H

#include "pyleak/engine.h"

/* What an engine is, to the rest; each engine's own struct begins with struct pl_engine. */
struct pl_engine_ops {
	int (*run)(struct pl_engine *engine, int64_t until_ns, const volatile int *stop, struct pl_error *err);
	int (*look)(struct pl_engine *engine); /* NULL: it cannot wait for others meanwhile */
	void (*end)(struct pl_engine *engine); /* NULL: never called */
	void (*retire)(struct pl_engine *engine);
	void (*begin)(struct pl_engine *engine, int64_t until_ns); /* NULL: it does not tell */
	int (*update)(struct pl_engine *engine, struct pl_engine_state *ret);
	uint64_t (*memory)(const struct pl_engine *engine); /* NULL: none */
	void (*touched)(struct pl_engine *engine, struct pl_touched *ret); /* NULL: not known */
	double (*rounding)(const struct pl_engine *engine, uint32_t alignment); /* NULL: not known */
	int (*live_blocks)(const struct pl_engine *engine, const uint32_t *group_of_site, size_t site_count,
		struct pl_live_blocks *blocks); /* NULL: it cannot */
	void (*live_sites)(const struct pl_engine *engine, bool *has, size_t count); /* NULL: not known */
	int (*owned)(struct pl_engine *engine, const struct pl_range *ranges, size_t count, int64_t *ret); /* NULL: not known */
	const struct pl_engine_library *(*left)(const struct pl_engine *engine, size_t *ret_count); /* NULL: there are none */
	int (*disarm)(struct pl_engine *engine); /* NULL: it cannot */
	int (*finish)(struct pl_engine *engine, struct pl_error *err);
	void (*free)(struct pl_engine *engine);
};

struct pl_engine {
	const struct pl_engine_ops *ops;
	struct pl_sites *sites; /* borrowed */
	int64_t stop_ns;
	struct pl_facts facts;
};

#endif
