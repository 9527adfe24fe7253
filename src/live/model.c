/* SPDX-License-Identifier: MIT */
#include "model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pyleak/cleanup.h"
#include "pyleak/units.h"

#define FIRST_SPACING_NSEC PL_NSEC_PER_SEC

void live_model_init(struct live_model *model, const struct pl_live_facts *facts, const struct pl_live_options *options)
{
	*model = (struct live_model){
		.facts = *facts,
		.options = *options,
		.group_by = options->rows.group_by,
		.sort = options->rows.sort,
		.history = {.spacing_ns = FIRST_SPACING_NSEC},
	};
}

void live_model_free(struct live_model *model)
{
	pl_snapshot_free(model->now);
	pl_snapshot_free(model->baseline);
	pl_snapshot_free(model->frozen_now);
	pl_snapshot_free(model->frozen_before);
	for (size_t i = 0; i < model->recent_count; i++)
		pl_snapshot_free(model->recent[i]);
	live_history_free(&model->history);
	pl_history_free(model->windows);
	pl_rows_free(&model->rows);
	free(model->shown);
}

const struct pl_snapshot *live_model_shown(const struct live_model *model)
{
	return model->frozen ? model->frozen_now : model->now;
}

static const struct pl_snapshot *compared_with(const struct live_model *model)
{
	if (model->baseline)
		return model->baseline;
	if (model->frozen)
		return model->frozen_before;
	return model->recent_count ? model->recent[0] : NULL;
}

/* The window may be longer than the interval by as much as two recent snapshots are apart. */
static int64_t spacing_of_recent(const struct live_model *model)
{
	return model->options.interval_ns / (LIVE_RECENT_MAX - 2);
}

/* Forgets the oldest ones as long as another one reaches back far enough. */
static void slide(struct live_model *model, int64_t now_ns)
{
	while (model->recent_count > 1 && now_ns - model->recent[1]->taken_ns >= model->options.interval_ns) {
		pl_snapshot_free(model->recent[0]);
		model->recent_count--;
		for (size_t i = 0; i < model->recent_count; i++)
			model->recent[i] = model->recent[i + 1];
	}
}

/* The snapshot before the newest one becomes a recent one, or goes. */
static void retire(struct live_model *model, struct pl_snapshot *old)
{
	const struct pl_snapshot *last = model->recent_count ? model->recent[model->recent_count - 1] : NULL;

	if (!old)
		return;
	if (model->recent_count < LIVE_RECENT_MAX &&
		(!last || old->taken_ns - last->taken_ns >= spacing_of_recent(model)))
		model->recent[model->recent_count++] = old;
	else
		pl_snapshot_free(old);
}

/* Nothing was recorded before the recording began: a snapshot of that moment is empty. */
static void begin(struct live_model *model, const struct pl_snapshot *first)
{
	struct pl_snapshot *empty = model->facts.adopted ? NULL : calloc(1, sizeof(*empty));

	model->first_ns = first->taken_ns;
	model->windows = pl_history_new();
	if (!empty)
		return;
	empty->sites = first->sites;
	empty->taken_ns = model->facts.recording.since_ns;
	empty->rss = model->facts.recording.rss;
	model->recent[model->recent_count++] = empty;
}

/* Windows of verdicts do not slide: each begins where the last one ended. */
static void end_window(struct live_model *model, const struct pl_snapshot *now)
{
	bool first = model->now == NULL;

	if (!model->windows || (!first && now->taken_ns - model->window_began_ns < model->options.interval_ns))
		return;
	if (pl_history_add(model->windows, now) == 0)
		model->window_began_ns = now->taken_ns;
}

int live_model_update(struct live_model *model, struct pl_snapshot *now, const struct pl_live_state *state)
{
	int code = live_history_add(&model->history, now);

	if (code < 0) {
		pl_snapshot_free(now);
		return code;
	}
	if (!model->now)
		begin(model, now);
	end_window(model, now);
	retire(model, model->now);
	model->now = now;
	slide(model, now->taken_ns);
	model->state = *state;
	if (model->frozen)
		return 0;
	code = live_model_compute(model);
	if (code == 0 && model->page == LIVE_PAGE_ROW)
		live_model_look_at_opened(model);
	return code;
}

void live_model_note(struct live_model *model, const char *text)
{
	(void)snprintf(model->note, sizeof(model->note), "%s", text);
}

