/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "columns.h"
#include "pages.h"
#include "pyleak/cleanup.h"
#include "pyleak/report.h"

/* The place of a row goes on with its source line where there is room for this much of that. */
enum { SOURCE_FROM_CELLS = 24 };
/* What a row grows like stands before its place. */
enum { TREND_CELLS = 7, TREND_FROM_WIDTH = 72 };

static bool is_column_shown(const struct live_model *model, const struct live_column *column, int width)
{
	return width >= column->from_width || (model->sort == column->sort && width >= 48);
}

static void render_titles(const struct live_model *model, struct live_line *line)
{
	static const char *const places[] = {
		[PL_GROUP_LINE] = "LINE",
		[PL_GROUP_FILE] = "FILE",
		[PL_GROUP_FUNCTION] = "FUNCTION",
		[PL_GROUP_CALLER] = "CALLER",
		[PL_GROUP_TRACEBACK] = "TRACEBACK",
	};

	if (!line)
		return;
	line->style = LIVE_REVERSE;
	for (size_t i = 0; i < LIVE_COLUMN_COUNT; i++) {
		const struct live_column *column = &live_columns_table[i];
		char title[LIVE_CELL_MAX];

		if (!is_column_shown(model, column, line->width))
			continue;
		(void)snprintf(title, sizeof(title), "%s%s", column->title, model->sort == column->sort ? "\u25bc" : "");
		live_put_right(line, model->sort == column->sort ? LIVE_BOLD : LIVE_PLAIN, column->cells, title);
		live_put(line, LIVE_PLAIN, " ");
	}
	if (line->width >= TREND_FROM_WIDTH)
		live_putf(line, LIVE_PLAIN, "%-*s", TREND_CELLS, "TREND");
	live_put(line, LIVE_PLAIN, places[model->group_by]);
	live_pad(line, line->width);
}

/* Of a library's line: who called it. */
static void put_source(const struct live_model *model, const struct pl_row *row, struct live_line *line)
{
	const struct pl_frame *caller = NULL;
	pl_autofree char *source = NULL;

	if (model->group_by == PL_GROUP_FILE || live_line_left(line) < SOURCE_FROM_CELLS)
		return;
	if (model->group_by != PL_GROUP_TRACEBACK && model->group_by != PL_GROUP_CALLER)
		caller = pl_row_caller(live_model_shown(model)->sites, row);
	if (caller) {
		const char *slash = strrchr(caller->filename, '/');
		pl_autofree char *name = pl_printable(slash ? slash + 1 : caller->filename);

		live_putf(line, LIVE_PLAIN, "  called from %s:%d", name ? name : "", caller->line);
		source = live_source(model, caller->filename, caller->line);
	} else {
		source = live_source(model, row->filename, live_line(model, row));
	}
	if (source)
		live_putf(line, LIVE_DIM, "  %s", source);
}

static void put_trend(const struct pl_verdict *verdict, bool selected, struct live_line *line)
{
	static const struct {
		const char *text;
		enum live_style style;
	} trends[] = {
		[PL_GROWTH_NONE] = {"", LIVE_PLAIN},
		[PL_GROWTH_EARLY] = {"", LIVE_PLAIN},
		[PL_GROWTH_STEADY] = {"steady", LIVE_GREW | LIVE_BOLD},
		[PL_GROWTH_LEVELLING] = {"levels", LIVE_PLAIN},
		[PL_GROWTH_NOISE] = {"noise", LIVE_DIM},
		[PL_GROWTH_TURNOVER] = {"turns", LIVE_DIM},
	};

	if (line->width >= TREND_FROM_WIDTH)
		live_putf(line, selected ? LIVE_PLAIN : trends[verdict->growth].style, "%-*s", TREND_CELLS,
			trends[verdict->growth].text);
}

static void render_row(const struct live_model *model, const struct pl_row *row, const struct pl_verdict *verdict,
	bool selected, struct live_line *line)
{
	pl_autofree char *place = live_format_place(model, row);

	if (!line || !place)
		return;
	for (size_t i = 0; i < LIVE_COLUMN_COUNT; i++) {
		const struct live_column *column = &live_columns_table[i];
		char text[LIVE_CELL_MAX];
		enum live_style style;

		if (!is_column_shown(model, column, line->width))
			continue;
		style = column->format(model, row, text);
		live_put_right(line, selected ? LIVE_PLAIN : style, column->cells, text);
		live_put(line, LIVE_PLAIN, " ");
	}
	put_trend(verdict, selected, line);
	if (row->domain == PL_SITE_NATIVE)
		live_put(line, selected ? LIVE_PLAIN : LIVE_DIM, "native ");
	live_put_tail(line, selected ? LIVE_BOLD : LIVE_ACCENT, live_line_left(line), place);
	put_source(model, row, line);
	if (selected) {
		line->style = LIVE_REVERSE;
		live_pad(line, line->width);
	}
}

void live_rows_render(struct live_model *model, struct live_screen *screen, int first, int end)
{
	size_t room = end > first + 1 ? (size_t)(end - first - 1) : 0, count;
	pl_autofree struct pl_verdict *verdicts = NULL;

	render_titles(model, live_screen_line(screen, first));
	model->page_rows = room;
	if (model->selected < model->top)
		model->top = model->selected;
	if (room && model->selected >= model->top + room)
		model->top = model->selected - room + 1;
	if (model->top + room > model->shown_count)
		model->top = model->shown_count > room ? model->shown_count - room : 0;
	if (model->top + room < model->shown_count)
		count = room;
	else
		count = model->shown_count - model->top;
	verdicts = calloc(count + 1, sizeof(*verdicts));
	if (!verdicts)
		return;
	if (screen->width >= TREND_FROM_WIDTH)
		live_model_judge(model, (const struct pl_row *const *)&model->shown[model->top], count, verdicts);
	for (size_t i = 0; i < count; i++)
		render_row(model, model->shown[model->top + i], &verdicts[i], model->top + i == model->selected,
			live_screen_line(screen, first + 1 + (int)i));
	if (!model->shown_count)
		live_put(live_screen_line(screen, first + 2), LIVE_DIM,
			model->filter[0] ? "no row matches the filter" : "nothing was allocated yet that is still live");
}
