/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "chart.h"
#include "columns.h"
#include "pages.h"
#include "pyleak/causes.h"
#include "pyleak/cleanup.h"
#include "pyleak/report.h"
#include "pyleak/units.h"

enum { LINE_CELLS = sizeof("\", line ") - 1 };
enum { MARK_CELLS = 16 };
enum { LABEL_CELLS = 10, CHART_HEIGHT_MAX = 8, CHART_FROM_LINES = 10, LOW_CHART_HEIGHT = 4 };
/* Of the traceback, below which the whole page is scrolled; and of what stands above it, at most. */
enum { FRAMES_LINES_MIN = 4, HEAD_LINES_MAX = 80 };

static int render_figures(const struct live_model *model, const struct pl_row *row, struct live_screen *screen, int y)
{
	struct live_line *line = live_screen_line(screen, y++);
	pl_autofree char *place = live_format_place(model, row);
	pl_autofree char *function = row->function ? pl_printable(row->function) : NULL;
	char text[LIVE_CELL_MAX];

	if (line)
		line->style = LIVE_REVERSE;
	if (place)
		live_put_tail(line, LIVE_BOLD, live_line_left(line), place);
	if (function && model->group_by != PL_GROUP_FUNCTION)
		live_putf(line, LIVE_PLAIN, " in %s", function);
	live_pad(line, live_line_left(line) + (line ? line->cells : 0));

	line = live_screen_line(screen, y++);
	for (size_t i = 0; i < LIVE_COLUMN_COUNT; i++) {
		static const char *const names[LIVE_COLUMN_COUNT] = {
			"size", "", "count", "", "average", "churn", "age"};
		enum live_style style = live_columns_table[i].format(model, row, text);
		bool change = !names[i][0];

		if (!text[0])
			continue;
		/* A figure that has no room left goes to the next line. */
		if (!change && line && line->cells &&
			live_line_left(line) < 2 + (int)strlen(names[i]) + 1 + live_text_cells(text, screen->utf8) + 2)
			line = live_screen_line(screen, y++);
		if (change)
			live_put(line, LIVE_PLAIN, " (");
		else
			live_putf(line, LIVE_DIM, "%s%s=", line && line->cells ? ", " : "", names[i]);
		live_put(line, style, text);
		live_put(line, LIVE_PLAIN, change ? ")" : i == LIVE_COLUMN_COUNT - 2 && !strchr(text, '/') ? "/s" : "");
	}
	return y;
}

/* Who of the native code asked for it. */
static int render_caller(const struct live_model *model, const struct pl_row *row, struct live_screen *screen, int y)
{
	const struct pl_native_caller *caller =
		row->domain == PL_SITE_NATIVE ? pl_sites_native_caller(live_model_shown(model)->sites, row->site) : NULL;
	pl_autofree char *module = caller ? pl_printable(caller->module) : NULL;
	pl_autofree char *symbol = caller && caller->symbol ? pl_printable(caller->symbol) : NULL;

	pl_autofree char *filename = caller && caller->filename ? pl_printable(caller->filename) : NULL;

	if (!module)
		return y;
	live_putf(live_screen_line(screen, y), LIVE_PLAIN, "native: %s%s%s", module, symbol ? ", in " : "",
		symbol ? symbol : "");
	if (filename)
		live_putf(live_screen_line(screen, y), LIVE_PLAIN, ", %s:%d", filename, caller->line);
	return y + 1;
}

/* Words, on as many lines as it takes. */
static int render_words(struct live_screen *screen, int y, unsigned int style, const char *text)
{
	pl_autofree char *copy = pl_printable(text);
	char *rest = copy;
	const char *word;

	if (!copy || !*copy)
		return y;
	while ((word = strsep(&rest, " "))) {
		struct live_line *line = live_screen_line(screen, y);

		if (line && line->cells && live_text_cells(word, screen->utf8) + 1 > live_line_left(line))
			line = live_screen_line(screen, ++y);
		live_putf(line, style, "%s%s", line && line->cells ? " " : "", word);
	}
	return y + 1;
}

