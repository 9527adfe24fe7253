/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "chart.h"
#include "columns.h"
#include "pages.h"
#include "pyleak/cleanup.h"
#include "pyleak/report.h"
#include "pyleak/units.h"

#define SLOW_PER_MINUTE 10240.0
enum { SPARKLINE_MAX = 40, SPARKLINE_FROM_WIDTH = 72 };

static void put_size(struct live_line *line, unsigned int style, int64_t bytes, bool sign)
{
	char text[PL_SIZE_TEXT];

	pl_format_size(bytes, sign && bytes, text);
	live_put(line, style, text);
}

/* In the unit of what it is a change of. */
static void put_change(struct live_line *line, int64_t bytes, int64_t size)
{
	char text[PL_SIZE_TEXT];

	pl_format_size_like(bytes, bytes != 0, size, text);
	live_put(line, bytes > 0 ? LIVE_GREW : bytes < 0 ? LIVE_SHRANK : LIVE_PLAIN, text);
}

/* Of what is slow a minute would show nothing. */
static void put_rate(struct live_line *line, double per_minute)
{
	bool slow = fabs(per_minute) < SLOW_PER_MINUTE;

	put_size(line, LIVE_PLAIN, (int64_t)(slow ? 60 * per_minute : per_minute), true);
	live_put(line, LIVE_PLAIN, slow ? "/h" : "/min");
}

static void put_duration(struct live_line *line, int64_t ns)
{
	char text[PL_SIZE_TEXT];

	pl_format_duration(ns, text);
	live_put(line, LIVE_PLAIN, text);
}

static void render_title(const struct live_model *model, struct live_line *line)
{
	const struct pl_live_facts *facts = &model->facts;
	const struct pl_snapshot *now = live_model_shown(model);
	pl_autofree char *command = pl_printable(facts->command);
	char age[LIVE_CELL_MAX], recorded[PL_SIZE_TEXT], state[2 * PL_SIZE_TEXT];
	int width;

	if (!line || !now)
		return;
	pl_format_duration(now->taken_ns - facts->recording.since_ns, recorded);
	(void)snprintf(state, sizeof(state), "%s %s", model->frozen ? "FROZEN at" : "recorded", recorded);
	/* What the process is may be cut; how long it was looked at is not. */
	width = line->width;
	line->width -= live_text_cells(state, line->utf8) + 2;
	if (line->width < 16)
		line->width = width;
	live_putf(line, LIVE_BOLD | LIVE_ACCENT, "%d", (int)facts->recording.pid);
	if (model->state.processes > 1)
		live_putf(line, LIVE_PLAIN, " and %zu more", model->state.processes - 1);
	if (facts->recording.python[0])
		live_putf(line, LIVE_PLAIN, " Python %s", facts->recording.python);
	live_format_age(now->taken_ns - facts->process_ns, age);
	live_putf(line, LIVE_PLAIN, " up %s ", age);
	if (command)
		live_put(line, LIVE_DIM, command);
	line->width = width;
	live_put_edge(line, model->frozen ? LIVE_REVERSE : LIVE_PLAIN, state);
}

static void put_sparkline(
	const struct live_model *model, struct live_line *line, const double values[LIVE_POINTS_MAX])
{
	char text[3 * SPARKLINE_MAX + 1];
	size_t width = SPARKLINE_MAX;

	if (!line || line->width < SPARKLINE_FROM_WIDTH)
		return;
	if (line->width < 4 * SPARKLINE_MAX)
		width = (size_t)line->width / 4;
	live_sparkline(values, model->history.count, width, line->utf8, text);
	/* All of them begin at one column. */
	if (line->cells + 2 > line->width - (int)width)
		return;
	live_pad(line, line->width - (int)width);
	live_put(line, LIVE_ACCENT, text);
}

