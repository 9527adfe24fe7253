/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_STATS_H
#define PYLEAK_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "pyleak/account.h"
#include "pyleak/facts.h"
#include "pyleak/places.h"

/*
 * Sites, snapshots, and what is computed from them. Knows nothing of processes: an engine feeds it,
 * a report reads it. Pure computation, so everything here has unit tests.
 *
 *   engine ──intern──> pl_sites (traces + running totals) ──copy──> pl_snapshot
 *   pl_snapshot × 2 ──group, filter, sort──> pl_rows ──> report
 */

/* Four running totals; live = allocated − freed. Sizes in bytes. */
struct pl_totals {
	uint64_t allocated_size, allocated_count;
	uint64_t freed_size, freed_count;
	/* Of live size and count as estimates from samples, in bytes² and blocks²; 0 where every
	 * allocation was recorded. */
	double size_variance, count_variance;
	/* Of families. What is live and this is what grew within the lives of its processes: what a process that came later
	 * began with is below zero here, what one that ended had is above it. Modulo 2^64, as the others. */
	uint64_t apart_size, apart_count;
	/* What of allocated_count is of the beginnings of such processes. */
	uint64_t apart_allocated;
};

/* What lives, by running totals that are read while they change: never negative, and within its type. */
int64_t pl_totals_size(const struct pl_totals *totals);
int64_t pl_totals_count(const struct pl_totals *totals);

/* Sites from PL_SITE_OLDER on are in no row: see pl_sites_intern_older(); what an allocator that is linked into an object
 * mapped, see pools.h. */
enum pl_site_domain { PL_SITE_PYTHON, PL_SITE_NATIVE, PL_SITE_OLDER, PL_SITE_POOL, PL_SITE_DOMAIN_COUNT };

/* A resolved frame; strings are interned in the pl_sites and live as long as it. */
struct pl_frame {
	const char *filename;
	const char *function;
	int line;
};

/* Who called a native allocator: strings interned like those of a frame. */
struct pl_native_caller {
	const char *module; /* path of the object */
	const char *symbol; /* function; NULL: not known */
	uint64_t offset;    /* of the call's return address, from the start of the function if it is known, else in the object */
	const char *filename; /* of the source of the call; NULL: no DWARF */
	int line;             /* 0: not known */
};

/* A line of native code on the way to an allocation: the source's, or without DWARF the object's path and line 0. */
struct pl_native_line {
	struct pl_frame frame;
	const char *module; /* path of the object */
};

/* A set of sites that only grows. A site is (domain, trace, native caller), and where processes are
 * kept apart the process; its number never changes. */
struct pl_sites;
struct pl_sites *pl_sites_new(void); /* NULL: out of memory */
void pl_sites_free(struct pl_sites *sites);

/* An interned copy of text, equal text giving the equal pointer. NULL: out of memory. */
const char *pl_sites_string(struct pl_sites *sites, const char *text);

/* The number of the site with these frames, innermost first (strings interned by
 * pl_sites_string()); made if new. `more`: the traceback went on beyond them. UINT32_MAX: out of
 * memory. count 0 is the site of allocations with no Python frame: "<unknown>:0". */
uint32_t pl_sites_intern(struct pl_sites *sites, enum pl_site_domain domain, const struct pl_frame *frames,
			 size_t count, bool more);
/* The same in the native domain. count 0: the frame is the caller's module and symbol, line 0. */
uint32_t pl_sites_intern_native(struct pl_sites *sites, const struct pl_frame *frames, size_t count, bool more,
				const struct pl_native_caller *caller);
/* Where blocks that are older than the recording are freed: by a thread whose last allocation was at these frames
 * (count 0: that is not known). Its totals count what was freed as allocated. `size_class`: 0 where the size of the
 * blocks is not known, else what tells sizes apart; their average is in the totals. */