/* Of a library's own thread, what it is; and what Python did meanwhile. */
static int render_thread(const struct live_model *model, const struct pl_row *row, struct live_screen *screen, int y)
{
	struct pl_thread_texts texts = pl_thread_texts_of(live_model_shown(model)->sites, row);
	pl_autofree char *thread = NULL, *meanwhile = NULL;

	if (texts.thread && asprintf(&thread, "thread: %s", texts.thread) < 0)
		thread = NULL;
	if (texts.meanwhile && asprintf(&meanwhile, "meanwhile: %s", texts.meanwhile) < 0)
		meanwhile = NULL;
	pl_thread_texts_free(&texts);
	if (thread)
		y = render_words(screen, y, LIVE_PLAIN, thread);
	return meanwhile ? render_words(screen, y, LIVE_PLAIN, meanwhile) : y;
}

/* Who called a library's line, or by caller what it called. */
static int render_from(const struct live_model *model, const struct pl_row *row, struct live_screen *screen, int y)
{
	const struct pl_frame *frame;
	pl_autofree char *text = pl_caller_text(
		live_model_shown(model)->sites, row, model->group_by, model->facts.recording.frames, &frame);
	pl_autofree char *source = text && frame ? live_source(model, frame->filename, frame->line) : NULL;

	if (!text)
		return y;
	y = render_words(screen, y, LIVE_PLAIN, text);
	if (source)
		live_putf(live_screen_line(screen, y++), LIVE_ACCENT, "    %s", source);
	return y;
}

static int render_cause(const struct live_model *model, const struct pl_row *row, bool steady, struct live_screen *screen, int y)
{
	struct pl_cause_facts facts = pl_cause_facts_read(model->state.source_pid, model->facts.recording.python);
	const struct pl_cause *cause;
	pl_autofree char *title = NULL;

	facts.types = &model->opened_types;
	cause = pl_known_cause(live_model_shown(model)->sites, row->site, &facts, model->state.source_pid);
	if (!cause)
		return y;
	if (asprintf(&title, "known cause%s: %s", steady ? "" : ", if this goes on", cause->cause) < 0) {
		title = NULL; /* asprintf leaves it undefined */
		return y;
	}
	y = render_words(screen, y, LIVE_BOLD, title);
	y = render_words(screen, y, LIVE_PLAIN, cause->remedy);
	return render_words(screen, y, LIVE_DIM, cause->see);
}

/* And why, where that is known: not of what does not go on. */
static int render_verdict(const struct live_model *model, const struct pl_row *row, struct live_screen *screen, int y)
{
	struct pl_verdict verdict;
	char text[PL_VERDICT_TEXT];
	bool steady, early;

	live_model_judge(model, &row, 1, &verdict);
	steady = verdict.growth == PL_GROWTH_STEADY;
	early = verdict.growth == PL_GROWTH_EARLY || (verdict.windows == 0 && row->size_diff > 0);
	pl_verdict_text(&verdict, &model->state.headroom, text);
	y = render_words(screen, y, steady ? LIVE_GREW : LIVE_PLAIN, text);
	return steady || early ? render_cause(model, row, steady, screen, y) : y;
}

static int render_types(const struct live_model *model, struct live_screen *screen, int y)
{
	char types[PL_ROW_TYPES_TEXT], text[PL_ROW_TYPES_TEXT + 16];

	pl_row_types_text(&model->opened_types, types);
	if (!*types)
		return y;
	(void)snprintf(text, sizeof(text), "live: %s", types);
	return render_words(screen, y, LIVE_PLAIN, text);
}

/* Who keeps its live blocks, where the user asked. */
static int render_held(const struct live_model *model, struct live_screen *screen, int y)
{
	pl_autofree char *copy = strdup(model->held);
	char *rest = copy;
	const char *line;

	while (rest && (line = strsep(&rest, "\n")))
		y = render_words(screen, y, LIVE_BOLD, line);
	return y;
}

static int render_head(const struct live_model *model, const struct pl_row *row, struct live_screen *screen, int first)
{
	int y = render_figures(model, row, screen, first);

	y = render_caller(model, row, screen, y);
	y = render_thread(model, row, screen, y);
	y = render_from(model, row, screen, y);
	y = render_types(model, screen, y);
	y = render_held(model, screen, y);
	return render_verdict(model, row, screen, y);
}

/* So that there are at most so many marks in a span. */
static int64_t round_step(int64_t span_ns, int64_t marks)
{
	static const int seconds[] = {
		1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400};
	int64_t step = 0;

	for (size_t i = 0; i < sizeof(seconds) / sizeof(seconds[0]); i++) {
		step = seconds[i] * PL_NSEC_PER_SEC;
		if (span_ns / step <= marks)
			return step;
	}
	while (span_ns / step > marks)
		step *= 2;
	return step;
}

