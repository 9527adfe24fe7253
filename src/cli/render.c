/* SPDX-License-Identifier: MIT */
#include "render.h"

#include "over_all.h"
#include "row_order.h"

#include <math.h>

#include <errno.h>
#include <stdlib.h>

#include "pyleak/cleanup.h"
#include "pyleak/log.h"
#include "pyleak/units.h"

/* With fewer there is no verdict but "too early". */
#define LEAST_WINDOWS 3
#define JUDGED_ROWS 200 /* at least: as many are looked at for known causes */
#define CAUSE_LEAST_SHARE 0.01 /* of all growth: what a cause has whose rows are not known to be steady */
#define CAUSE_LEAST_BYTES 256.0

static int64_t growth_of(const struct pl_row *row, enum pl_report_kind kind)
{
	return kind == PL_REPORT_DIFF ? row->size_diff : row->size;
}

/* Said on stderr too: where the report goes into a file, a log has nothing but the exit status otherwise. */
static bool exceeds(const struct pl_options *options, const struct pl_rows *rows, enum pl_report_kind kind)
{
	const struct pl_row *largest = rows->items;
	char size[PL_SIZE_TEXT], place[32] = "";
	int64_t growth;

	if (!options->fail_above_set || !rows->count)
		return false;
	for (size_t i = 1; i < rows->count; i++)
		if (growth_of(&rows->items[i], kind) > growth_of(largest, kind))
			largest = &rows->items[i];
	growth = growth_of(largest, kind);
	if (growth <= 0 || (uint64_t)growth <= options->fail_above)
		return false;
	pl_format_size(growth, false, size);
	if (largest->line)
		(void)snprintf(place, sizeof(place), ":%d", largest->line);
	pl_log_error("%s%s grew by %s, which is more than --fail-above allows", largest->filename, place, size);
	return true;
}

static uint64_t magnitude(int64_t number)
{
	return number < 0 ? -(uint64_t)number : (uint64_t)number;
}

/* Of all blocks, not of those alone whose rows are wanted. */
static void explain_growth(struct pl_report *report, const struct pl_snapshot *now, const struct pl_snapshot *before)
{
	uint64_t size = 0, count = 0, rounding = 0; /* may wrap: a hostile process can claim anything */

	report->rounding = 0;
	if (!report->account_before || !report->account_after)
		return;
	for (size_t site = 0; site < now->count; site++) {
		const struct pl_totals *totals = &now->totals[site];
		const struct pl_totals none = {0}, *old = before && site < before->count ? &before->totals[site] : &none;
		/* Within the lives of processes: what went with one that ended is apart. */
		int64_t site_size = (int64_t)(totals->allocated_size - totals->freed_size + totals->apart_size -
					      (old->allocated_size - old->freed_size + old->apart_size));
		int64_t site_count = (int64_t)(totals->allocated_count - totals->freed_count + totals->apart_count -
					       (old->allocated_count - old->freed_count + old->apart_count));

		if (pl_sites_domain(now->sites, (uint32_t)site) >= PL_SITE_OLDER)
			continue;
		size += (uint64_t)site_size;
		count += (uint64_t)site_count;
		/* By what its blocks have on average, should there be nothing better. */
		if (site_count && (site_size < 0) == (site_count < 0)) {
			uint64_t average = magnitude(site_size) / magnitude(site_count);

			rounding += (uint64_t)site_count * pl_account_rounding(average, report->account_after->alignment);
		}
	}
	if (report->account_after->rounding >= 0 && magnitude((int64_t)count) < UINT32_MAX)
		rounding = (uint64_t)llround(report->account_after->rounding * (double)(int64_t)count);
	report->rounding = (int64_t)rounding;
	pl_rss_growth_compute(report->account_before, report->account_after, (int64_t)size, (int64_t)rounding,
		(int64_t)report->older.size, &report->growth);
	pl_places_explain(report->two_recordings ? NULL : report->places_before, now->places, report->account_before,
		report->account_after, &report->growth, &report->places);
	if (report->growth.known)
		pl_pools_make(now, before, report->growth.causes[PL_CAUSE_POOLS], &report->pools);
}

