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
#include "pyleak/resident.h"
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
	uint64_t tables; /* inline: memory for the recorder's tables, in bytes; 0: a share of the process's own */
	uint64_t sample; /* inline: one allocation per so many bytes on average; 0: every one */
	bool native;     /* inline: the C library's allocators too */
	bool park;       /* inline: leave CPython's free lists alone */
	bool keep;       /* inline: finishing leaves the probe in place */
	/* Of the process before it was touched: told again to who adopts the probe. */
	uint64_t rss;
	struct pl_account account;
	/* Called just before recording begins, when all else is in place (with breakpoints: is made ready), with what the
	 * recorder has taken by then. NULL: nobody asks. */
	void (*begins)(void *context, uint64_t own);
	void *begins_context;
	struct pl_arena_map arena_map; /* inline: see pl_account_arena_map() */
	/* Where memory is that has an owner who is known (pl_account_places()), now: what is left is perhaps of an allocator that
	 * is linked into an object. Called until the engine is freed or ended. NULL: such are not looked for. */
	int (*places)(void *context, struct pl_range **ret, size_t *ret_count);
	void *places_context;
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
/* Those of them that are loaded now and have words that this engine leaves alone; the engine's own, until it is next called.
 * NULL, and 0 of them, of the breakpoint engine, and without native allocators. */
const struct pl_engine_library *pl_engine_left(const struct pl_engine *engine, size_t *ret_count);
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
	/* The caller's, or NULL: what is not in memory is added to this, by site. Not once the engine is finished. */
	int64_t *by_site;
	size_t site_count;
};
void pl_engine_touched(struct pl_engine *engine, struct pl_touched *ret);
double pl_engine_rounding(const struct pl_engine *engine, uint32_t alignment);

/*
 * Live blocks of some sites, as the recorder has them now. Of each group of sites at most `most` are kept, drawn from all
 * that were seen; where there is much memory, a part of it is looked at, evenly spread: so a block that is not among
 * them may be alive, and what is read at its address may be gone. Not seen: odd blocks of up to 16 bytes.
 */
struct pl_live_block {
	uint64_t address, size; /* as the allocator gave it out: with an object's headers, if one is in it */
	uint64_t rate; /* it was taken as a sample, one in so many bytes on average; 0: each is */
};
struct pl_live_blocks {
	struct pl_live_block *items; /* [groups][most] */
	uint64_t *seen; /* by group: how many were; the first of its items, as many as there are or `most`, are set */
	size_t groups, most;
};
/* 0, -ENOMEM; free them in any case. For one engine, once: addresses of two processes do not mix. */
int pl_live_blocks_init(struct pl_live_blocks *blocks, size_t groups, size_t most);
/* group_of_site: [site_count], by number in the engine's sites; groups from `blocks->groups` on are not wanted (so it may
 * be row_of_site of struct pl_rows). To be called before the engine is finished, when the tables go. 0; -ENOTSUP: not
 * with breakpoints, or not any more; -errno. */
int pl_engine_live_blocks(const struct pl_engine *engine, const uint32_t *group_of_site, size_t site_count,
			  struct pl_live_blocks *blocks);
size_t pl_live_blocks_kept(const struct pl_live_blocks *blocks, size_t group);
/* How many blocks it stands for: of a sample the large ones are more likely to be there. */
double pl_live_block_weight(const struct pl_live_block *block);
void pl_live_blocks_free(struct pl_live_blocks *blocks);

/* Sets has[site] for each site, of `count`, at which something of this process is live. */
void pl_engine_live_sites(const struct pl_engine *engine, bool *has, size_t count);

/* Ranges, in order, none overlapping another: bytes in memory of each that rows have, or allocators that are linked in, or
 * pyleak itself. From a part of the tables where they are large. 0; -ENOTSUP: not known (with breakpoints, of samples, or
 * not any more); -errno. */
int pl_engine_owned(struct pl_engine *engine, const struct pl_range *ranges, size_t count, int64_t *ret);

/* At once, and without a stop, nothing more is recorded; what was stays to be read. pl_engine_finish() then removes the
 * probe, even one that was to stay or was there before. 0; -errno: it goes on; -ENOTSUP: not with breakpoints. */
int pl_engine_disarm(struct pl_engine *engine);

/* If somebody is seen in a probe of this process that is to be removed: who, in what, and where in Python (`python` may be
 * NULL). Nothing is touched. */
bool pl_engine_who_stays(pid_t pid, const struct pl_python *python, char *text, size_t size);
/* Why a probe could not be removed, and where the thread that stays is in Python: "NAME (FILE:LINE), called by …". What is read
 * of a process that runs may be of two moments. `python` may be NULL; code 0: nothing is said. Returns code. */
int pl_engine_pass_on(const struct pl_python *python, int code, const char *why, struct pl_error *err);

/* Removes the hooks and lets the process go. What it has added to the sites stays. */
int pl_engine_finish(struct pl_engine *engine, struct pl_error *err);
void pl_engine_free(struct pl_engine *engine); /* NULL is allowed */

#endif
