/* SPDX-License-Identifier: MIT */
#include "pyleak/live.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "pyleak/cleanup.h"
#include "pyleak/log.h"
#include "pyleak/report.h"
#include "terminal.h"

enum { LOG_LINES_MAX = 200, KEYS_AT_ONCE = 256 };

struct pl_live {
	struct live_model model;
	struct live_screen screen;
	bool dirty; /* the screen shows something older than the model */
	char *log[LOG_LINES_MAX]; /* the first ones; of what comes too often the rest says nothing more */
	size_t log_count;
};

static void on_log(void *context, const char *line)
{
	struct pl_live *live = context;
	char *printable = pl_printable(line);

	if (printable)
		live_model_note(&live->model, printable);
	free(printable);
	live->dirty = true;
	if (live->log_count == LOG_LINES_MAX)
		return;
	live->log[live->log_count] = strdup(line);
	live->log_count += live->log[live->log_count] != NULL;
}

int pl_live_open(const struct pl_live_facts *facts, const struct pl_live_options *options, struct pl_live **ret,
	struct pl_error *err)
{
	struct pl_live *live = calloc(1, sizeof(*live));
	int code;

	if (!live)
		return pl_fail(err, -ENOMEM, "out of memory");
	live_model_init(&live->model, facts, options);
	code = live_terminal_open(options->color, options->suspend);
	if (code < 0) {
		free(live);
		return code;
	}
	pl_log_divert(on_log, live);
	*ret = live;
	return 0;
}

static void draw(struct pl_live *live)
{
	int height, width;

	live_terminal_size(&height, &width);
	if (live_render(&live->model, &live->screen, height, width, live_terminal_utf8()) == 0)
		live->dirty = !live_terminal_draw(&live->screen);
}

int pl_live_update(struct pl_live *live, struct pl_snapshot *now, const struct pl_live_state *state)
{
	int code = live_model_update(&live->model, now, state);

	draw(live);
	return code;
}

bool pl_live_look(struct pl_live *live)
{
	bool go_on = true;

	for (int i = 0; go_on && i < KEYS_AT_ONCE; i++) {
		char text[LIVE_KEY_TEXT_MAX] = "";
		enum live_key key;
		enum live_input input = live_terminal_read(&key, text);

		if (input == LIVE_INPUT_NONE)
			break;
		live->dirty = true;
		if (input == LIVE_INPUT_KEY)
			go_on = live_model_key(&live->model, key, text);
	}
	if (go_on && live->dirty)
		draw(live);
	return go_on;
}

bool pl_live_wants_held(struct pl_live *live, const struct pl_sites **ret_sites, struct pl_row *ret_row, enum pl_group *ret_group_by)
{
	const struct pl_row *row = live->model.held_wanted ? live_model_opened(&live->model) : NULL;

	live->model.held_wanted = false;
	if (!row)
		return false;
	*ret_sites = live_model_shown(&live->model)->sites;
	*ret_row = *row;
	*ret_group_by = live->model.group_by;
	return true;
}

void pl_live_show_held(struct pl_live *live, const char *text)
{
	if (!live->model.held[0])
		return; /* another row is opened by now, or none */
	(void)snprintf(live->model.held, sizeof(live->model.held), "%s", text);
	draw(live);
}

struct pl_history *pl_live_take_history(struct pl_live *live)
{
	return PL_TAKE(live->model.windows);
}

void pl_live_selection(const struct pl_live *live, enum pl_group *ret_group_by, enum pl_sort *ret_sort)
{
	*ret_group_by = live->model.group_by;
	*ret_sort = live->model.sort;
}

void pl_live_close(struct pl_live *live)
{
	if (!live)
		return;
	live_terminal_close();
	pl_log_divert(NULL, NULL);
	for (size_t i = 0; i < live->log_count; i++) {
		pl_log_error("%s", live->log[i]);
		free(live->log[i]);
	}
	live_screen_free(&live->screen);
	live_model_free(&live->model);
	free(live);
}
