/* SPDX-License-Identifier: MIT */
#include "held_view.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "held.h"
#include "pyleak/cleanup.h"
#include "pyleak/log.h"
#include "pyleak/units.h"

enum { SHOWN = 3, TEXT_MAX = 1024 };

struct held_view {
	struct pl_targets *targets;
	int64_t most_ns;
	bool running;
	pthread_t thread;
	/* The thread's, until it is done. */
	struct pl_held *held;
	struct pl_held_row *rows;
	size_t row_count;
	struct pl_error err;
	int code;
	atomic_bool done;
};

struct held_view *held_view_new(struct pl_targets *targets, int64_t most_ns)
{
	struct held_view *view = calloc(1, sizeof(*view));

	if (view) {
		view->targets = targets;
		view->most_ns = most_ns;
	}
	return view;
}

static void *find(void *context)
{
	struct held_view *view = context;

	pl_log_mute();
	view->code = pl_held_find(view->held, &view->rows, &view->row_count, &view->err);
	atomic_store(&view->done, true);
	return NULL;
}

static void clear(struct held_view *view)
{
	pl_held_free(PL_TAKE(view->held));
	pl_held_rows_free(PL_TAKE(view->rows), view->row_count);
	view->row_count = 0;
	view->running = false;
}

/* Signals are for the thread that looks at the process. */
static int start_thread(struct held_view *view)
{
	sigset_t all, before;
	int code;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	atomic_store(&view->done, false);
	code = pthread_create(&view->thread, NULL, find, view);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return code == 0 ? 0 : pl_fail(&view->err, -code, "no thread can be started");
}

/* One row, with the sites that it is of. */
static int stop(struct held_view *view, const struct pl_sites *sites, struct pl_row *row, enum pl_group group_by)
{
	size_t count = pl_sites_count(sites);
	pl_autofree uint32_t *row_of_site = malloc((count + 1) * sizeof(*row_of_site));
	const struct pl_rows rows = {.items = row, .count = 1, .row_of_site = row_of_site, .site_count = count};

	if (!row_of_site)
		return pl_fail(&view->err, -ENOMEM, "out of memory");
	for (size_t site = 0; site < count; site++)
		row_of_site[site] = pl_row_has_site(row, group_by, sites, (uint32_t)site) ? 0 : UINT32_MAX;
	return pl_held_stop(view->held, &rows, 1, view->most_ns, &view->err);
}

static void start(struct held_view *view, struct pl_live *live, const struct pl_sites *sites, struct pl_row *row,
	enum pl_group group_by)
{
	view->err = (struct pl_error){0};
	view->code = pl_held_prepare(view->targets, &view->held, &view->err);
	if (view->code == 0)
		view->code = stop(view, sites, row, group_by);
	if (view->code == 0)
		view->code = start_thread(view);
	view->running = view->code == 0;
	if (view->running) {
		pl_live_show_held(live, "held by: being found\xe2\x80\xa6");
		return;
	}
	pl_live_show_held(live, view->err.text);
	clear(view);
}

static void show(struct held_view *view, struct pl_live *live)
{
	const struct pl_held_row *row = view->code == 0 && view->row_count ? &view->rows[0] : NULL;
	char text[TEXT_MAX] = "", count[PL_NUMBER_TEXT], of[PL_NUMBER_TEXT], took[PL_SIZE_TEXT];
	size_t used = 0;

	pl_format_duration(pl_held_stop_ns(view->held), took);
	for (size_t i = 0; row && i < row->held_by_count && i < SHOWN && used < sizeof(text); i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used, "held by: %s (%s of %s blocks)\n", row->held_by[i].path,
			pl_format_number(row->held_by[i].count, count), pl_format_number(row->count, of));
	if (row && used < sizeof(text))
		(void)snprintf(text + used, sizeof(text) - used, "(%sit was stopped for %s)", row->held_by_count ? "" : "nothing of this row was alive; ", took);
	pl_live_show_held(live, row ? text : view->err.text);
}

void held_view_look(struct held_view *view, struct pl_live *live)
{
	const struct pl_sites *sites;
	enum pl_group group_by;
	struct pl_row row;

	if (view->running) {
		if (!atomic_load(&view->done))
			return;
		(void)pthread_join(view->thread, NULL);
		show(view, live);
		clear(view);
		return;
	}
	if (pl_live_wants_held(live, &sites, &row, &group_by))
		start(view, live, sites, &row, group_by);
}

void held_view_free(struct held_view *view)
{
	if (!view)
		return;
	if (view->running)
		(void)pthread_join(view->thread, NULL);
	clear(view);
	free(view);
}