/* What was allocated before and is written to only now is in no row's growth, but in that of the process. */
static int64_t *find_touched(const struct pl_report *report, const struct pl_snapshot *now, const struct pl_snapshot *before)
{
	const struct pl_rows *rows = report->rows;
	int64_t *touched;

	if (!before || report->two_recordings || !before->untouched || !now->untouched)
		return NULL;
	touched = calloc(rows->count + 1, sizeof(*touched));
	for (size_t site = 0; touched && site < now->untouched_count && site < before->untouched_count; site++)
		if (site < rows->site_count && rows->row_of_site[site] < rows->count)
			touched[rows->row_of_site[site]] += before->untouched[site] - now->untouched[site];
	/* Not what was freed untouched. */
	for (size_t row = 0; touched && row < rows->count; row++) {
		touched[row] += rows->items[row].size_diff < 0 ? rows->items[row].size_diff : 0;
		if (touched[row] < 0)
			touched[row] = 0;
	}
	return touched;
}

static size_t shown_count(const struct pl_options *options, const struct pl_rows *rows)
{
	return options->limit && options->limit < rows->count ? options->limit : rows->count;
}

/* Whatever is shown: causes are told of rows that are not, too. */
static size_t judged_count(const struct pl_options *options, const struct pl_rows *rows)
{
	size_t shown = shown_count(options, rows), least = rows->count < JUDGED_ROWS ? rows->count : JUDGED_ROWS;

	return shown > least ? shown : least;
}

/* What grows for a while does so for many reasons; a cause that is known is one of them if the growth goes on. */
static bool may_have_cause(const struct pl_report *report, size_t row)
{
	if (row < report->verdict_count && report->verdicts[row].growth != PL_GROWTH_EARLY)
		return report->verdicts[row].growth == PL_GROWTH_STEADY;
	return report->kind == PL_REPORT_DIFF && report->rows->items[row].size_diff > 0;
}

static bool is_steady(const struct pl_report *report, size_t row)
{
	return row < report->verdict_count && report->verdicts[row].growth == PL_GROWTH_STEADY;
}

/* Of tasks, timers, queues there are now a few more and now a few less: that is no cause of what else grows. */
static void forget_trifles(const struct pl_report *report, const struct pl_cause **causes, size_t count)
{
	double all = 0, least;

	for (size_t row = 0; row < report->rows->count; row++)
		all += fmax((double)report->rows->items[row].size_diff, 0);
	least = fmax(CAUSE_LEAST_SHARE * all, CAUSE_LEAST_BYTES);
	for (size_t first = 0; first < count; first++) {
		const struct pl_cause *cause = causes[first];
		double grown = 0;
		bool told = false;

		for (size_t row = 0; cause && !told && row < count; row++)
			if (causes[row] == cause) {
				grown += (double)report->rows->items[row].size_diff;
				told |= row < first || is_steady(report, row);
			}
		if (!cause || told || grown >= least)
			continue;
		for (size_t row = first; row < count; row++)
			causes[row] = causes[row] == cause ? NULL : causes[row];
	}
}

static int find_causes(const struct pl_options *options, struct pl_report *report,
	const struct pl_report_options *form, const struct pl_cause ***ret)
{
	size_t count = judged_count(options, report->rows);
	struct pl_cause_facts facts = pl_cause_facts_read(form->source_pid, report->facts.python);

	*ret = calloc(count ? count : 1, sizeof(void *));
	if (!*ret)
		return -ENOMEM;
	for (size_t row = 0; row < count; row++) {
		facts.types = report->types && row < report->type_count ? &report->types[row] : NULL;
		if (may_have_cause(report, row))
			(*ret)[row] = pl_known_cause(report->sites, report->rows->items[row].site, &facts, form->source_pid);
	}
	if (report->kind == PL_REPORT_DIFF)
		forget_trifles(report, *ret, count);
	report->causes = *ret;
	report->cause_count = count;
	return 0;
}

static int judge(const struct pl_options *options, struct pl_report *report, const struct pl_report_options *form,
	const struct pl_history *history, struct pl_verdict **ret)
{
	size_t count = judged_count(options, report->rows);

	*ret = calloc(count ? count : 1, sizeof(**ret));
	if (!*ret)
		return -ENOMEM;
	report->verdicts = *ret;
	report->verdict_count = count;
	/* What cannot be known is left out of the report; of a recording the process is no longer that one. */
	if (!form->source_pid || pl_headroom_read("", report->facts.pid, &report->headroom) < 0)
		report->headroom = (struct pl_headroom){0};
	return pl_verdicts_make(history, report->rows, count, *ret);
}

