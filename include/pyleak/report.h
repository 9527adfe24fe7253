/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_REPORT_H
#define PYLEAK_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "pyleak/account.h"
#include "pyleak/causes.h"
#include "pyleak/collector.h"
#include "pyleak/facts.h"
#include "pyleak/headroom.h"
#include "pyleak/holders.h"
#include "pyleak/places.h"
#include "pyleak/pools.h"
#include "pyleak/row_types.h"
#include "pyleak/stats.h"
#include "pyleak/text.h"
#include "pyleak/verdict.h"

/*
 * Rows to documents. One file here for each format, and one table of them (formats.c). What each
 * looks like is specified in pyleak-formats(5).
 */

enum pl_format {
	PL_FORMAT_TEXT,
	PL_FORMAT_JSON,
	PL_FORMAT_CSV,
	PL_FORMAT_FOLDED,
	PL_FORMAT_SPEEDSCOPE,
	PL_FORMAT_PPROF,
	PL_FORMAT_HTML,
	PL_FORMAT_OPENMETRICS,
	PL_FORMAT_HEAPSNAPSHOT, /* of holders alone: holders.h */
	PL_FORMAT_RECORDING, /* no report: recording_file.h */
	PL_FORMAT_COUNT
};

enum pl_report_kind { PL_REPORT_TOP, PL_REPORT_DIFF };

/* What a row grew by over all windows of a recording. */
struct pl_grown {
	const struct pl_row *row;
	int64_t size;
	struct pl_verdict verdict;
};
enum { PL_GROWN_ROWS = 5 };

/* A loaded object that calls native allocators in ways of which some are not recorded. */
struct pl_unrecorded {
	const char *path;
	uint32_t words; /* so many words that lead to an allocator */
	const char *why;
};

struct pl_report {
	const char *host; /* openmetrics: where it is recorded, a label of each series; NULL: none */
	enum pl_report_kind kind;
	struct pl_facts facts; /* of the recording */
	const pid_t *pids; /* all the processes it is about, facts.pid mostly the first */
	size_t pid_count;
	bool per_process; /* rows are those of one process each: pl_row.pid */
	int64_t window_ns;
	int64_t taken_ns; /* the end of the window */
	size_t window, windows; /* which of how many; 0: it is the only one, and how many there will be is not known */
	struct pl_grown grown[PL_GROWN_ROWS]; /* most of all over all windows, the largest first */
	size_t grown_count, grown_windows; /* windows 0: that is not asked for */
	int64_t grown_ns;
	bool two_recordings; /* what is live is set against what was in another one: nothing grew from the one to the other */
	int64_t stop_ns; /* the longest stop so far */
	enum pl_group group_by;
	enum pl_sort sort;
	uint64_t rss_before, rss_after;
	const struct pl_account *account_before, *account_after; /* NULL: none */
	struct pl_rss_growth growth;                                 /* from the one to the other */
	struct pl_losses losses; /* within the window */
	struct pl_collector collector, collector_before; /* now, and when the recording began; not known of several processes */
	int64_t last_full_ns; /* ago: a full collection was noticed; 0: none was */
	struct pl_older older;   /* what was freed in it that is older than the recording */
	int64_t rounding;        /* what allocators added in it to the sizes of what the rows have; 0 also where that is not known */
	const struct pl_places *places_before; /* NULL: not known */
	struct pl_places_growth places; /* what grew of what lies where */
	struct pl_pools pools; /* allocators that are linked in, and what they grew by */
	const struct pl_unrecorded *unrecorded; /* [unrecorded_count]; NULL: there are none, or none are known (of a recording) */
	size_t unrecorded_count;
	const struct pl_sites *sites;
	const struct pl_rows *rows;
	const struct pl_verdict *verdicts; /* [verdict_count], of the first rows; NULL: none */
	size_t verdict_count;
	const struct pl_cause *const *causes; /* [cause_count], of the first rows; NULL: none known, or it does not grow */
	size_t cause_count;
	const int64_t *touched; /* [rows->count]: bytes of older blocks that came into memory now; NULL: not known */
	const struct pl_row_types *types; /* [type_count], of the first rows; NULL: not looked at */
	size_t type_count;
	const struct pl_held_row *held; /* [held_count], of the first rows: who keeps them; NULL: nobody asked */
	size_t held_count;
	struct pl_headroom headroom; /* beside verdicts; limit 0: not known */
	const struct pl_rows *stacks; /* the same by traceback, where the format is made of stacks; else NULL */
	const struct pl_history *history; /* the snapshots up to this report; NULL: none */
};

struct pl_report_options {
	size_t limit;  /* 0: all */
	bool color;
	bool allocated; /* pprof: what is shown first is what was allocated, and not what is live */
	bool traceback; /* text: whole tracebacks (with -g traceback, each row; else that of the largest row) */
	pid_t source_pid; /* whose file system source lines are read from; 0: no source lines */
	/* Where they come from instead, if it is set; as pl_source_line() otherwise. */
	char *(*source)(void *context, const char *filename, int line);
	/* Beside it: where the function begins that a line is in, 0 if that is not known; NULL: by the source. */
	int (*definition)(void *context, const char *filename, const char *function, int line);
	void *source_context;
};