int live_model_compute(struct live_model *model)
{
	const struct pl_snapshot *now = live_model_shown(model), *before = compared_with(model);
	struct pl_rows_options options = model->options.rows;
	struct pl_rows rows = {0};
	struct pl_row **shown;
	int code;

	if (!now)
		return 0;
	options.group_by = model->group_by;
	options.sort = model->sort;
	code = pl_rows_make(now, before, &options, &rows);
	shown = code == 0 ? reallocarray(model->shown, rows.count + 1, sizeof(struct pl_row *)) : NULL;
	if (!shown) {
		pl_rows_free(&rows);
		return -ENOMEM;
	}
	pl_rows_free(&model->rows);
	model->rows = rows;
	model->shown = shown;
	model->window_ns = before ? now->taken_ns - before->taken_ns : 0;
	live_model_select(model);
	return 0;
}

static bool contains(const char *text, const char *part)
{
	return text && strcasestr(text, part);
}

/* Of a traceback, any frame will do. */
static bool passes(const struct live_model *model, const struct pl_row *row)
{
	if (!model->filter[0] || contains(row->filename, model->filter) || contains(row->function, model->filter))
		return true;
	if (model->group_by != PL_GROUP_TRACEBACK)
		return false;

	const struct pl_sites *sites = live_model_shown(model)->sites;
	size_t count;
	const uint32_t *numbers = pl_sites_trace(sites, row->site, &count, NULL);

	for (size_t i = 0; i < count; i++) {
		const struct pl_frame *frame = pl_sites_frame(sites, numbers[i]);

		if (contains(frame->filename, model->filter) || contains(frame->function, model->filter))
			return true;
	}
	return false;
}

/* As in a report: what came and has all gone says something by its churn only. */
static bool is_quiet(const struct pl_row *row)
{
	return !row->size && !row->count && !row->size_diff && !row->count_diff;
}

void live_model_select(struct live_model *model)
{
	model->shown_count = 0;
	for (size_t i = 0; i < model->rows.count; i++) {
		struct pl_row *row = &model->rows.items[i];

		if ((is_quiet(row) && model->sort != PL_SORT_CHURN) || !passes(model, row))
			continue;
		if (model->following && pl_row_is_same(row, &model->followed, model->group_by))
			model->selected = model->shown_count;
		model->shown[model->shown_count++] = row;
	}
	if (!model->following)
		model->selected = 0;
	if (model->selected >= model->shown_count)
		model->selected = model->shown_count ? model->shown_count - 1 : 0;
}

const struct pl_row *live_model_opened(const struct live_model *model)
{
	for (size_t i = 0; i < model->rows.count; i++)
		if (pl_row_is_same(&model->rows.items[i], &model->opened, model->group_by))
			return &model->rows.items[i];
	return NULL;
}

void live_model_judge(const struct live_model *model, const struct pl_row *const *rows, size_t count,
	struct pl_verdict *ret_verdicts)
{
	/* These rows alone, with the sites that are theirs. */
	struct pl_rows some = {.count = count, .site_count = model->rows.site_count};
	pl_autofree uint32_t *row_of_site = calloc(some.site_count + 1, sizeof(*row_of_site));
	pl_autofree uint32_t *place = malloc((model->rows.count + 1) * sizeof(*place));

	memset(ret_verdicts, 0, count * sizeof(*ret_verdicts));
	if (!row_of_site || !place || !model->windows || pl_history_windows(model->windows) == 0)
		return;
	for (size_t i = 0; i < model->rows.count; i++)
		place[i] = UINT32_MAX;
	for (size_t i = 0; i < count; i++)
		place[rows[i] - model->rows.items] = (uint32_t)i;
	for (size_t site = 0; site < some.site_count; site++) {
		uint32_t item = model->rows.row_of_site[site];

		row_of_site[site] = item < model->rows.count ? place[item] : UINT32_MAX;
	}
	some.row_of_site = row_of_site;
	if (pl_verdicts_make(model->windows, &some, count, ret_verdicts) < 0)
		memset(ret_verdicts, 0, count * sizeof(*ret_verdicts));
}

void live_model_look_at_opened(struct live_model *model)
{
	const struct pl_row *row = live_model_opened(model);

	model->opened_types = (struct pl_row_types){0};
	if (row && model->options.look_at_row)
		model->options.look_at_row(model->options.look_context, live_model_shown(model)->sites, row, model->group_by,
			&model->opened_types);
}
