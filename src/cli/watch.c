/* SPDX-License-Identifier: MIT */
#include "watch.h"

#include <errno.h>

#include "pyleak/headroom.h"
#include "pyleak/hook.h"
#include "pyleak/log.h"
#include "pyleak/units.h"

#define PAUSE_MIN_NSEC (20 * PL_NSEC_PER_MSEC)
#define PAUSE_MAX_NSEC PL_NSEC_PER_SEC
/* A fiftieth of the time at most: a family may have many members. */
#define SHARE 50

static int give_up(struct pl_targets *targets, const struct pl_target *tight, const struct pl_headroom *headroom,
	struct pl_error *err)
{
	char left[PL_SIZE_TEXT], limit[PL_SIZE_TEXT], taken[PL_SIZE_TEXT];
	bool any = false;

	/* What a family takes together may be what is lacking. */
	for (size_t i = 0; i < pl_targets_count(targets); i++) {
		const struct pl_target *target = pl_targets_at(targets, i);

		if (target->ended)
			continue;
		/* If we die now the tables would stay, of a probe that was there before too: one that is switched off the
		 * guardian takes for left behind. */
		if (pl_guardian_add(target->pid, target->start_time) < 0)
			pl_log_debug("no guardian for process %d", (int)target->pid);
		any |= pl_engine_disarm(target->engine) == 0;
	}
	/* Breakpoints take no memory. */
	if (!any)
		return 0;
	pl_format_size((int64_t)headroom->left, false, left);
	pl_format_size((int64_t)headroom->limit, false, limit);
	pl_format_size((int64_t)pl_targets_memory(targets), false, taken);
	return pl_fail(err, -ECANCELED,
		"process %d has only %s left of %s %s: recording has ended, and the %s that it took %s given back; the "
		"report is of what was recorded until then",
		(int)tight->pid, left, headroom->cgroup ? "its cgroup's" : "the machine's", limit, taken,
		targets->family ? "in all processes are" : "are");
}

int pl_watch_headroom(struct pl_targets *targets, struct pl_error *err)
{
	int64_t now = pl_now_ns(), pause = PAUSE_MAX_NSEC, taken;

	if (now < targets->next_headroom_look)
		return 0;
	targets->next_headroom_look = now + PAUSE_MAX_NSEC;
	for (size_t i = 0; i < pl_targets_count(targets); i++) {
		const struct pl_target *target = pl_targets_at(targets, i);
		struct pl_headroom headroom;
		int64_t lasts;

		if (target->ended || pl_headroom_read("", target->pid, &headroom) < 0)
			continue;
		if (headroom.left < headroom.floor)
			return give_up(targets, target, &headroom, err);
		/* At a byte each nanosecond. */
		lasts = (int64_t)(headroom.left - headroom.floor);
		if (lasts < pause)
			pause = lasts;
	}
	taken = pl_now_ns() - now;
	if (pause < PAUSE_MIN_NSEC)
		pause = PAUSE_MIN_NSEC;
	if (pause < taken * SHARE)
		pause = taken * SHARE;
	targets->next_headroom_look = now + pause;
	return 0;
}
