/* SPDX-License-Identifier: MIT */
#include "why_judge.h"

#include <math.h>
#include <stdlib.h>

#include "pyleak/units.h"

#define LEAST_WINDOWS 4	     /* before that nothing is said */
#define SURE_WINDOWS 5	     /* before that it is not over early */
#define SURE_TIMES 3	     /* in a row, with the same answer */
#define SURE_SPREAD 0.6	     /* of its rate: the lower end of its interval against the upper one */
#define IDLE_BYTES (64 << 10) /* allocated in all that time: less is what a process does that does nothing */
#define OWN_SHARE 0.01	     /* of all that grows steadily: so much is enough for a line of the program's to be the answer */
#define GROWN_LEAST 1024     /* bytes that a row grew by: less is not worth a word, whatever it is */
#define ENOUGH_BYTES (64 << 10) /* that all rows which leak grew by: less needs more windows, and a good part that stays */
#define ENOUGH_WINDOWS 8
#define ENOUGH_KEPT 0.05
#define CACHE_LEAST (16 << 10) /* and of a cache, as there are many */
#define RSS_LEAST (1 << 20)  /* growth of the resident size that is worth a word */
#define RSS_SHARE 100	     /* or so small a part of it */
#define RISING_SHARE 0.7     /* of the windows in which it grew: a step is no growth that goes on */
#define STACKS_MOST 200	     /* tracebacks that are looked at for a known cause, the largest growth first */
#define CAUSES_MOST 16
#define CAUSE_SHARE 0.01     /* of what grows steadily: so much has the cause's traceback, what it keeps has others */
#define NSEC_PER_HOUR (3600.0 * PL_NSEC_PER_SEC)

static void take_faster(const struct pl_report *report, size_t row, size_t *fastest)
{
	if (*fastest == SIZE_MAX || report->verdicts[row].rate > report->verdicts[*fastest].rate)
		*fastest = row;
}

static bool is_own(const struct pl_report *report, size_t row)
{
	return pl_sites_caller(report->sites, report->rows->items[row].site).kind == PL_CALLER_OWN;
}

/* The one that grows fastest, and is the program's own, where such grow too; SIZE_MAX if none does. */
static size_t find_steady(const struct pl_report *report, struct pl_why *why)
{
	size_t fastest = SIZE_MAX, own = SIZE_MAX;

	for (size_t i = 0; i < report->verdict_count; i++) {
		const struct pl_verdict *verdict = &report->verdicts[i];

		if (verdict->growth != PL_GROWTH_STEADY || report->rows->items[i].size_diff < GROWN_LEAST)
			continue;
		why->steady++;
		why->steady_rate += verdict->rate;
		why->steady_diff += report->rows->items[i].size_diff;
		take_faster(report, i, &fastest);
		if (is_own(report, i))
			take_faster(report, i, &own);
		if (verdict->container && is_own(report, i))
			take_faster(report, i, &why->container);
	}
	/* What a library does by itself is mostly for what the program keeps. */
	return own != SIZE_MAX && report->verdicts[own].rate >= OWN_SHARE * why->steady_rate ? own : fastest;
}

/* The first, which is the largest, with such a verdict. */
static size_t find_growth(const struct pl_report *report, enum pl_growth growth, enum pl_growth or)
{
	for (size_t i = 0; i < report->verdict_count; i++)
		if ((report->verdicts[i].growth == growth || report->verdicts[i].growth == or) &&
			report->rows->items[i].size_diff >= CACHE_LEAST)
			return i;
	return SIZE_MAX;
}

/* Whether the resident size grows, and goes on doing so; and its rate. */
static bool rss_rises(const struct pl_report *report, struct pl_why *why)
{
	int64_t taken[PL_HISTORY_POINTS];
	uint64_t rss[PL_HISTORY_POINTS];
	size_t count = report->history ? pl_history_moments(report->history, taken, rss) : 0, rises = 0;

	if (count < 2 || taken[count - 1] <= taken[0] || !rss[0] || !rss[count - 1])
		return false;
	for (size_t i = 1; i < count; i++)
		rises += rss[i] > rss[i - 1];

	double grown = (double)rss[count - 1] - (double)rss[0];

	why->rss_rate = grown * NSEC_PER_HOUR / (double)(taken[count - 1] - taken[0]);
	return grown > fmax(RSS_LEAST, (double)rss[0] / RSS_SHARE) && (double)rises >= RISING_SHARE * (double)(count - 1);
}

/* By all that grows. */
static int64_t time_to_full(const struct pl_report *report, const struct pl_why *why)
{
	const struct pl_verdict all = {
		.growth = PL_GROWTH_STEADY,
		.watched_ns = report->window_ns,
		.rate = fmax(why->steady_rate, why->rss_rate),
	};

	return report->headroom.limit ? pl_verdict_time_to_fill(&all, report->headroom.left) : INT64_MAX;
}