struct pl_report_format {
	const char *name; /* as --format takes it */
	/* 0 or -errno of the stream. NULL: it is not made from a report. */
	int (*print)(FILE *out, const struct pl_report *report, const struct pl_report_options *options);
	const char *suffix; /* names of files that get this format without being told; NULL: none */
	bool repeats; /* one report may follow another; else a document is the whole, and comes once */
	bool stacks;  /* made of pl_report.stacks */
	bool binary;  /* not for a terminal */
	bool snapshots; /* shows what was between the first and the last of them */
};
const struct pl_report_format *pl_report_format(enum pl_format format);
/* The format whose suffix this name has; PL_FORMAT_TEXT if none. */
enum pl_format pl_report_format_of_file(const char *name);

int pl_report_text(FILE *out, const struct pl_report *report, const struct pl_report_options *options);
/* One document on one line, newline included. */
int pl_report_json(FILE *out, const struct pl_report *report, const struct pl_report_options *options);
/* RFC 4180, one record a row. */
int pl_report_csv(FILE *out, const struct pl_report *report, const struct pl_report_options *options);
/* One line a stack, as flamegraph.pl reads it; a difference has two numbers on each line. */
int pl_report_folded(FILE *out, const struct pl_report *report, const struct pl_report_options *options);
/* https://www.speedscope.app/file-format-schema.json */
int pl_report_speedscope(FILE *out, const struct pl_report *report, const struct pl_report_options *options);

/* The gzipped protobuf of pprof: allocated and live, blocks and bytes. A difference stands as `pprof
 * -diff_base` makes one. */
int pl_report_pprof(FILE *out, const struct pl_report *report, const struct pl_report_options *options);

/* One page with everything in it, for a browser: flame graph, rows, and what they were over time. */
int pl_report_html(FILE *out, const struct pl_report *report, const struct pl_report_options *options);

/* OpenMetrics 1.0, for Prometheus: a series a row. */
int pl_report_openmetrics(FILE *out, const struct pl_report *report, const struct pl_report_options *options);

/* Whether most of the growth of the resident size is in no row, and is not fragmentation. */
bool pl_report_is_in_no_row(const struct pl_report *report);
/* Whether its figures are estimates, from the start (--sample) or by now (--tables). */
static inline bool pl_report_is_estimate(const struct pl_report *report)
{
	return report->facts.sample || report->losses.sampling;
}

/* What all rows grew by, less what older blocks were freed meanwhile: both with what allocators add to their sizes. */
int64_t pl_report_net_growth(const struct pl_report *report);

/* What there is to say of a verdict, on one line without a newline: "steady growth over 5 windows: +1.2 MiB/h
 * (1.1 to 1.3), …". Empty where the row does not grow. */
enum { PL_VERDICT_TEXT = 256 };
void pl_verdict_text(const struct pl_verdict *verdict, const struct pl_headroom *headroom, char text[PL_VERDICT_TEXT]);

/* What there is to say of who called the line of a row, on one line: "called from FILE:LINE (FUNCTION)", by caller what it
 * called, or that all frames kept are of libraries, and which option shows more. *ret_frame: whose source goes with it, or
 * NULL. `frames`: as many were kept at most. NULL: nothing, or out of memory. The caller frees it. */
char *pl_caller_text(const struct pl_sites *sites, const struct pl_row *row, enum pl_group group_by, int frames,
		     const struct pl_frame **ret_frame);

/* What is known of the thread that a row's largest stack is of, where that is a library's own: "NAME, runs FUNCTION (OBJECT)", and
 * "FILE:LINE" of what Python did meanwhile, which is a hint; each NULL where there is nothing to say. The caller frees both. */
struct pl_thread_texts {
	char *thread, *meanwhile;
};
struct pl_thread_texts pl_thread_texts_of(const struct pl_sites *sites, const struct pl_row *row);
void pl_thread_texts_free(struct pl_thread_texts *texts);

/* The known cause that the traceback of a site fits, and the sources in the file system of `source_pid` (0: without
 * them); NULL: none, or out of memory. */
const struct pl_cause *pl_known_cause(const struct pl_sites *sites, uint32_t site, const struct pl_cause_facts *facts,
				      pid_t source_pid);
/* What conditions on causes are about; pid 0: of no process that is there. `python`: its version, or NULL. */
struct pl_cause_facts pl_cause_facts_read(pid_t pid, const char *python);

/* The line of the `def` of the function that a line is in, by its source from there upwards; 0 where that is not to be
 * found: a lambda, a module, a source that cannot be had. */
int pl_source_definition(pid_t pid, const char *filename, const char *function, int line);

/* One line of a source file (1-based), without indentation and newline, from the file system of
 * `pid`; NULL if it cannot be had. The caller frees it. Files are cached for the run of the
 * program, at most 64 of them and 8 MiB each; what is not a regular file is not opened. */
char *pl_source_line(pid_t pid, const char *filename, int line);

#endif
