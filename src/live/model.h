/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_LIVE_MODEL_H
#define PYLEAK_LIVE_MODEL_H

#include "history.h"
#include "pyleak/live.h"
#include "pyleak/verdict.h"
#include "screen.h"

/*
 * The state of the view. Two things change it, a new snapshot and a key; live_render() makes a screen of it.
 *
 * Changes are shown against one of
 *   - the youngest of the `recent` snapshots that is as old as the interval (the oldest, before there is one), so that
 *     the window slides with the view;
 *   - the baseline, once the user has set one.
 * Frozen, the view keeps the pair of snapshots that it showed, to be sorted and grouped at leisure; what comes
 * meanwhile goes to the history and to `recent` as always.
 */
enum live_page { LIVE_PAGE_ROWS, LIVE_PAGE_ROW, LIVE_PAGE_HELP };

enum live_key {
	LIVE_KEY_TEXT, /* one character; the others have none */
	LIVE_KEY_UP,
	LIVE_KEY_DOWN,
	LIVE_KEY_PAGE_UP,
	LIVE_KEY_PAGE_DOWN,
	LIVE_KEY_HOME,
	LIVE_KEY_END,
	LIVE_KEY_ENTER,
	LIVE_KEY_BACK, /* escape, left */
	LIVE_KEY_ERASE,
};

enum { LIVE_RECENT_MAX = 12, LIVE_FILTER_MAX = 64, LIVE_NOTE_MAX = 512, LIVE_HELD_MAX = 1024 };

#define LIVE_TRACEBACK_END (SIZE_MAX / 2)
/* As a row is opened: the end, where the line itself is, or on a low screen the top of the page. */
#define LIVE_TRACEBACK_OPENED (LIVE_TRACEBACK_END + 1)

struct live_model {
	struct pl_live_facts facts;
	struct pl_live_options options;
	struct pl_live_state state;

	enum pl_group group_by;
	enum pl_sort sort;
	enum live_page page, behind_help;
	bool filtering; /* the filter is being typed */
	char filter[LIVE_FILTER_MAX];
	char note[LIVE_NOTE_MAX]; /* the last thing that was logged */

	struct pl_snapshot *now, *recent[LIVE_RECENT_MAX], *baseline; /* recent: the oldest first */
	size_t recent_count;
	struct pl_snapshot *frozen_now, *frozen_before;
	bool frozen;
	int64_t first_ns; /* the first snapshot: sites that are older in an adopted recording are of unknown age */
	struct live_history history;
	/* For the verdicts: a window is an interval. NULL, or as it was: out of memory; there are fewer verdicts then. */
	struct pl_history *windows;
	int64_t window_began_ns;

	/* What is shown: made of two snapshots, and of these rows those that the filter lets through. */
	struct pl_rows rows;
	struct pl_row **shown;
	size_t shown_count;
	int64_t window_ns; /* of the changes; 0: there are none to show */

	/* The selected row: the top one until a key moves away from there; then the same row, wherever it goes. */
	size_t selected, top;
	bool following;
	struct pl_row followed;
	size_t page_rows; /* as many were drawn */

	struct pl_row opened;
	struct pl_row_types opened_types;
	bool held_wanted;          /* who keeps it was asked, and nobody has looked yet */
	char held[LIVE_HELD_MAX];  /* what there is to say of that, in lines; "" : nobody asked */
	/* Lines of its traceback, or on a low screen of its page, that were scrolled away; when drawn, no more than leave a
	 * full page. */
	size_t traceback_top;
};

void live_model_init(struct live_model *model, const struct pl_live_facts *facts, const struct pl_live_options *options);
void live_model_free(struct live_model *model);

/* Takes the snapshot over. 0 or -ENOMEM: then it shows what it showed. */
int live_model_update(struct live_model *model, struct pl_snapshot *now, const struct pl_live_state *state);
void live_model_note(struct live_model *model, const char *text);

/* `text`: with LIVE_KEY_TEXT, the character. False: quit. */
bool live_model_key(struct live_model *model, enum live_key key, const char *text);

/* Makes rows and shown anew; after a change of snapshots, order or grouping. 0 or -ENOMEM. */
int live_model_compute(struct live_model *model);
/* Makes shown anew, and keeps the selection on its row. */
void live_model_select(struct live_model *model);

/* The verdicts on some rows. They stay as they are (PL_GROWTH_NONE) where there is no memory for more. */
void live_model_judge(const struct live_model *model, const struct pl_row *const *rows, size_t count,
		      struct pl_verdict *ret_verdicts);

const struct pl_snapshot *live_model_shown(const struct live_model *model);
/* Asks what the opened row consists of. */
void live_model_look_at_opened(struct live_model *model);
/* The opened row as it is now; NULL: nothing is left of it. */
const struct pl_row *live_model_opened(const struct live_model *model);

/* The whole screen. 0 or -ENOMEM. */
int live_render(struct live_model *model, struct live_screen *screen, int height, int width, bool utf8);

#endif
