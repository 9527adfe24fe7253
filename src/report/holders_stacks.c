/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "pyleak/holders_report.h"
#include "pyleak/report.h"
#include "pyleak/stats.h"

/*
 * What is retained, as stacks: from what holds to what is held, so that what is inclusive in a profile is what is retained.
 * Made rows of, as if each node of the tree were a frame, and then printed as all stacks are.
 */

enum { DEPTH_MAX = 64 };

static const char *name_of(const struct pl_held_node *node)
{
	return node->path ? node->path : node->type;
}

/* Innermost first. */
static size_t frames_of(struct pl_sites *sites, const struct pl_held_tree *tree, size_t at, struct pl_frame *frames)
{
	size_t count = 0;

	for (;; at = tree->nodes[at].parent) {
		const struct pl_held_node *node = &tree->nodes[at];

		frames[count] = (struct pl_frame){pl_sites_string(sites, node->path && node->type[0] ? node->type : "objects"),
			pl_sites_string(sites, name_of(node)), 0};
		if (!frames[count].filename || !frames[count].function)
			return 0;
		count++;
		if (node->parent == UINT32_MAX || count == DEPTH_MAX)
			return count;
	}
}

static int fill(struct pl_sites *sites, const struct pl_held_tree *tree)
{
	for (size_t i = 0; i < tree->count; i++) {
		const struct pl_held_node *node = &tree->nodes[i];
		struct pl_frame frames[DEPTH_MAX];
		struct pl_totals *totals;
		size_t count;
		uint32_t site;

		if (!node->own)
			continue;
		count = frames_of(sites, tree, i, frames);
		site = count ? pl_sites_intern(sites, PL_SITE_PYTHON, frames, count, false) : UINT32_MAX;
		if (site == UINT32_MAX)
			return -ENOMEM;
		totals = pl_sites_totals(sites, site);
		totals->allocated_size += node->own;
		totals->allocated_count += node->own_count;
	}
	return 0;
}

int pl_holders_stacks(FILE *out, const struct pl_holders_report *holders, bool folded)
{
	const struct pl_rows_options selection = {.group_by = PL_GROUP_TRACEBACK, .sort = PL_SORT_SIZE, .python = true};
	const struct pl_report_options options = {0};
	struct pl_report report = {.kind = PL_REPORT_TOP, .group_by = PL_GROUP_FUNCTION, .sort = PL_SORT_SIZE};
	struct pl_sites *sites = pl_sites_new();
	struct pl_snapshot *snapshot = NULL;
	struct pl_rows rows = {0};
	int code = sites ? fill(sites, holders->tree) : -ENOMEM;

	if (code == 0) {
		snapshot = pl_snapshot_take(sites);
		code = snapshot ? pl_rows_make(snapshot, NULL, &selection, &rows) : -ENOMEM;
	}
	if (code == 0) {
		report.facts.pid = holders->pid;
		(void)snprintf(report.facts.python, sizeof(report.facts.python), "%s", holders->python);
		(void)clock_gettime(CLOCK_REALTIME, &report.facts.started);
		report.sites = sites;
		report.rows = report.stacks = &rows;
		code = folded ? pl_report_folded(out, &report, &options) : pl_report_pprof(out, &report, &options);
	}
	pl_rows_free(&rows);
	pl_snapshot_free(snapshot);
	pl_sites_free(sites);
	return code;
}
