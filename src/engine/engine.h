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
	void (*touched)(const struct pl_engine *engine, struct pl_touched *ret); /* NULL: not known */
	double (*rounding)(const struct pl_engine *engine, uint32_t alignment); /* NULL: not known */
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