/* The window: what was before it is the older snapshot, or the start of the recording. */
static void fill_window(struct pl_report *report, const struct pl_snapshot *now, const struct pl_snapshot *before)
{
	/* Another recording began with nothing too: neither its resident size nor what it lost goes on in this one. */
	bool same = !report->two_recordings;

	report->taken_ns = now->taken_ns;
	report->window_ns = now->taken_ns - (before ? before->taken_ns : report->facts.since_ns);
	report->rss_before = before ? before->rss : report->facts.rss;
	report->rss_after = now->rss;
	report->account_before = !same ? NULL : before ? &before->account : &report->facts.account;
	report->account_after = &now->account;
	report->losses = pl_losses_since(&now->losses, before && same ? &before->losses : NULL);
}

int pl_render_for(const struct pl_options *options, struct pl_report *report, const struct pl_report_options *form,
	const struct pl_snapshot *now, const struct pl_snapshot *before, const struct pl_history *history, bool over_all,
	const struct pl_render_use *use, bool *ret_exceeded)
{
	const struct pl_report_format *format = pl_report_format(options->format);
	struct pl_rows_options selection = pl_rows_wanted(options);
	struct pl_rows rows = {0}, stacks = {0};
	pl_autofree struct pl_verdict *verdicts = NULL;
	pl_autofree int64_t *touched = NULL;
	pl_autofree const struct pl_cause **causes = NULL;
	int code = pl_rows_in_order(options, history, now, before, &rows);

	*ret_exceeded = code == 0 && exceeds(options, &rows, report->kind);
	/* By caller what is excluded is charged to another row, and in no other stack. */
	if (selection.group_by == PL_GROUP_CALLER)
		selection.exclude = NULL;
	selection.group_by = PL_GROUP_TRACEBACK;
	if (code == 0 && (format->stacks || use->stacks))
		code = pl_rows_make(now, before, &selection, &stacks);
	fill_window(report, now, before);
	if (!report->two_recordings)
		report->older = pl_snapshot_older(now, before);
	explain_growth(report, now, before);
	report->group_by = options->group_by;
	report->sort = options->sort;
	report->sites = now->sites;
	report->rows = &rows;
	report->history = history;
	report->stacks = format->stacks || use->stacks ? &stacks : NULL;
	if (code == 0 && history && pl_history_windows(history) >= LEAST_WINDOWS)
		code = judge(options, report, form, history, &verdicts);
	/* When most of it is elsewhere, no row fills the memory. */
	if (pl_report_is_in_no_row(report))
		report->headroom = (struct pl_headroom){0};
	/* Nor is it beside a row that grows steadily: there the holes are what is left between its blocks. */
	for (size_t i = 0; i < report->verdict_count; i++)
		if (report->verdicts[i].growth == PL_GROWTH_STEADY)
			report->growth.fragmentation = false;
	report->grown_windows = report->grown_count = 0;
	if (code == 0 && history && over_all)
		code = pl_over_all_make(report, history);
	touched = code == 0 ? find_touched(report, now, before) : NULL;
	report->touched = touched;
	if (code == 0)
		code = find_causes(options, report, form, &causes);
	if (code == 0)
		code = use->use(use->context, report);
	report->rows = report->stacks = NULL;
	report->verdicts = NULL;
	report->touched = NULL;
	report->verdict_count = 0;
	report->causes = NULL;
	report->cause_count = 0;
	pl_rows_free(&rows);
	pl_rows_free(&stacks);
	return code;
}

struct printing {
	const struct pl_report_format *format;
	const struct pl_report_options *form;
	FILE *out;
};

static int print(void *context, const struct pl_report *report)
{
	const struct printing *printing = context;

	return printing->format->print ? printing->format->print(printing->out, report, printing->form) : 0;
}

int pl_render(const struct pl_options *options, struct pl_report *report, const struct pl_report_options *form,
	const struct pl_snapshot *now, const struct pl_snapshot *before, const struct pl_history *history, bool over_all,
	FILE *out, bool *ret_exceeded)
{
	struct printing printing = {pl_report_format(options->format), form, out};
	const struct pl_render_use use = {print, &printing, false};

	return pl_render_for(options, report, form, now, before, history, over_all, &use, ret_exceeded);
}
