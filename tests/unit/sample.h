/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_TESTS_SAMPLE_H
#define PYLEAK_TESTS_SAMPLE_H

#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/stats.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* A site from "FILE:LINE:FUNCTION", innermost frame first, frames apart by '|'. */
static inline uint32_t sample_site(struct pl_sites *sites, enum pl_site_domain domain, const char *trace)
{
	char *copy = strdup(trace), *rest = copy, *text;
	struct pl_frame frames[128];
	size_t count = 0;
	uint32_t site;

	while ((text = strsep(&rest, "|")) && *text) {
		char *file = strsep(&text, ":"), *line = strsep(&text, ":");

		cr_assert_lt(count, COUNT(frames));
		frames[count++] = (struct pl_frame){
			.filename = pl_sites_string(sites, file),
			.function = pl_sites_string(sites, text),
			.line = atoi(line),
		};
	}
	site = pl_sites_intern(sites, domain, frames, count, false);
	free(copy);
	cr_assert_neq(site, UINT32_MAX);
	return site;
}

static inline void sample_allocate(struct pl_sites *sites, uint32_t site, uint64_t size, uint64_t count)
{
	pl_sites_totals(sites, site)->allocated_size += size;
	pl_sites_totals(sites, site)->allocated_count += count;
}

static inline void sample_free(struct pl_sites *sites, uint32_t site, uint64_t size, uint64_t count)
{
	pl_sites_totals(sites, site)->freed_size += size;
	pl_sites_totals(sites, site)->freed_count += count;
}

/* What tests/unit/data/compare_to.py writes: blocks of two snapshots, and what tracemalloc makes of them. */
struct sample_trace {
	int snapshot;
	uint64_t size;
	const char *trace;
};

struct sample_row {
	const char *trace; /* oldest frame first, as tracemalloc has it: "FILE:LINE|…" */
	int64_t size, size_diff, count, count_diff;
	const char *text; /* str() of it */
};

struct sample_case {
	const struct sample_trace *traces;
	size_t trace_count;
	enum pl_group group_by;
	bool difference;
	const struct sample_row *rows;
	size_t row_count;
};

/* Both snapshots of a table of traces. */
static inline void sample_snapshots(
	struct pl_sites *sites, const struct sample_trace *traces, size_t count, struct pl_snapshot *ret_snapshots[2])
{
	for (int snapshot = 0; snapshot < 2; snapshot++) {
		for (size_t i = 0; i < count; i++) {
			uint32_t site = sample_site(sites, PL_SITE_PYTHON, traces[i].trace);

			if (snapshot == traces[i].snapshot)
				sample_allocate(sites, site, traces[i].size, 1);
			else if (snapshot == 1)
				sample_free(sites, site, traces[i].size, 1);
		}
		ret_snapshots[snapshot] = pl_snapshot_take(sites);
		cr_assert_not_null(ret_snapshots[snapshot]);
	}
}

#endif
