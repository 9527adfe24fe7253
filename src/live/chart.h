/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_LIVE_CHART_H
#define PYLEAK_LIVE_CHART_H

#include <stdbool.h>
#include <stddef.h>

enum { LIVE_CHART_WIDTH_MAX = 200 };

/* Values, the oldest first, spread over so many columns, each the mean of those that fall on it. Returns how many columns
 * there are: none without values. */
size_t live_columns(const double *values, size_t count, size_t width, double ret_columns[LIVE_CHART_WIDTH_MAX]);

/* One line: the lowest value is the lowest mark. A mark for each value, where there is room for all. Text for live_chart_bytes(width). */
void live_sparkline(const double *values, size_t count, size_t width, bool utf8, char *text);

/* The next larger size that pl_format_size() prints as a round one: for an axis. */
double live_round_up(double size);

/* One line of `height` of a bar chart from 0 to top; line 0 is the uppermost. */
void live_chart_line(const double *values, size_t count, size_t width, double top, int height, int line, bool utf8,
		     char *text);

/* A mark has at most three bytes. */
static inline size_t live_chart_bytes(size_t width)
{
	return 3 * width + 1;
}

#endif