uint32_t pl_sites_intern_older(struct pl_sites *sites, uint32_t size_class, const struct pl_frame *frames, size_t count,
			       bool more);
/* 0 for a site of another domain. */
uint32_t pl_sites_older_class(const struct pl_sites *sites, uint32_t site);
/* The same of a pool: caller->module is the object, caller->symbol the allocator. */
uint32_t pl_sites_intern_pool(struct pl_sites *sites, const struct pl_frame *frames, size_t count, bool more,
			      const struct pl_native_caller *caller);
/* NULL: not of the native domain or a pool, or the caller was never said. */
const struct pl_native_caller *pl_sites_native_caller(const struct pl_sites *sites, uint32_t site);
/*
 * Native stacks: the way from a site's Python frames to the allocator. Seen of some of its allocations only, so
 * it is not part of what a site is: each has none or one, which may change. Numbers never change their meaning.
 */
enum { PL_NATIVE_FRAMES_MAX = 64, PL_TRACEBACK_MAX = 1024 + PL_NATIVE_FRAMES_MAX };
/* Innermost first, strings interned; at most PL_NATIVE_FRAMES_MAX. `more`: it does not reach the Python frames.
 * UINT32_MAX: out of memory. */
uint32_t pl_sites_intern_stack(struct pl_sites *sites, const struct pl_native_line *lines, size_t count, bool more);
const struct pl_native_line *pl_sites_stack_lines(const struct pl_sites *sites, uint32_t stack, size_t *ret_count,
						  bool *ret_more);
/*
 * What is known of the thread where it is one of a library's own, which runs no Python: a part of what its stack is. Whom it
 * works for nobody says. `meanwhile` is what was seen beside it: the line that allocated last with the GIL, at that instant.
 * Strings interned.
 */
struct pl_native_thread {
	const char *name;             /* as the kernel has it; NULL: it had ended */
	struct pl_native_line begins; /* the function that it runs, the C library's own left out; module NULL: not known */
	struct pl_frame meanwhile;    /* the program's own frame, where there is one; filename NULL: not known */
};
/* pl_sites_intern_stack() of such a thread. */
uint32_t pl_sites_intern_thread_stack(struct pl_sites *sites, const struct pl_native_line *lines, size_t count, bool more,
				      const struct pl_native_thread *thread);
/* NULL: nothing is known of it, or it is a stack of a thread that runs Python. */
const struct pl_native_thread *pl_sites_stack_thread(const struct pl_sites *sites, uint32_t stack);
/* The same of the stack of a site without Python frames; NULL also of one that has such, or no stack. */
const struct pl_native_thread *pl_sites_thread(const struct pl_sites *sites, uint32_t site);
size_t pl_sites_stack_count(const struct pl_sites *sites);
void pl_sites_set_stack(struct pl_sites *sites, uint32_t site, uint32_t stack);
uint32_t pl_sites_stack(const struct pl_sites *sites, uint32_t site); /* UINT32_MAX: none */

/* A site's frames with its native ones below them, innermost first; of native ones without a name that follow each other
 * in one object, there is one. */
struct pl_traceback {
	size_t count;
	size_t native; /* so many of them, in front, are native */
	bool more;     /* as of pl_sites_trace() */
	bool gap;      /* between the native ones and the others some are not known */
	const char *modules[PL_NATIVE_FRAMES_MAX];
	struct pl_frame frames[PL_TRACEBACK_MAX];
};
void pl_sites_traceback(const struct pl_sites *sites, uint32_t site, struct pl_traceback *ret);

/* The process that what is interned from now on is of; 0, as it is at first: processes are not told apart. */
void pl_sites_set_process(struct pl_sites *sites, pid_t pid);
pid_t pl_sites_process(const struct pl_sites *sites, uint32_t site);
size_t pl_sites_count(const struct pl_sites *sites);
/* The running totals of a site, to be changed in place by an engine. The address holds until the
 * next pl_sites_intern(). Sites 0 to pl_sites_count() − 1 stand in a row. */
