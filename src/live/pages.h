/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_LIVE_PAGES_H
#define PYLEAK_LIVE_PAGES_H

#include "model.h"

/* The parts of the screen; live_render() says which lines are whose. */

/* What is watched, how it grows, and what that costs: in `lines` lines, fewer where there are fewer. */
void live_header_render(const struct live_model *model, struct live_screen *screen, int lines);
/* Lines first to end − 1. */
void live_rows_render(struct live_model *model, struct live_screen *screen, int first, int end);
void live_row_render(struct live_model *model, struct live_screen *screen, int first, int end);
void live_help_render(struct live_screen *screen, int first, int end);

#endif
