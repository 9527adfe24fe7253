/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_ENGINE_H
#define PYLEAK_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "pyleak/account.h"
#include "pyleak/error.h"
#include "pyleak/facts.h"
#include "pyleak/hook.h"
#include "pyleak/python.h"
#include "pyleak/stats.h"

/*
 * An engine at work: hooks in a process, and the sites that they feed. Which of the two it is is
 * decided once, at the start. The sites are the caller's, outlive the engine, and may be fed by
 * several: each adds what it finds to the running totals. What is written to a file is in recording_file.h.
 */
struct pl_engine;

struct pl_engine_options {
	struct pl_sites *sites;
	bool apart;      /* what it adds to the sites is kept apart from what other processes add */
	int frames;      /* kept for each allocation, 1 to 128 */
	int native_frames; /* of the native stacks that sites get, 0 (none at all) to 64 */
	uint64_t sample; /* inline: one allocation per so many bytes on average; 0: every one */
	bool native;     /* inline: the C library's allocators too */
	bool park;       /* inline: leave CPython's free lists alone */
	bool keep;       /* inline: finishing leaves the probe in place */
	/* Of the process before it was touched: told again to who adopts the probe. */
	uint64_t rss;
	struct pl_account account;
};

/* The breakpoint engine: each allocation stops its thread. The tracer stays attached. */
int pl_engine_start_breakpoint(const struct pl_python *python, const struct pl_engine_options *options,
				  struct pl_engine **ret, struct pl_error *err);

/* The inline engine: the probe records, the tracer comes only to plant and to remove. */
int pl_engine_start_inline(const struct pl_python *python, const struct pl_engine_options *options,
			      struct pl_engine **ret, struct pl_error *err);
/* Reads what a probe that is there has recorded and goes on recording; finishing leaves it in place.
 * *probe is taken over. */
int pl_engine_adopt(const struct pl_python *python, struct pl_probe *probe, struct pl_sites *sites,
		       bool apart, int native_frames, struct pl_engine **ret, struct pl_error *err);

/*
 * Records until `until_ns` (CLOCK_MONOTONIC), or until *stop is set (checked every 20 ms at least).
 * 0; -EINTR: *stop; -ESRCH: the process ended (what was recorded still stands); -ECANCELED: the
 * engine cannot go on safely, err says why.
 */
int pl_engine_run(struct pl_engine *engine, int64_t until_ns, const volatile int *stop, struct pl_error *err);

/* The address space that the inline engine's tables would take in a process now, at most. -ENOMEM, -EEXIST: there is
 * no room. */
int pl_engine_room(pid_t pid, uint64_t *ret_size, struct pl_error *err);

/*
 * How an object that is loaded reaches the allocators, and what of that is recorded: numbers of words. See got.h for the
 * kinds.
 */
struct pl_engine_library {
	char *path;
	uint32_t jumped;   /* jumped through: they lead to the recorder */
	uint32_t loaded;   /* loaded as values: to the landing page */
	uint32_t pointers; /* pointers in data: likewise */
	uint32_t covered;  /* end in a word of another object that is hooked, or are CPython's own way to its arenas */
	uint32_t left;     /* not recorded */
	const char *why;   /* if any is left, of one of them */
};
/* What the inline engine hooks, or would hook, in a process: all objects with such words, in the order in which they are
 * mapped. The process is only read. *ret is the caller's, see pl_engine_libraries_free(). 0 or -errno. */
int pl_engine_libraries(const struct pl_python *python, struct pl_engine_library **ret, size_t *ret_count);
void pl_engine_libraries_free(struct pl_engine_library *libraries, size_t count);

/* What pl_engine_run() does each time it wakes up, for who waits for several engines at once:
 * call it every 20 ms. 0; -ESRCH: the process ended; -ENOTSUP: not with breakpoints. */
int pl_engine_look(struct pl_engine *engine);
/* The process has ended: closes and frees what was there for it, but for what is needed to retire it. The Python that the
 * engine was started with may be closed then, and the engine be retired and freed, no more. */
void pl_engine_end(struct pl_engine *engine);
/* The process has ended while others go on: what was live in it counts as freed from now on. Inline only. */
void pl_engine_retire(struct pl_engine *engine);

/* The process is one of several, and what it comes to have until then is what it begins with (struct pl_totals). What it
 * frees when its interpreter ends is not counted: see pl_engine_retire(). Once, before the first update. */
void pl_engine_begin(struct pl_engine *engine, int64_t until_ns);

/* What a snapshot needs to know of each process. */
struct pl_engine_state {
	uint64_t rss; /* 0: it has ended */
	struct pl_losses losses;
};
/* Brings the totals of the sites to what they are in the process now. 0, or -ESRCH: the process has ended, and they
 * are what they were a moment before. *ret is filled in any case. */
int pl_engine_update(struct pl_engine *engine, struct pl_engine_state *ret);
/* Of an adopted probe: as it was planted. */
const struct pl_facts *pl_engine_facts(const struct pl_engine *engine);
/* The longest time that the process was held stopped by planting or removing, so far. */
int64_t pl_engine_stop_ns(const struct pl_engine *engine);

/* How much memory of the process the recorder's tables take now, in bytes; 0: none, or not known. */
uint64_t pl_engine_memory(const struct pl_engine *engine);

/* What the tracee's allocators add to a live block by rounding its size up, in bytes on average; alignment as in struct
 * pl_account. From a part of the tables, so an estimate. Below 0: not known. */
/* Bytes of live recorded blocks that are not in memory, and of linked-in allocators' mappings that are (see struct
 * pl_account); 0 also where that is not known. */
struct pl_touched {
	int64_t untouched, pools;
};
void pl_engine_touched(const struct pl_engine *engine, struct pl_touched *ret);
double pl_engine_rounding(const struct pl_engine *engine, uint32_t alignment);

/* At once, and without a stop, nothing more is recorded; what was stays to be read. pl_engine_finish() then removes the
 * probe, even one that was to stay or was there before. 0; -errno: it goes on; -ENOTSUP: not with breakpoints. */
int pl_engine_disarm(struct pl_engine *engine);

/* Removes the hooks and lets the process go. What it has added to the sites stays. */
int pl_engine_finish(struct pl_engine *engine, struct pl_error *err);
void pl_engine_free(struct pl_engine *engine); /* NULL is allowed */

#endif
