/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <string.h>

#include "columns.h"
#include "model.h"

/* One of the ends, or so many rows further. */
static void move_to(struct live_model *model, size_t row)
{
	if (!model->shown_count)
		return;
	model->selected = row < model->shown_count ? row : model->shown_count - 1;
	model->following = model->selected > 0;
	if (model->following)
		model->followed = *model->shown[model->selected];
}

static size_t less(size_t a, size_t b)
{
	return a > b ? a - b : 0;
}

static void group_by(struct live_model *model, enum pl_group group_by)
{
	model->group_by = group_by;
	model->following = false;
	model->top = 0;
	(void)live_model_compute(model);
}

static void sort_by(struct live_model *model, enum pl_sort sort)
{
	model->sort = sort;
	(void)live_model_compute(model);
}

/* To the left or the right of the column that the rows are sorted by. */
static void sort_by_neighbour(struct live_model *model, int step)
{
	size_t i = 0;

	while (i < LIVE_COLUMN_COUNT && live_columns_table[i].sort != model->sort)
		i++;
	sort_by(model, live_columns_table[(i + LIVE_COLUMN_COUNT + (size_t)step) % LIVE_COLUMN_COUNT].sort);
}

static void freeze(struct live_model *model)
{
	if (model->frozen) {
		pl_snapshot_free(model->frozen_now);
		pl_snapshot_free(model->frozen_before);
		model->frozen_now = model->frozen_before = NULL;
		model->frozen = false;
		(void)live_model_compute(model);
		return;
	}
	if (!model->now)
		return;
	model->frozen_now = pl_snapshot_copy(model->now);
	model->frozen_before = model->recent_count ? pl_snapshot_copy(model->recent[0]) : NULL;
	model->frozen = model->frozen_now != NULL;
}

static void set_baseline(struct live_model *model, const struct pl_snapshot *from)
{
	pl_snapshot_free(model->baseline);
	model->baseline = from ? pl_snapshot_copy(from) : NULL;
	(void)live_model_compute(model);
}

static void open_row(struct live_model *model)
{
	if (!model->shown_count)
		return;
	model->opened = *model->shown[model->selected];
	model->traceback_top = LIVE_TRACEBACK_OPENED;
	model->page = LIVE_PAGE_ROW;
	model->held[0] = '\0';
	model->held_wanted = false;
	live_model_look_at_opened(model);
}

static void set_filter(struct live_model *model, const char *text)
{
	(void)snprintf(model->filter, sizeof(model->filter), "%s", text);
	live_model_select(model);
}

static void erase_character(char *text)
{
	size_t length = strlen(text);

	while (length && ((unsigned char)text[length - 1] & 0xc0) == 0x80)
		length--;
	text[length ? length - 1 : 0] = '\0';
}

static void type_filter(struct live_model *model, enum live_key key, const char *text)
{
	char filter[LIVE_FILTER_MAX];

	(void)snprintf(filter, sizeof(filter), "%s", model->filter);
	switch (key) {
	case LIVE_KEY_TEXT:
		if (strlen(filter) + strlen(text) < sizeof(filter) && (unsigned char)*text >= ' ')
			(void)strcat(filter, text);
		break;
	case LIVE_KEY_ERASE:
		if (!filter[0])
			model->filtering = false;
		erase_character(filter);
		break;
	case LIVE_KEY_BACK:
		filter[0] = '\0';
		model->filtering = false;
		break;
	default: /* enter, and what moves to a row */
		model->filtering = false;
	}
	set_filter(model, filter);
}

static void show_help(struct live_model *model)
{
	model->behind_help = model->page;
	model->page = LIVE_PAGE_HELP;
}

/* Where keys mean the same on every page. */
static bool anywhere(struct live_model *model, char letter)
{
	switch (letter) {
	case '?':
		show_help(model);
		return true;
	case ' ':
	case 'p':
		freeze(model);
		return true;
	case 'b':
		set_baseline(model, live_model_shown(model));
		return true;
	case 'w':
		set_baseline(model, NULL);
		return true;
	default:
		return false;
	}
}

