/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_TESTS_REPORT_SAMPLE_H
#define PYLEAK_TESTS_REPORT_SAMPLE_H

#include "pyleak/report.h"
#include "sample.h"

/* A report over one set of sites, from the blocks to the document. */
struct report_sample {
	struct pl_sites *sites;
	struct pl_snapshot *before, *now;
	struct pl_rows rows, stacks;
	struct pl_report report;
	struct pl_report_options options;
	int code;	/* what the last print returned */
	char *document; /* and what it printed */
	size_t length;
};

static inline struct report_sample report_sample_new(void)
{
	static const pid_t pids[] = {4711, 4720};

	return (struct report_sample){
		.sites = pl_sites_new(),
		.report =
			{
				.kind = PL_REPORT_DIFF,
				.facts =
					{
						.pid = 4711,
						.python = "3.11.2",
						.engine = "inline",
						.started = {.tv_sec = 1795341600, .tv_nsec = 999999999},
						.frames = 16,
					},
				.pids = pids,
				.pid_count = 1,
				.window_ns = INT64_C(10003000000),
				.stop_ns = 1900000,
				.sort = PL_SORT_SIZE_DIFF,
				.rss_before = 104857600,
				.rss_after = 146800640,
			},
	};
}

/* One block of /app/a.py:1 in each of two processes, told apart. */
static inline void report_sample_of_two_processes(struct report_sample *sample)
{
	const char *file = pl_sites_string(sample->sites, "/app/a.py"), *name = pl_sites_string(sample->sites, "f");
	const struct pl_frame frame = {file, name, 1};
	const pid_t pids[] = {4711, 4720};

	sample->report.kind = PL_REPORT_TOP;
	sample->report.sort = PL_SORT_SIZE;
	sample->report.pid_count = 2;
	sample->report.per_process = true;
	for (int i = 0; i < 2; i++) {
		pl_sites_set_process(sample->sites, pids[i]);
		sample_allocate(sample->sites, pl_sites_intern(sample->sites, PL_SITE_PYTHON, &frame, 1, false),
			8 * (uint64_t)(i + 1), 1);
	}
}

typedef int (*report_printer)(FILE *out, const struct pl_report *report, const struct pl_report_options *options);

static inline const char *report_sample_print(struct report_sample *sample, report_printer print)
{
	struct pl_rows_options options = {
		.group_by = sample->report.group_by,
		.sort = sample->report.sort,
		.python = true,
		.native = true,
	};
	const struct pl_snapshot *before = sample->report.kind == PL_REPORT_DIFF ? sample->before : NULL;
	FILE *out;

	if (!sample->now)
		sample->now = pl_snapshot_take(sample->sites);
	pl_rows_free(&sample->rows);
	pl_rows_free(&sample->stacks);
	cr_assert_eq(pl_rows_make(sample->now, before, &options, &sample->rows), 0);
	options.group_by = PL_GROUP_TRACEBACK;
	cr_assert_eq(pl_rows_make(sample->now, before, &options, &sample->stacks), 0);
	sample->report.sites = sample->sites;
	sample->report.rows = &sample->rows;
	sample->report.stacks = &sample->stacks;
	free(sample->document);
	out = open_memstream(&sample->document, &sample->length);
	cr_assert_not_null(out);
	sample->code = print(out, &sample->report, &sample->options);
	cr_assert_eq(fclose(out), 0);
	cr_assert_eq(sample->code, 0);
	return sample->document;
}

static inline void report_sample_free(struct report_sample *sample)
{
	free(sample->document);
	pl_rows_free(&sample->rows);
	pl_rows_free(&sample->stacks);
	pl_snapshot_free(sample->before);
	pl_snapshot_free(sample->now);
	pl_sites_free(sample->sites);
}

#endif