/* Round times, from the oldest on: "10m ago   5m   now". */
static void render_times(struct live_line *line, int64_t span_ns, int width)
{
	int64_t marks = width / MARK_CELLS ? width / MARK_CELLS : 1, step = round_step(span_ns, marks);
	bool first = true;
	char text[LIVE_CELL_MAX];

	for (int64_t ago = span_ns - span_ns % step; ago > 0; ago -= step) {
		int column = LABEL_CELLS + 1 + (int)((double)(width - 1) * (1 - (double)ago / (double)span_ns));

		live_format_age(ago, text);
		/* Not into "now". */
		if (column + (int)strlen(text) + (first ? 4 : 0) >= LABEL_CELLS + width - 3)
			break;
		live_pad(line, column);
		live_putf(line, LIVE_DIM, "%s%s", text, first ? " ago" : "");
		first = false;
	}
	live_pad(line, LABEL_CELLS + 1 + width - 3);
	live_put(line, LIVE_DIM, "now");
}

static int render_chart(
	const struct live_model *model, const struct pl_row *row, struct live_screen *screen, int y, int height)
{
	const struct live_history *history = &model->history;
	double values[LIVE_POINTS_MAX], top = 0;
	size_t width = screen->width > LABEL_CELLS + 2 ? (size_t)(screen->width - LABEL_CELLS - 2) : 0;
	char text[3 * LIVE_CHART_WIDTH_MAX + 1], size[PL_SIZE_TEXT];
	struct live_line *line;

	if (width > LIVE_CHART_WIDTH_MAX)
		width = LIVE_CHART_WIDTH_MAX;
	live_history_row(history, live_model_shown(model)->sites, row, model->group_by, values);
	for (size_t i = 0; i < history->count; i++)
		top = fmax(top, values[i]);
	top = live_round_up(top);
	pl_format_size(top < 1e18 ? (int64_t)top : INT64_MAX, false, size);
	for (int i = 0; i < height; i++) {
		line = live_screen_line(screen, y++);
		live_put_right(line, LIVE_DIM, LABEL_CELLS, i == 0 ? size : i == height - 1 ? "0 B" : "");
		live_put(line, LIVE_DIM, "\u2502");
		live_chart_line(values, history->count, width, top, height, i, screen->utf8, text);
		live_put(line, LIVE_ACCENT, text);
	}
	line = live_screen_line(screen, y++);
	render_times(line, history->points[history->count - 1].at_ns - history->points[0].at_ns, (int)width);
	return y;
}

/* Lines of the traceback, most recent call last: two for each frame, where the source can be had. */
struct traceback {
	struct live_screen *screen;
	int y, end;
	size_t skip;
	size_t count;
	size_t own; /* the line of the program's own frame; SIZE_MAX: it is the innermost, or there is none */
};

static struct live_line *next_line(struct traceback *traceback)
{
	bool hidden = traceback->count++ < traceback->skip || traceback->y >= traceback->end;

	return hidden ? NULL : live_screen_line(traceback->screen, traceback->y++);
}

static void put_frame(const struct live_model *model, const struct pl_frame *frame, struct traceback *traceback)
{
	struct live_line *line = next_line(traceback);
	pl_autofree char *filename = pl_printable(frame->filename);
	pl_autofree char *function = pl_printable(frame->function);
	pl_autofree char *source = live_source(model, frame->filename, frame->line);
	char number[16];

	if (!filename || !function)
		return;
	(void)snprintf(number, sizeof(number), "%d", frame->line);
	live_put(line, LIVE_PLAIN, "  File \"");
	/* On a narrow screen a long path loses its beginning: the number of the line stays. */
	live_put_tail(line, LIVE_PLAIN, live_line_left(line) - LINE_CELLS - (int)strlen(number), filename);
	live_put(line, LIVE_PLAIN, "\", line ");
	live_put(line, LIVE_BOLD, number);
	live_putf(line, LIVE_PLAIN, ", in %s", function);
	if (source)
		live_putf(next_line(traceback), LIVE_ACCENT, "    %s", source);
}

