/* SPDX-License-Identifier: MIT */
#include <stdio.h>

#include "columns.h"
#include "pages.h"
#include "pyleak/cleanup.h"
#include "pyleak/report.h"

/* "20001/20001" at the right edge of the status. */
enum { COUNTER_CELLS = 12 };

/* Lines of the header on a screen so high: the rows are what the view is for. */
static int header_lines(int height)
{
	return height >= 16 ? 4 : height >= 8 ? 2 : height >= 4 ? 1 : 0;
}

static void render_filter(const struct live_model *model, struct live_screen *screen, int y)
{
	struct live_line *line = live_screen_line(screen, y);

	live_put(line, LIVE_BOLD, "filter: ");
	live_put(line, LIVE_PLAIN, model->filter);
	if (!model->filtering)
		return;
	screen->cursor_row = y;
	screen->cursor_column = line && line->cells < line->width ? line->cells : screen->width - 1;
}

/* Of a library's line it is who called it that tells more. */
static bool render_selected_caller(const struct live_model *model, const struct pl_row *row, struct live_line *line)
{
	const struct pl_frame *caller = model->group_by == PL_GROUP_TRACEBACK || model->group_by == PL_GROUP_CALLER ? NULL :
		pl_row_caller(live_model_shown(model)->sites, row);
	pl_autofree char *filename = caller ? pl_printable(caller->filename) : NULL;
	pl_autofree char *source = caller ? live_source(model, caller->filename, caller->line) : NULL;
	pl_autofree char *place = NULL;

	if (!filename || asprintf(&place, "%s:%d", filename, caller->line) < 0) {
		place = NULL; /* asprintf leaves it undefined */
		return false;
	}
	live_put(line, LIVE_DIM, "called from ");
	live_put_tail(line, LIVE_DIM, source ? line->width / 3 : live_line_left(line), place);
	if (source)
		live_putf(line, LIVE_PLAIN, ": %s", source);
	return true;
}

/* What the rows above have no room for: the whole name, the function, the line itself. */
static void render_selected(const struct live_model *model, const struct pl_row *row, struct live_line *line)
{
	pl_autofree char *place = live_format_place(model, row);
	pl_autofree char *function = row->function ? pl_printable(row->function) : NULL;
	pl_autofree char *source = live_source(model, row->filename, live_line(model, row));

	if (!line || !place)
		return;
	line->width -= COUNTER_CELLS;
	if (render_selected_caller(model, row, line)) {
		line->width += COUNTER_CELLS;
		return;
	}
	live_put_tail(line, LIVE_DIM, source ? line->width / 2 : live_line_left(line), place);
	if (function && model->group_by != PL_GROUP_FUNCTION)
		live_putf(line, LIVE_DIM, " in %s", function);
	if (source)
		live_putf(line, LIVE_PLAIN, ": %s", source);
	line->width += COUNTER_CELLS;
}

static void render_status(const struct live_model *model, struct live_screen *screen, int y)
{
	struct live_line *line = live_screen_line(screen, y);
	char rows[LIVE_CELL_MAX];

	if (model->filtering || model->filter[0])
		render_filter(model, screen, y);
	else if (model->note[0])
		live_put(line, LIVE_GREW, model->note);
	else if (model->page == LIVE_PAGE_ROWS && model->shown_count)
		render_selected(model, model->shown[model->selected], line);
	if (model->page != LIVE_PAGE_ROWS || !model->shown_count)
		return;
	(void)snprintf(rows, sizeof(rows), "%zu/%zu", model->selected + 1, model->shown_count);
	live_put_edge(line, LIVE_DIM, rows);
}

static void render_keys(const struct live_model *model, struct live_line *line)
{
	static const char *const keys[][2] = {{"q", "quit"}, {"?", "help"}, {"enter", "open"}, {"s", "sort"},
		{"g", "group"}, {"/", "filter"}, {"b", "baseline"}, {"space", "freeze"}};
	static const char *const keys_of_row[][2] = {{"q", "back"}, {"\u2191\u2193", "scroll"}, {"space", "freeze"}};
	static const char *const keys_of_filter[][2] = {{"enter", "keep"}, {"esc", "clear"}};
	static const char *const keys_of_help[][2] = {{"any key", "back"}};
	const char *const(*shown)[2] = keys;
	size_t count = sizeof(keys) / sizeof(keys[0]);

	if (model->page == LIVE_PAGE_HELP) {
		shown = keys_of_help;
		count = 1;
	} else if (model->page == LIVE_PAGE_ROW) {
		shown = keys_of_row;
		count = sizeof(keys_of_row) / sizeof(keys_of_row[0]);
	} else if (model->filtering) {
		shown = keys_of_filter;
		count = sizeof(keys_of_filter) / sizeof(keys_of_filter[0]);
	}
	for (size_t i = 0; i < count; i++) {
		int cells = live_text_cells(shown[i][0], true) + live_text_cells(shown[i][1], true) + 3;

		if (cells > live_line_left(line) + 2)
			break;
		live_put(line, LIVE_BOLD, shown[i][0]);
		live_putf(line, LIVE_PLAIN, " %s  ", shown[i][1]);
	}
}

int live_render(struct live_model *model, struct live_screen *screen, int height, int width, bool utf8)
{
	int code = live_screen_start(screen, height, width, utf8);
	int header = header_lines(height), footer = height >= 6 ? 2 : height >= 3 ? 1 : 0;

	if (code < 0 || !live_model_shown(model))
		return code;
	live_header_render(model, screen, header);
	if (model->page == LIVE_PAGE_HELP)
		live_help_render(screen, header, height - footer);
	else if (model->page == LIVE_PAGE_ROW)
		live_row_render(model, screen, header, height - footer);
	else
		live_rows_render(model, screen, header, height - footer);
	if (footer == 2)
		render_status(model, screen, height - 2);
	if (footer)
		render_keys(model, live_screen_line(screen, height - 1));
	return 0;
}