static void render_rss(const struct live_model *model, struct live_line *line)
{
	const struct pl_snapshot *now = live_model_shown(model);
	double values[LIVE_POINTS_MAX];

	live_put(line, LIVE_DIM, "RSS     ");
	if (!now->rss) {
		live_put(line, LIVE_PLAIN, "not known");
		return;
	}
	put_size(line, LIVE_BOLD, (int64_t)now->rss, false);
	if (model->facts.recording.rss) {
		live_put(line, LIVE_PLAIN, ", ");
		put_change(line, (int64_t)(now->rss - model->facts.recording.rss), (int64_t)now->rss);
		live_put(line, LIVE_PLAIN, " since recording began");
	}
	for (size_t i = 0; i < model->history.count; i++)
		values[i] = (double)model->history.points[i].rss;
	put_sparkline(model, line, values);
}

/* A recording begins with nothing: what is live now is what it saw grow. */
static void render_tracked(const struct live_model *model, struct live_line *line)
{
	const struct pl_row *total = &model->rows.total;
	double values[LIVE_POINTS_MAX];

	live_put(line, LIVE_DIM, "tracked ");
	put_size(line, LIVE_BOLD, total->size, false);
	if (model->window_ns) {
		double minutes = (double)model->window_ns / (60.0 * PL_NSEC_PER_SEC);

		live_put(line, LIVE_PLAIN, ", ");
		put_change(line, total->size_diff, total->size);
		live_put(line, LIVE_PLAIN, model->baseline ? " since baseline, " : " in ");
		put_duration(line, model->window_ns);
		live_put(line, LIVE_PLAIN, ", ");
		put_rate(line, (double)total->size_diff / minutes);
	} else if (model->baseline) {
		live_put(line, LIVE_PLAIN, ", the new baseline");
	}
	for (size_t i = 0; i < model->history.count; i++)
		values[i] = model->history.points[i].tracked;
	put_sparkline(model, line, values);
}

static void render_cost(const struct live_model *model, struct live_line *line)
{
	const struct pl_snapshot *now = live_model_shown(model);
	const struct pl_totals *window = &model->rows.total.window;
	int64_t window_ns = model->window_ns ? model->window_ns : now->taken_ns - model->facts.recording.since_ns;

	live_put(line, LIVE_DIM, "cost    ");
	if (model->facts.adopted && !model->state.stop_ns) {
		live_put(line, LIVE_PLAIN, "probe was there");
	} else {
		live_put(line, LIVE_PLAIN, "stopped for ");
		put_duration(line, model->state.stop_ns);
	}
	if (model->state.memory) {
		live_put(line, LIVE_PLAIN, ", tables ");
		put_size(line, LIVE_PLAIN, (int64_t)model->state.memory, false);
	}
	if (window_ns > 0)
		live_putf(line, LIVE_PLAIN, ", %.0f allocations/s",
			(double)window->allocated_count * PL_NSEC_PER_SEC / (double)window_ns);
	if (model->state.collector_off)
		live_put(line, LIVE_GREW, ", GC off");
	else if (model->state.collector_counted)
		live_putf(line, LIVE_PLAIN, ", %" PRIu64 " full GC", model->state.full);
	if (model->facts.recording.sample) {
		live_put(line, LIVE_PLAIN, ", sampled by ");
		put_size(line, LIVE_PLAIN, (int64_t)model->facts.recording.sample, false);
	}
	if (now->losses.events)
		live_putf(line, LIVE_GREW, ", lost %" PRIu64 " events", now->losses.events);
	if (now->losses.sites)
		live_putf(line, LIVE_GREW, ", %" PRIu64 " without a line", now->losses.sites);
}

void live_header_render(const struct live_model *model, struct live_screen *screen, int lines)
{
	static void (*const renderers[])(const struct live_model *model, struct live_line *line) = {
		render_title, render_tracked, render_rss, render_cost};

	for (int i = 0; i < lines && live_model_shown(model); i++)
		renderers[i](model, live_screen_line(screen, i));
}