static size_t put_frames(const struct live_model *model, const struct pl_row *row, struct traceback *traceback)
{
	struct pl_traceback frames;

	const struct pl_caller caller = pl_sites_caller(live_model_shown(model)->sites, row->site);
	const struct pl_frame *own = caller.kind == PL_CALLER_OWN && caller.index > 0 ? caller.frame : NULL;

	pl_sites_traceback(live_model_shown(model)->sites, row->site, &frames);
	traceback->own = SIZE_MAX;
	if (frames.more)
		live_put(next_line(traceback), LIVE_DIM, "  (and what called it: see --frames)");
	for (size_t i = frames.count; i-- > 0;) {
		if (own && frames.frames[i].line == own->line && frames.frames[i].filename == own->filename)
			traceback->own = traceback->count;
		put_frame(model, &frames.frames[i], traceback);
		if (frames.gap && i == frames.native)
			live_put(next_line(traceback), LIVE_DIM, "  (native frames that are not known)");
	}
	return traceback->count;
}

static void render_traceback(
	const struct live_model *model, const struct pl_row *row, struct live_screen *screen, int y, int end, size_t skip)
{
	struct traceback traceback = {.screen = screen, .y = y + 1, .end = end, .skip = skip};
	char size[PL_SIZE_TEXT];

	if (y >= end)
		return;
	pl_format_size(row->site_size, false, size);
	live_putf(live_screen_line(screen, y), LIVE_DIM,
		"largest traceback: %s in %" PRId64 " block%s, most recent call last", size, row->site_count,
		row->site_count == 1 ? "" : "s");
	(void)put_frames(model, row, &traceback);
}

/* How many lines of so many are scrolled away where there is room for some. */
static size_t scroll(struct live_model *model, size_t count, size_t room, size_t opened)
{
	if (model->traceback_top == LIVE_TRACEBACK_OPENED)
		model->traceback_top = opened;
	if (model->traceback_top > count || model->traceback_top + room > count)
		model->traceback_top = count > room ? count - room : 0;
	model->page_rows = room;
	return model->traceback_top;
}

/* On a screen that is too low for more than the head: all of it is one page, of which as much is shown as there is
 * room for. */
static void render_scrolled(
	struct live_model *model, const struct pl_row *row, struct live_screen *screen, int first, int end, int frames)
{
	struct live_screen page = {0};
	int count, top;

	if (live_screen_start(&page, HEAD_LINES_MAX + frames, screen->width, screen->utf8) < 0)
		return;
	count = render_head(model, row, &page, 0);
	count = render_chart(model, row, &page, count, LOW_CHART_HEIGHT);
	render_traceback(model, row, &page, count, page.height, 0);
	count += 1 + frames;
	top = (int)scroll(model, (size_t)count, (size_t)(end - first), 0);
	for (int y = first; y < end && top + y - first < count; y++) {
		struct live_line *line = live_screen_line(screen, y), *from = live_screen_line(&page, top + y - first);

		if (line && from) {
			struct live_line empty = *line;

			*line = *from;
			*from = empty;
		}
	}
	live_screen_free(&page);
}

void live_row_render(struct live_model *model, struct live_screen *screen, int first, int end)
{
	const struct pl_row *row = live_model_opened(model);
	struct traceback dry = {.screen = screen, .skip = SIZE_MAX};
	int y, title, height;
	size_t frames, room, top;

	if (!row) {
		live_put(live_screen_line(screen, first), LIVE_DIM, "nothing of this row is left");
		return;
	}
	frames = put_frames(model, row, &dry);
	y = render_head(model, row, screen, first);
	if (end > first && end - y - 1 < FRAMES_LINES_MIN) {
		render_scrolled(model, row, screen, first, end, (int)frames);
		return;
	}
	height = (end - y) / 3;
	title = y;
	if (end - y >= CHART_FROM_LINES)
		title = render_chart(model, row, screen, y, height < CHART_HEIGHT_MAX ? height : CHART_HEIGHT_MAX);
	room = end > title + 1 ? (size_t)(end - title - 1) : 0;
	/* It opens at the innermost frames, unless the program's own one would be off the screen. */
	top = scroll(model, frames, room, dry.own < frames && dry.own + room < frames ? dry.own : frames);
	render_traceback(model, row, screen, title, end, top);
	if (frames > room)
		live_put_edge(live_screen_line(screen, title), LIVE_DIM, top ? "\u2191\u2193" : "\u2193");
}