struct pl_totals *pl_sites_totals(struct pl_sites *sites, uint32_t site);
/* The frames of a site by their numbers, innermost first; at least one. ret_more may be NULL. */
const uint32_t *pl_sites_trace(const struct pl_sites *sites, uint32_t site, size_t *ret_count, bool *ret_more);
/* Distinct frames of traces and of native stacks are numbered from 0 on, in the order in which they came; each is
 * kept once. Addresses of frames hold as long as the sites. */
const struct pl_frame *pl_sites_frame(const struct pl_sites *sites, uint32_t number);
/* UINT32_MAX: no trace and no native stack has it. */
uint32_t pl_sites_frame_number(const struct pl_sites *sites, const struct pl_frame *frame);
/* The first one of its trace. */
const struct pl_frame *pl_sites_innermost(const struct pl_sites *sites, uint32_t site);
enum pl_site_domain pl_sites_domain(const struct pl_sites *sites, uint32_t site);

/*
 * Whose doing a site is: the innermost frame that is in nobody's site-packages, not in the standard library and no
 * launcher script ("bin/gunicorn"); code without a file ("<string>") only if there is no other. This is the one place
 * that decides it, for rows by caller and for "called from".
 */
enum pl_caller_kind {
	PL_CALLER_OWN,
	PL_CALLER_TASK,    /* there is none within what an event loop called: its outermost frame, the task's coroutine */
	PL_CALLER_LIBRARY, /* all frames are of libraries: the outermost of them that does not merely start threads or modules */
	PL_CALLER_NONE,    /* no Python ran: its one frame */
};
struct pl_caller {
	const struct pl_frame *frame;
	size_t index, count; /* of it, and how many frames the site has */
	enum pl_caller_kind kind;
	bool more; /* further frames were not kept */
};
struct pl_caller pl_sites_caller(const struct pl_sites *sites, uint32_t site);
/* Files that are nobody's own besides: NULL-terminated globs as of pl_rows_options, which must live as long as the sites. */
void pl_sites_set_libraries(struct pl_sites *sites, const char *const *globs);

/* CLOCK_MONOTONIC: when it was made here, which is when its first allocation was noticed. */
int64_t pl_sites_born(const struct pl_sites *sites, uint32_t site);

/* The totals of every site at one moment. Belongs to the sites it was taken from. */
struct pl_snapshot {
	struct pl_sites *sites; /* borrowed */
	int64_t taken_ns;       /* CLOCK_MONOTONIC */
	uint64_t rss;           /* bytes; of the process */
	struct pl_losses losses; /* so far */
	struct pl_account account; /* what the RSS consisted of */
	struct pl_totals *totals; /* [count], indexed by site */
	size_t count;
	struct pl_places *places; /* what of the RSS lies where; NULL: not known */
	int64_t *untouched;       /* [untouched_count], by site: bytes of live blocks that are not in memory; NULL: not known */
	size_t untouched_count;
};
/* Copies the totals as they are now; rss, losses and account are the caller's to fill. NULL: out of memory. */
struct pl_snapshot *pl_snapshot_take(struct pl_sites *sites);
/* NULL: out of memory. */
struct pl_snapshot *pl_snapshot_copy(const struct pl_snapshot *snapshot);
void pl_snapshot_free(struct pl_snapshot *snapshot);

/* Blocks that are older than the recording and were freed between two snapshots (NULL: since the start). The size of some
 * is not known, which are small ones of Python's: in `size` they are as large as the other small ones are on average. */
struct pl_older {
	uint64_t size, count;
	uint64_t sized; /* how many of them are known by size */
};
struct pl_older pl_snapshot_older(const struct pl_snapshot *now, const struct pl_snapshot *before);

