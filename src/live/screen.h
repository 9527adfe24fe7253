/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_LIVE_SCREEN_H
#define PYLEAK_LIVE_SCREEN_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Lines of styled text, as wide and as high as a terminal: what the model renders and the terminal draws. Text is
 * UTF-8 that may be printed as it is, and never wider than the screen. Where the terminal's characters are not UTF-8,
 * text becomes ASCII as it is put on a line.
 */
enum live_style {
	LIVE_PLAIN = 0,
	LIVE_BOLD = 1,
	LIVE_DIM = 2,
	LIVE_REVERSE = 4,
	LIVE_UNDERLINE = 8,
	LIVE_GREW = 16,   /* colors: at most one of these */
	LIVE_SHRANK = 32,
	LIVE_ACCENT = 64,
	LIVE_COLORS = LIVE_GREW | LIVE_SHRANK | LIVE_ACCENT,
};

struct live_span {
	unsigned int style;
	size_t start, length; /* bytes of the line's text */
};

enum { LIVE_SPANS_MAX = 32 };

struct live_line {
	char *text; /* ends with a NUL */
	size_t length, capacity;
	int cells, width; /* taken, and there are */
	bool utf8;
	unsigned int style; /* added to that of each span */
	struct live_span spans[LIVE_SPANS_MAX];
	size_t span_count;
};

struct live_screen {
	struct live_line *lines; /* [height] */
	int height, width;
	bool utf8;
	int cursor_row, cursor_column; /* row −1: no cursor */
};

/* All lines empty. 0 or -ENOMEM. */
int live_screen_start(struct live_screen *screen, int height, int width, bool utf8);
void live_screen_free(struct live_screen *screen);
/* A line; beyond the screen, one that nobody sees (NULL: the functions below take it). */
struct live_line *live_screen_line(struct live_screen *screen, int row);

/* Appends what fits. */
void live_put(struct live_line *line, unsigned int style, const char *text);
void live_putf(struct live_line *line, unsigned int style, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Right-aligned in so many cells; what is too long is put whole. */
void live_put_right(struct live_line *line, unsigned int style, int cells, const char *text);
/* At most so many cells of it: its end, behind an ellipsis, where it is longer. */
void live_put_tail(struct live_line *line, unsigned int style, int cells, const char *text);
/* Blanks up to a column; none where the line is longer already. */
void live_pad(struct live_line *line, int column);
/* Text at the right edge, if there is room for it behind two blanks. */
void live_put_edge(struct live_line *line, unsigned int style, const char *text);

/* Cells that text takes. */
int live_text_cells(const char *text, bool utf8);
int live_line_left(const struct live_line *line);

#endif
