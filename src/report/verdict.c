/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "pyleak/report.h"
#include "pyleak/units.h"
#include "terms.h"

static const int64_t nsec_per_day = 86400 * PL_NSEC_PER_SEC;
static const int64_t far_away_days = 3650; /* no machine is up for so long */

/* "82 % of its blocks stay", ", 1 in 250 of its blocks stays"; nothing where none was allocated. */
static void format_kept(double kept, char *text, size_t size)
{
	if (kept <= 0)
		*text = '\0';
	else if (kept >= 0.995)
		(void)snprintf(text, size, ", every block stays");
	else if (kept >= 0.015)
		(void)snprintf(text, size, ", %.0f %% " TERM_STAY, 100 * kept);
	else
		(void)snprintf(text, size, ", 1 in %.0f of its blocks stays", 1 / kept);
}

static void format_end(const struct pl_verdict *verdict, const struct pl_headroom *headroom, char *text, size_t size)
{
	int64_t ns = pl_verdict_time_to_fill(verdict, headroom->left);
	char time[PL_SIZE_TEXT];

	*text = '\0';
	if (verdict->ends) {
		(void)snprintf(text, size, "; of processes that end, within their lives");
		return;
	}
	if (!headroom->limit || ns / nsec_per_day > far_away_days)
		return;
	if (ns < 2 * nsec_per_day)
		pl_format_duration(ns, time);
	else
		(void)snprintf(time, sizeof(time), "%" PRId64 " days", ns / nsec_per_day);
	(void)snprintf(text, size, "; " TERM_FILLS " %s in %s", headroom->cgroup ? "cgroup's memory" : "machine's memory", time);
}

void pl_verdict_text(const struct pl_verdict *verdict, const struct pl_headroom *headroom, char text[PL_VERDICT_TEXT])
{
	char rate[PL_SIZE_TEXT], low[PL_SIZE_TEXT], high[PL_SIZE_TEXT], kept[80], end[96];

	*text = '\0';
	switch (verdict->growth) {
	case PL_GROWTH_NONE:
		return;
	case PL_GROWTH_TURNOVER:
		(void)snprintf(text, PL_VERDICT_TEXT, TERM_TURNS_OVER ": %s as many older blocks go as these come",
			verdict->turned > 0.9 ? "about" : "nearly");
		return;
	case PL_GROWTH_EARLY:
		if (verdict->container) {
			(void)snprintf(text, PL_VERDICT_TEXT,
				TERM_CONTAINER ": its block was made larger; %zu windows are too few to say more",
				verdict->windows);
			return;
		}
		(void)snprintf(text, PL_VERDICT_TEXT, TERM_GROWS "; %zu windows are too few to say more", verdict->windows);
		return;
	case PL_GROWTH_LEVELLING:
		(void)snprintf(text, PL_VERDICT_TEXT, TERM_LEVELS_OFF ": a cache that fills, or a start");
		return;
	case PL_GROWTH_NOISE:
		(void)snprintf(text, PL_VERDICT_TEXT, TERM_NO_TREND " in %zu windows: noise", verdict->windows);
		return;
	case PL_GROWTH_STEADY:
		pl_format_rate(verdict->rate, true, verdict->rate, rate);
		pl_format_rate(verdict->rate_low, false, verdict->rate, low);
		pl_format_rate(verdict->rate_high, false, verdict->rate, high);
		format_kept(verdict->kept, kept, sizeof(kept));
		format_end(verdict, headroom, end, sizeof(end));
		if (verdict->container)
			(void)snprintf(kept, sizeof(kept), ", one block that only grows: a container that is never emptied");
		(void)snprintf(text, PL_VERDICT_TEXT, TERM_STEADY " in %zu windows: %s/%s (%s to %s)%s%s", verdict->windows,
			rate, pl_rate_unit(verdict->rate), low, high, kept, end);
		return;
	}
}
