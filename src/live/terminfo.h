/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_LIVE_TERMINFO_H
#define PYLEAK_LIVE_TERMINFO_H

#include <stdbool.h>
#include <stddef.h>

/* What terminfo says of the terminal of TERM. Apart, because <term.h> makes macros of words like `lines`. */

/* Whether a view can be drawn on it. To be asked before ncurses is started. */
bool live_terminfo_capable(int fd);
/* What gives it back from full screen, with a visible cursor, and plain; once ncurses is started. Returns the bytes. */
size_t live_terminfo_restore(char *text, size_t size);

#endif
