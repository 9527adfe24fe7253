/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_LIVE_TERMINAL_H
#define PYLEAK_LIVE_TERMINAL_H

#include <stdbool.h>

#include "model.h"
#include "screen.h"

/*
 * The terminal, by ncurses; there is one. It is given back as it was by live_terminal_close(), before pyleak is
 * suspended, and by a signal handler when pyleak crashes. SIGINT, SIGTERM and SIGHUP are the caller's.
 *
 * A terminal may stop taking output at any time (^S, a connection that hangs), and a write to it then waits. So a timer
 * runs while anything is written: after DRAW_PATIENCE the rest goes to /dev/null, and once the terminal takes output
 * again the whole screen is drawn anew. Whoever is waiting for pyleak meanwhile (a thread at a breakpoint, SIGTERM)
 * does not wait for a terminal.
 */

/* -ENOTTY: not one that can do this. `suspend`: ^Z stops pyleak. */
int live_terminal_open(bool color, bool suspend);
void live_terminal_close(void);

void live_terminal_size(int *ret_height, int *ret_width);
bool live_terminal_utf8(void);

/* False: it could not be drawn now, and is to be tried again. */
bool live_terminal_draw(const struct live_screen *screen);

enum live_input { LIVE_INPUT_NONE, LIVE_INPUT_KEY, LIVE_INPUT_REDRAW };
enum { LIVE_KEY_TEXT_MAX = 8 };

/* What comes next from the terminal, without waiting. Stops pyleak, when ^Z was pressed, and goes on when it is
 * continued. REDRAW: the size may be another one. */
enum live_input live_terminal_read(enum live_key *ret_key, char ret_text[LIVE_KEY_TEXT_MAX]);

#endif
