/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_RECORDING_H
#define PYLEAK_ENGINE_RECORDING_H

#include "pyleak/engine.h"

/* What an engine is, to the rest; each engine's own struct begins with struct pl_recording. */
struct pl_recording_ops {
	int (*run)(struct pl_recording *recording, int64_t until_ns, const volatile int *stop, struct pl_error *err);
	int (*look)(struct pl_recording *recording); /* NULL: it cannot wait for others meanwhile */
	void (*retire)(struct pl_recording *recording);
	int (*update)(struct pl_recording *recording, struct pl_recording_state *ret);
	uint64_t (*memory)(const struct pl_recording *recording); /* NULL: none */
	double (*rounding)(const struct pl_recording *recording, uint32_t alignment); /* NULL: not known */
	int (*finish)(struct pl_recording *recording, struct pl_error *err);
	void (*free)(struct pl_recording *recording);
};

struct pl_recording {
	const struct pl_recording_ops *ops;
	struct pl_sites *sites; /* borrowed */
	int64_t stop_ns;
	struct pl_recording_facts facts;
};

#endif