enum pl_group {
	PL_GROUP_LINE,
	PL_GROUP_FILE,
	PL_GROUP_FUNCTION,
	PL_GROUP_CALLER, /* the line of pl_sites_caller() */
	PL_GROUP_TRACEBACK,
};
enum pl_sort {
	PL_SORT_SIZE,
	PL_SORT_COUNT,
	PL_SORT_AVERAGE,
	PL_SORT_SIZE_DIFF,
	PL_SORT_COUNT_DIFF,
	PL_SORT_CHURN, /* bytes allocated within the window */
	PL_SORT_AGE,   /* since its first allocation was noticed */
};

/* One row of a report. */
struct pl_row {
	enum pl_site_domain domain;
	pid_t pid; /* 0: processes are not told apart */
	const char *filename;
	const char *function; /* of the line's frame; NULL when grouped by file */
	int line;             /* 0 when grouped by file; first line seen when grouped by function */
	int64_t size, size_diff;   /* live bytes now, and against the older snapshot (or 0) */
	int64_t count, count_diff; /* live blocks */
	int64_t life_diff; /* size_diff without what processes came with or took along: see struct pl_totals */
	/* Allocated and freed between the two (since the start if there is one only); its variances are
	 * those of size and count. */
	struct pl_totals window;
	double size_diff_variance, count_diff_variance; /* at most */
	uint32_t site;             /* the site with most live bytes (diff: most growth) in this row: its traceback */
	int64_t site_size, site_size_diff, site_life_diff, site_count; /* what of this row is that site's alone */
	int64_t born_ns; /* of the oldest of its sites: pl_sites_born() */
	uint32_t number; /* in the order in which the rows were made, for pl_rows_make() alone */
};

struct pl_rows {
	struct pl_row *items; /* sorted; all of them: a limit is the report's affair */
	size_t count;
	struct pl_row total;  /* sums over items */
	uint32_t *row_of_site; /* [site_count]: the item that a site belongs to, with figures or without;
				* UINT32_MAX: none */
	size_t site_count;
};

struct pl_rows_options {
	enum pl_group group_by;
	enum pl_sort sort;
	const char *const *include; /* NULL-terminated globs (fnmatch) on filename, or NULL for all */
	const char *const *exclude; /* by caller they leave nothing out: see pl_sites_set_libraries() */
	bool python, native; /* domains wanted */
};

/*
 * Rows of `now` against `before` (NULL: no differences, window = since the start). Rows with no
 * live block, no difference and no churn are left out. Order: the sort key, largest first
 * (differences: by absolute value, as tracemalloc's compare_to), then size, count, file and line as
 * tracemalloc breaks its ties, so that equal input gives equal output. A glob without '/' also
 * matches the last part of a name.
 */
int pl_rows_make(const struct pl_snapshot *now, const struct pl_snapshot *before, const struct pl_rows_options *options,
		 struct pl_rows *ret);
void pl_rows_free(struct pl_rows *rows);

/* Adds the figures of one row to another's; sums stop at the limits of their type. */
void pl_row_add(struct pl_row *sum, const struct pl_row *row);

/* Whether two rows of the same grouping, perhaps of different snapshots of the same sites, are about the same place. */
bool pl_row_is_same(const struct pl_row *a, const struct pl_row *b, enum pl_group group_by);
/* Whether what a site allocates is counted in this row. */
bool pl_row_has_site(const struct pl_row *row, enum pl_group group_by, const struct pl_sites *sites, uint32_t site);

/* The frame of pl_sites_caller() of the row's main traceback (its `site`). NULL where that is the row's own line, or where
 * no frame is the program's or a task's. */
const struct pl_frame *pl_row_caller(const struct pl_sites *sites, const struct pl_row *row);
/* Whether a file name is the standard library's, an installed package's, or frozen into the interpreter. */
bool pl_is_library(const char *filename);

/* size / count, 0 where count is 0; to the nearest integer, as tracemalloc prints it. */
int64_t pl_row_average(const struct pl_row *row);

#endif
