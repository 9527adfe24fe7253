/* SPDX-License-Identifier: MIT */
#include "chart.h"

#include <math.h>
#include <string.h>

enum { MARKS = 8 };

static const char *const blocks[MARKS] = {
	"\u2581", "\u2582", "\u2583", "\u2584", "\u2585", "\u2586", "\u2587", "\u2588"};
static const char *const letters[MARKS] = {"_", ".", "-", "=", "+", "*", "%", "#"};

size_t live_columns(const double *values, size_t count, size_t width, double ret_columns[LIVE_CHART_WIDTH_MAX])
{
	size_t columns;

	if (width > LIVE_CHART_WIDTH_MAX)
		width = LIVE_CHART_WIDTH_MAX;
	columns = count ? width : 0;
	for (size_t i = 0; i < columns; i++) {
		size_t first = i * count / columns, end = (i + 1) * count / columns;
		double sum = 0;

		if (end == first)
			end++; /* more columns than values */

		for (size_t j = first; j < end; j++)
			sum += values[j];
		ret_columns[i] = sum / (double)(end - first);
	}
	return columns;
}

static char *append(char *text, const char *mark)
{
	size_t length = strlen(mark);

	memcpy(text, mark, length);
	text[length] = '\0';
	return text + length;
}

void live_sparkline(const double *values, size_t count, size_t width, bool utf8, char *text)
{
	double columns[LIVE_CHART_WIDTH_MAX], low = INFINITY, high = -INFINITY;
	size_t used = live_columns(values, count, count < width ? count : width, columns);

	*text = '\0';
	for (size_t i = 0; i < used; i++) {
		low = fmin(low, columns[i]);
		high = fmax(high, columns[i]);
	}
	for (size_t i = 0; i < used; i++) {
		double part = high > low ? (columns[i] - low) / (high - low) : 0;
		int mark = (int)lround(part * (MARKS - 1));

		text = append(text, (utf8 ? blocks : letters)[mark]);
	}
}

double live_round_up(double size)
{
	static const double steps[] = {1, 1.5, 2, 3, 4, 5, 6, 8};
	double unit = 1, ten = 1;

	/* As pl_format_size() chooses it. */
	while (size >= 10 * 1024 * unit)
		unit *= 1024;
	while (size > 8 * ten * unit)
		ten *= 10;
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
		if (steps[i] * ten * unit >= size)
			return steps[i] * ten > 10 * 1024 ? 10 * 1024 * unit : steps[i] * ten * unit;
	return size;
}

void live_chart_line(
	const double *values, size_t count, size_t width, double top, int height, int line, bool utf8, char *text)
{
	double columns[LIVE_CHART_WIDTH_MAX];
	size_t used = live_columns(values, count, width, columns);

	*text = '\0';
	for (size_t i = 0; i < used; i++) {
		/* In eighths of a line; what is not zero can be seen. */
		long filled = top > 0 ? lround(columns[i] / top * height * MARKS) : 0;
		long here;

		if (columns[i] > 0 && filled < 1)
			filled = 1;
		here = filled - (long)(height - 1 - line) * MARKS;
		if (here <= 0)
			text = append(text, " ");
		else if (utf8)
			text = append(text, blocks[(here < MARKS ? here : MARKS) - 1]);
		else
			text = append(text, here >= MARKS / 2 ? "#" : filled < MARKS / 2 ? "." : " ");
	}
}
