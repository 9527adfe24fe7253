/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_LIVE_TERMINFO_H
#define PYLEAK_LIVE_TERMINFO_H

#include <stddef.h>

/* What terminfo says of the terminal of TERM. Apart, because <term.h> makes macros of words like `lines`. */

/* The type for newterm(), to be asked before that; NULL: a view cannot be drawn on it. Where terminfo does not know a
 * terminal that behaves as xterm does, by its name, or there is no terminfo at all, as in small containers, it is taken
 * for an xterm, whose description is compiled in. */
const char *live_terminfo_type(int fd);

/* What gives it back from full screen, with a visible cursor, and plain; once ncurses is started. Returns the bytes. */
size_t live_terminfo_restore(char *text, size_t size);

#endif
