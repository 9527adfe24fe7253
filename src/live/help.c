/* SPDX-License-Identifier: MIT */
#include "pages.h"

enum { KEYS_CELLS = 16 };

/* In the order of the manual page. */
static const struct {
	const char *keys, *meaning;
} entries[] = {
	{"\u2191 \u2193 k j", "select a row; PgUp, PgDn, Home, End too"},
	{"Enter, \u2192", "open it: its history, and its traceback"},
	{"h", "in an opened row: who keeps its live blocks; stops the process for a moment"},
	{"Esc, \u2190, q", "back"},
	{"s S, < >", "sort by the next column, or the one before"},
	{"1 to 7", "sort by size, its change, count, its change, average, churn, age"},
	{"g", "group by line, file, function, caller, traceback (l f u c t)"},
	{"/", "filter by file and function, as you type; Esc clears"},
	{"b", "new baseline: changes are shown against now"},
	{"w", "back to changes within a window (--interval)"},
	{"Space, p", "freeze the view, and go on; recording goes on meanwhile"},
	{"^Z", "suspend pyleak; recording goes on (not with --engine breakpoint)"},
	{"q, ^C", "quit: detach, and print the last report"},
};

void live_help_render(struct live_screen *screen, int first, int end)
{
	for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]) && first + (int)i < end; i++) {
		struct live_line *line = live_screen_line(screen, first + (int)i);

		live_put(line, LIVE_BOLD, entries[i].keys);
		live_pad(line, KEYS_CELLS);
		live_put(line, LIVE_PLAIN, entries[i].meaning);
	}
}
