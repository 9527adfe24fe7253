/* SPDX-License-Identifier: MIT */
#include "screen.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "pyleak/cleanup.h"

int live_screen_start(struct live_screen *screen, int height, int width, bool utf8)
{
	if (screen->height != height || screen->width != width || screen->utf8 != utf8)
		live_screen_free(screen);
	if (!screen->lines) {
		screen->lines = calloc(height > 0 ? (size_t)height : 1, sizeof(*screen->lines));
		if (!screen->lines)
			return -ENOMEM;
		screen->height = height;
		screen->width = width;
		screen->utf8 = utf8;
	}
	screen->cursor_row = -1;
	for (int i = 0; i < height; i++) {
		struct live_line *line = &screen->lines[i];

		line->width = width;
		line->utf8 = utf8;
		line->length = line->span_count = 0;
		line->cells = 0;
		line->style = LIVE_PLAIN;
		if (line->text)
			line->text[0] = '\0';
	}
	return 0;
}

void live_screen_free(struct live_screen *screen)
{
	for (int i = 0; i < screen->height; i++)
		free(screen->lines[i].text);
	free(screen->lines);
	*screen = (struct live_screen){0};
}

struct live_line *live_screen_line(struct live_screen *screen, int row)
{
	return row >= 0 && row < screen->height ? &screen->lines[row] : NULL;
}

/* What stands for a character where there is ASCII only. */
static const char *ascii(const char *character)
{
	static const struct {
		const char *utf8, *ascii;
	} table[] = {{"\u2026", "~"}, {"\u00b7", "-"}, {"\u00b5", "u"}, {"\u25bc", "v"}, {"\u2265", ">"}, {"\u2502", "|"},
		{"\u2191", "^"}, {"\u2193", "v"}, {"\u2190", "<"}, {"\u2192", ">"}};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (strncmp(character, table[i].utf8, strlen(table[i].utf8)) == 0)
			return table[i].ascii;
	return "?";
}

/* One character: its bytes, and the cells that it takes. Where the locale does not know it, a byte is a cell. */
static size_t character(const char *text, bool utf8, int *ret_cells)
{
	mbstate_t state = {0};
	wchar_t wide;
	size_t length;

	*ret_cells = 1;
	if ((unsigned char)*text < 0x80)
		return 1;
	if (!utf8) {
		for (length = 1; ((unsigned char)text[length] & 0xc0) == 0x80; length++)
			;
		return length;
	}
	length = mbrtowc(&wide, text, strlen(text), &state);
	if (length == 0 || length > 8)
		return 1;
	*ret_cells = wcwidth(wide);
	if (*ret_cells < 0)
		*ret_cells = 1;
	return length;
}

int live_text_cells(const char *text, bool utf8)
{
	int sum = 0;

	while (*text) {
		int cells;

		text += character(text, utf8, &cells);
		sum += cells;
	}
	return sum;
}

int live_line_left(const struct live_line *line)
{
	return line ? line->width - line->cells : 0;
}

static bool append(struct live_line *line, const char *bytes, size_t length)
{
	if (line->length + length + 1 > line->capacity) {
		size_t capacity = 2 * (line->length + length + 64);
		char *text = realloc(line->text, capacity);

		if (!text)
			return false;
		line->text = text;
		line->capacity = capacity;
	}
	memcpy(line->text + line->length, bytes, length);
	line->length += length;
	line->text[line->length] = '\0';
	return true;
}

static struct live_span *span_of(struct live_line *line, unsigned int style)
{
	struct live_span *last = line->span_count ? &line->spans[line->span_count - 1] : NULL;

	if (last && (last->style == style || line->span_count == LIVE_SPANS_MAX))
		return last;
	last = &line->spans[line->span_count++];
	*last = (struct live_span){.style = style, .start = line->length};
	return last;
}

void live_put(struct live_line *line, unsigned int style, const char *text)
{
	struct live_span *span;

	if (!line || !*text)
		return;
	span = span_of(line, style);
	while (*text) {
		int cells;
		size_t length = character(text, line->utf8, &cells);
		bool foreign = !line->utf8 && (unsigned char)*text >= 0x80;
		const char *bytes = foreign ? ascii(text) : text;
		size_t before = line->length;

		if (line->cells + cells > line->width || !append(line, bytes, foreign ? 1 : length))
			return;
		span->length += line->length - before;
		line->cells += cells;
		text += length;
	}
}

void live_putf(struct live_line *line, unsigned int style, const char *format, ...)
{
	pl_autofree char *text = NULL;
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vasprintf(&text, format, arguments);
	va_end(arguments);
	if (length < 0)
		text = NULL; /* vasprintf leaves it undefined */
	else
		live_put(line, style, text);
}

void live_pad(struct live_line *line, int column)
{
	while (line && line->cells < column && line->cells < line->width) {
		int before = line->cells;

		live_put(line, LIVE_PLAIN, " ");
		if (line->cells == before)
			return; /* out of memory */
	}
}

void live_put_right(struct live_line *line, unsigned int style, int cells, const char *text)
{
	if (!line)
		return;
	live_pad(line, line->cells + cells - live_text_cells(text, line->utf8));
	live_put(line, style, text);
}

void live_put_tail(struct live_line *line, unsigned int style, int cells, const char *text)
{
	int too_many;

	if (!line || cells <= 0)
		return;
	too_many = live_text_cells(text, line->utf8) - cells;
	if (too_many > 0) {
		live_put(line, style, "\u2026");
		for (too_many++; *text && too_many > 0;) {
			int wide;

			text += character(text, line->utf8, &wide);
			too_many -= wide;
		}
	}
	live_put(line, style, text);
}

void live_put_edge(struct live_line *line, unsigned int style, const char *text)
{
	int cells;

	if (!line)
		return;
	cells = live_text_cells(text, line->utf8);
	if (line->cells + cells + (line->cells ? 2 : 0) > line->width)
		return;
	live_pad(line, line->width - cells);
	live_put(line, style, text);
}
