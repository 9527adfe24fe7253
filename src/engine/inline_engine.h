/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_INLINE_H
#define PYLEAK_ENGINE_INLINE_H

#include "engine.h"
#include "inline_give.h"
#include "inline_limit.h"
#include "inline_read.h"
#include "inline_reuse.h"
#include "inline_rounding.h"
#include "inline_untouched.h"
#include "inline_stacks.h"
#include "native.h"
#include "native_caller.h"
#include "pyleak/hook.h"
#include "unseen.h"

/*
 * The engine that does not stop, in three parts. inline_plant.c: how the probe gets into the process; inline_libraries.c:
 * hooks in what it loads later; inline.c: the life of a recording, from its start to the removal.
 */

struct inline_engine {
	struct pl_engine engine;
	const struct pl_python *python;
	struct pl_probe probe;
	struct pl_inline_reader reader;
	struct native native;
	struct native_callers callers;
	struct inline_memory memory;
	struct inline_stacks stacks;
	struct inline_reuse reuse;
	struct inline_give give;
	struct inline_limit limit;
	struct unseen unseen;
	struct old_pools old_pools;
	int64_t next_native_look;
	uint64_t start_time;
	int64_t next_pass, next_glance;
	bool in_family;
	int64_t starts_until; /* of a process that begins: see pl_engine_begin() */
	bool apart;     /* its sites bear its number */
	int process_fd; /* a pidfd: becomes readable when the process ends; -1 before Linux 5.3 */
	struct inline_touched last_touched; /* as the next */
	struct inline_rounding last_rounding; /* once it is finished: before the tables went */
	bool planted;   /* by us, or adopted: there is something to remove */
	bool keep;
	bool disarmed;  /* for good: it is removed, whoever planted it and whatever for */
	bool words_changed; /* a word that led to us does not any more: said once */
	bool gone;      /* the process ended, or runs another program */
};

/* inline_plant.c */
/* Plants the probe. 0; -ENOMEM, -EEXIST: no room; or -errno, maybe without a text in err. */
int inline_plant(struct inline_engine *self, const struct pl_engine_options *options, struct pl_error *err);
/* Takes over how the probe that stands at self->probe was set up. -EPROTO: it is another version's. */
int inline_adopt_config(struct inline_engine *self, int native_frames);

/* A thread was held for so long. */
void inline_note_stop(struct inline_engine *self, int64_t stop_ns);

/* inline_owned.c: see pl_engine_owned(). */
int inline_owned_look(const struct inline_engine *self, const struct pl_range *ranges, size_t count, int64_t *ret);

/* inline_libraries.c */
/* Looks for libraries that were loaded since, not more often than it may cost; `now` in CLOCK_MONOTONIC. */
void inline_follow_libraries(struct inline_engine *self, int64_t now);

#endif
