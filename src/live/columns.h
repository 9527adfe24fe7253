/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_LIVE_COLUMNS_H
#define PYLEAK_LIVE_COLUMNS_H

#include "model.h"

enum { LIVE_COLUMN_COUNT = 7, LIVE_CELL_MAX = 40 };

/* The columns of figures, from left to right; the place of the row follows, and takes what is left. */
struct live_column {
	const char *title;
	int cells;
	enum pl_sort sort;
	int from_width; /* shown on terminals that are as wide as this, and when the rows are sorted by it */
	/* Writes the figure, and returns how it is to look. */
	enum live_style (*format)(const struct live_model *model, const struct pl_row *row, char text[LIVE_CELL_MAX]);
};
extern const struct live_column live_columns_table[LIVE_COLUMN_COUNT];

/* "12s", "5m", "3h", "12d"; of a duration. */
void live_format_age(int64_t ns, char text[LIVE_CELL_MAX]);
/* "app.py:29", "app.py" or "app.py:29 (parse)", by what the row is, and of which process; printable. The caller frees it; NULL: out of memory. */
char *live_format_place(const struct live_model *model, const struct pl_row *row);

/* The line that a row is shown by: by function, where that begins. */
int live_line(const struct live_model *model, const struct pl_row *row);
/* A line of source, printable; NULL: it cannot be had. The caller frees it. */
char *live_source(const struct live_model *model, const char *filename, int line);

#endif