static bool ends(const struct pl_why *why)
{
	return why->row != SIZE_MAX && why->report->verdicts[why->row].ends;
}

/* Interpreters and libraries have many small caches that fill when a service is first asked: some hundred strings. */
static bool is_enough(const struct pl_why *why)
{
	/* Blocks that are older go as these come: the cache was full before, and has not been gone round yet. */
	if (why->report->older.sized && pl_report_net_growth(why->report) < why->steady_diff / 2)
		return false;
	return why->steady_diff >= ENOUGH_BYTES ||
	       (why->windows >= ENOUGH_WINDOWS && why->report->verdicts[why->row].kept >= ENOUGH_KEPT);
}

void pl_why_judge(const struct pl_report *report, struct pl_why *why)
{
	bool rises;

	*why = (struct pl_why){
		.report = report,
		.row = SIZE_MAX,
		.container = SIZE_MAX,
		.windows = report->history ? pl_history_windows(report->history) : 0,
		.full_ns = INT64_MAX,
		.allocated = report->rows->total.window.allocated_size,
	};
	if (why->windows)
		why->interval_ns = report->window_ns / (int64_t)why->windows;
	rises = rss_rises(report, why);
	if (why->windows < LEAST_WINDOWS || !report->verdict_count) {
		why->kind = why->windows < LEAST_WINDOWS ? PL_WHY_EARLY : PL_WHY_IDLE;
		return;
	}
	why->row = find_steady(report, why);
	if (why->row != SIZE_MAX) {
		why->kind = is_enough(why) ? PL_WHY_LEAK : PL_WHY_PERHAPS;
		if (why->container == why->row)
			why->container = SIZE_MAX;
	} else if (rises && report->growth.known && report->growth.fragmentation) {
		why->kind = PL_WHY_FRAGMENTED;
	} else if (rises) {
		why->kind = PL_WHY_ELSEWHERE;
		why->row = find_growth(report, PL_GROWTH_LEVELLING, PL_GROWTH_EARLY);
	} else if (why->allocated < IDLE_BYTES) {
		why->kind = PL_WHY_IDLE;
	} else {
		why->row = find_growth(report, PL_GROWTH_LEVELLING, PL_GROWTH_TURNOVER);
		why->kind = why->row == SIZE_MAX ? PL_WHY_NOTHING : PL_WHY_CACHE;
	}
	if ((why->kind == PL_WHY_LEAK && !ends(why)) || why->kind == PL_WHY_ELSEWHERE)
		why->full_ns = time_to_full(report, why);
}

/* A row by caller has many tracebacks, of which one says it all or none. */
void pl_why_find_cause(const struct pl_report *report, pid_t source_pid, struct pl_why *why)
{
	const struct pl_cause_facts facts = pl_cause_facts_read(source_pid, report->facts.python);
	const struct pl_cause *found[CAUSES_MOST];
	double grown[CAUSES_MOST] = {0}, all = 0;
	size_t count = 0, best = 0;

	for (size_t i = 0; report->stacks && i < report->stacks->count && i < STACKS_MOST; i++) {
		const struct pl_row *stack = &report->stacks->items[i];
		size_t row = stack->site < report->rows->site_count ? report->rows->row_of_site[stack->site] : SIZE_MAX, at = 0;
		const struct pl_cause *cause;

		if (row >= report->verdict_count || report->verdicts[row].growth != PL_GROWTH_STEADY || stack->size_diff <= 0)
			continue;
		all += (double)stack->size_diff;
		cause = pl_known_cause(report->sites, stack->site, &facts, source_pid);
		while (cause && at < count && found[at] != cause)
			at++;
		if (!cause || at == CAUSES_MOST)
			continue;
		if (at == count)
			found[count++] = cause;
		grown[at] += (double)stack->size_diff;
	}
	for (size_t i = 1; i < count; i++)
		if (grown[i] > grown[best])
			best = i;
	why->cause = count && grown[best] > CAUSE_SHARE * all ? found[best] : NULL;
}

bool pl_why_is_sure(struct pl_why_certainty *certainty, const struct pl_why *why)
{
	const struct pl_row *row = why->row == SIZE_MAX ? NULL : &why->report->rows->items[why->row];
	const struct pl_verdict *verdict = row ? &why->report->verdicts[why->row] : NULL;

	if (why->kind != PL_WHY_LEAK || !verdict || verdict->rate_low < SURE_SPREAD * verdict->rate_high) {
		certainty->times = 0;
		return false;
	}
	if (certainty->times && (certainty->filename != row->filename || certainty->line != row->line))
		certainty->times = 0;
	certainty->filename = row->filename;
	certainty->line = row->line;
	certainty->times++;
	return why->windows >= SURE_WINDOWS && certainty->times >= SURE_TIMES;
}