static bool letter_in_rows(struct live_model *model, char letter)
{
	if (letter >= '1' && letter < '1' + LIVE_COLUMN_COUNT) {
		sort_by(model, live_columns_table[letter - '1'].sort);
		return true;
	}
	switch (letter) {
	case 'q':
		return false;
	case 'k':
		move_to(model, less(model->selected, 1));
		break;
	case 'j':
		move_to(model, model->selected + 1);
		break;
	case 's':
	case '>':
		sort_by_neighbour(model, 1);
		break;
	case 'S':
	case '<':
		sort_by_neighbour(model, -1);
		break;
	case 'g':
		group_by(model, model->group_by == PL_GROUP_TRACEBACK ? PL_GROUP_LINE : model->group_by + 1);
		break;
	case 'l':
		group_by(model, PL_GROUP_LINE);
		break;
	case 'f':
		group_by(model, PL_GROUP_FILE);
		break;
	case 'u':
		group_by(model, PL_GROUP_FUNCTION);
		break;
	case 'c':
		group_by(model, PL_GROUP_CALLER);
		break;
	case 't':
		group_by(model, PL_GROUP_TRACEBACK);
		break;
	case '/':
		model->filtering = true;
		break;
	default:
		break;
	}
	return true;
}

static bool key_in_rows(struct live_model *model, enum live_key key, const char *text)
{
	switch (key) {
	case LIVE_KEY_TEXT:
		return anywhere(model, *text) || letter_in_rows(model, *text);
	case LIVE_KEY_UP:
		move_to(model, less(model->selected, 1));
		break;
	case LIVE_KEY_DOWN:
		move_to(model, model->selected + 1);
		break;
	case LIVE_KEY_PAGE_UP:
		move_to(model, less(model->selected, model->page_rows));
		break;
	case LIVE_KEY_PAGE_DOWN:
		move_to(model, model->selected + model->page_rows);
		break;
	case LIVE_KEY_HOME:
		move_to(model, 0);
		break;
	case LIVE_KEY_END:
		move_to(model, less(model->shown_count, 1));
		break;
	case LIVE_KEY_ENTER:
		open_row(model);
		break;
	case LIVE_KEY_BACK:
	case LIVE_KEY_ERASE:
		set_filter(model, "");
		break;
	}
	return true;
}

/* Not twice for one row: the first answer is shown. */
static void ask_who_holds(struct live_model *model)
{
	if (!model->options.holders) {
		live_model_note(model, "who holds it is not known with this engine");
		return;
	}
	model->held_wanted = true;
	(void)snprintf(model->held, sizeof(model->held), "held by: the heap is copied, which stops the process for a moment");
}

/* Rendering keeps traceback_top within what there is. */
static void key_in_row(struct live_model *model, enum live_key key, const char *text)
{
	switch (key) {
	case LIVE_KEY_TEXT:
		if (*text == 'q')
			model->page = LIVE_PAGE_ROWS;
		else if (*text == 'h')
			ask_who_holds(model);
		else if (*text == 'k')
			model->traceback_top = less(model->traceback_top, 1);
		else if (*text == 'j')
			model->traceback_top++;
		else
			(void)anywhere(model, *text);
		break;
	case LIVE_KEY_UP:
		model->traceback_top = less(model->traceback_top, 1);
		break;
	case LIVE_KEY_DOWN:
		model->traceback_top++;
		break;
	case LIVE_KEY_PAGE_UP:
		model->traceback_top = less(model->traceback_top, model->page_rows);
		break;
	case LIVE_KEY_PAGE_DOWN:
		model->traceback_top += model->page_rows;
		break;
	case LIVE_KEY_HOME:
		model->traceback_top = 0;
		break;
	case LIVE_KEY_END:
		model->traceback_top = LIVE_TRACEBACK_END;
		break;
	default:
		model->page = LIVE_PAGE_ROWS;
	}
}

bool live_model_key(struct live_model *model, enum live_key key, const char *text)
{
	model->note[0] = '\0';
	if (model->page == LIVE_PAGE_HELP) {
		model->page = model->behind_help;
	} else if (model->page == LIVE_PAGE_ROW) {
		key_in_row(model, key, text);
	} else if (model->filtering) {
		type_filter(model, key, text);
	} else {
		return key_in_rows(model, key, text);
	}
	return true;
}
