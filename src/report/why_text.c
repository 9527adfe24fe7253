/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "account.h"
#include "pyleak/cleanup.h"
#include "pyleak/units.h"
#include "pyleak/why_report.h"
#include "shown.h"

/* The answer for a person in a hurry: ten lines at most. */

enum { LINES_MOST = 10, LINES_MADE = 24, LABEL = 10, INDENT = 2 + LABEL };

/* What goes first if there are too many. */
enum rank { RANK_LINK, RANK_CALLER_SOURCE, RANK_CALLER, RANK_REST, RANK_REST_OF_ADVICE, RANK_SOURCE, RANK_KEPT };

struct answer {
	const struct pl_why *why;
	const struct pl_report_options *options;
	size_t width;
	char *lines[LINES_MADE];
	enum rank ranks[LINES_MADE];
	size_t count;
	bool failed;
};

static size_t columns(const char *text)
{
	size_t count = 0;

	for (; *text; text++)
		count += ((unsigned char)*text & 0xc0) != 0x80;
	return count;
}

/* Takes the line. */
static void add(struct answer *answer, enum rank rank, char *line)
{
	if (!line || answer->count == LINES_MADE) {
		answer->failed |= !line;
		free(line);
		return;
	}
	answer->ranks[answer->count] = rank;
	answer->lines[answer->count++] = line;
}

/* At the end of the last line. */
static void add_more(struct answer *answer, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add_more(struct answer *answer, const char *format, ...)
{
	pl_autofree char *more = NULL;
	va_list arguments;
	char *whole;

	va_start(arguments, format);
	if (vasprintf(&more, format, arguments) < 0)
		more = NULL;
	va_end(arguments);
	if (!more || !answer->count || asprintf(&whole, "%s%s", answer->lines[answer->count - 1], more) < 0) {
		answer->failed = true;
		return;
	}
	free(answer->lines[answer->count - 1]);
	answer->lines[answer->count - 1] = whole;
}

/* A label and what stands behind it, which may hold names of the process's. */
static void add_line(struct answer *answer, enum rank rank, const char *label, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
static void add_line(struct answer *answer, enum rank rank, const char *label, const char *format, ...)
{
	pl_autofree char *raw = NULL;
	pl_autofree char *clean = NULL;
	va_list arguments;
	char *line;

	va_start(arguments, format);
	if (vasprintf(&raw, format, arguments) < 0)
		raw = NULL;
	va_end(arguments);
	clean = raw ? pl_printable(raw) : NULL;
	if (!clean || asprintf(&line, "  %-*s%s", (int)LABEL, label, clean) < 0)
		line = NULL;
	add(answer, rank, line);
}

/* A text of words, over two lines at most; what is left then is cut. */
static void add_words(struct answer *answer, enum rank second, const char *label, const char *text)
{
	size_t room = answer->width - INDENT;

	for (int i = 0; *text && i < 2; i++) {
		size_t length = strlen(text), end = length;
		bool cut;

		if (columns(text) > room) {
			end = 0;
			for (size_t at = 0, column = 0; at < length && column <= room - 4; at++) {
				column += ((unsigned char)text[at] & 0xc0) != 0x80;
				if (text[at] == ' ' && column <= room - 4)
					end = at;
			}
			if (!end)
				end = length;
		}
		cut = i == 1 && end < length;
		add_line(answer, i ? second : RANK_KEPT, i ? "" : label, "%.*s%s", (int)end, text, cut ? " ..." : "");
		text += end + strspn(text + end, " ");
	}
}

static void add_source(struct answer *answer, enum rank rank, const char *filename, int line)
{
	pl_autofree char *source = shown_source(answer->options, filename, line);
	size_t room = answer->width - INDENT - 4;

	if (!source)
		return;
	/* By bytes: a character may be several of them, and what is no character becomes four columns. */
	if (columns(source) > room) {
		size_t length = room - 4;

		while (length && ((unsigned char)source[length] & 0xc0) == 0x80)
			length--;
		source[length] = '\0';
		add_line(answer, rank, "", "    %s ...", source);
		return;
	}
	add_line(answer, rank, "", "    %s", source);
}

static void format_whole(int64_t ns, char text[PL_SIZE_TEXT])
{
	int64_t seconds = (ns + PL_NSEC_PER_SEC / 2) / PL_NSEC_PER_SEC;

	if (ns >= PL_NSEC_PER_SEC && seconds < 60)
		(void)snprintf(text, PL_SIZE_TEXT, "%" PRId64 " s", seconds);
	else
		pl_format_duration(ns, text);
	if (ns < PL_NSEC_PER_SEC && ns % PL_NSEC_PER_MSEC == 0)
		(void)snprintf(text, PL_SIZE_TEXT, "%lld ms", ns / PL_NSEC_PER_MSEC);
}

static const char *plural(size_t count)
{
	return count == 1 ? "" : "s";
}

/* "process 4711", "process 4711 and its children" */
static void format_subject(const struct pl_why *why, char *text, size_t size)
{
	if (why->children && why->report->pid_count > 1)
		(void)snprintf(text, size, "%zu processes of %d together", why->report->pid_count, (int)why->report->facts.pid);
	else
		(void)snprintf(text, size, "process %d", (int)why->report->facts.pid);
}

static bool is_leak(const struct pl_why *why)
{
	return why->kind == PL_WHY_LEAK || why->kind == PL_WHY_PERHAPS;
}

static void add_head(struct answer *answer)
{
	const struct pl_why *why = answer->why;
	const struct pl_report *report = why->report;
	char subject[64], window[PL_SIZE_TEXT], rate[PL_SIZE_TEXT], low[PL_SIZE_TEXT], high[PL_SIZE_TEXT], *line = NULL;
	bool many = why->children && report->pid_count > 1;
	int length = -1;

	format_subject(why, subject, sizeof(subject));
	format_whole(why->interval_ns, window);
	switch (why->kind) {
	case PL_WHY_LEAK:
	case PL_WHY_PERHAPS:
		pl_format_rate(why->steady_rate, false, why->steady_rate, rate);
		pl_format_rate(report->verdicts[why->row].rate_low, false, why->steady_rate, low);
		pl_format_rate(report->verdicts[why->row].rate_high, false, why->steady_rate, high);
		length = asprintf(&line, "%s %s %s/%s: steady growth in %zu windows of %s", subject,
			why->kind == PL_WHY_PERHAPS ? "may leak" : many ? "leak" : "leaks", rate,
			pl_rate_unit(why->steady_rate), why->windows, window);
		if (length >= 0 && why->steady == 1) {
			char *whole;

			length = asprintf(&whole, "%s (%s to %s)", line, low, high);
			free(line);
			line = length < 0 ? NULL : whole;
		}
		break;
	case PL_WHY_FRAGMENTED:
	case PL_WHY_ELSEWHERE:
		pl_format_rate(why->rss_rate, false, why->rss_rate, rate);
		length = asprintf(&line, "%s grow%s by %s/%s in %zu windows of %s, and no line of Python leaks", subject,
			many ? "" : "s", rate, pl_rate_unit(why->rss_rate), why->windows, window);
		break;
	case PL_WHY_CACHE:
	case PL_WHY_NOTHING:
		length = asprintf(&line, "%s do%s not leak, as far as %zu windows of %s can tell", subject, many ? "" : "es",
			why->windows, window);
		break;
	case PL_WHY_IDLE:
		length = asprintf(&line, "%s did next to nothing in %zu windows of %s, and did not grow", subject, why->windows,
			window);
		break;
	case PL_WHY_EARLY:
	case PL_WHY_KINDS:
		length = asprintf(&line, "%s: %zu window%s %s too few to tell whether it leaks", subject, why->windows,
			plural(why->windows), why->windows == 1 ? "is" : "are");
		break;
	}
	add(answer, RANK_KEPT, length < 0 ? NULL : line);
}

static void add_memory(struct answer *answer)
{
	const struct pl_why *why = answer->why;
	const struct pl_report *report = why->report;
	char rss[PL_SIZE_TEXT], grown[PL_SIZE_TEXT], time[PL_SIZE_TEXT], allocated[PL_SIZE_TEXT];

	pl_format_size((int64_t)report->rss_after, false, rss);
	pl_format_size((int64_t)(report->rss_after - report->rss_before), true, grown);
	format_whole(report->window_ns, time);
	if (!report->rss_after || !report->rss_before) {
		add_line(answer, RANK_KEPT, "memory", "not known: the process has ended");
		return;
	}
	add_line(answer, RANK_KEPT, "memory", "RSS %s, %s in %s", rss, grown, time);
	if (why->full_ns < INT64_MAX) {
		pl_format_size((int64_t)report->headroom.limit, false, allocated);
		pl_format_duration(why->full_ns, time);
		add_more(answer, "; if this goes on, the %s's %s are full in %s", report->headroom.cgroup ? "cgroup" : "machine",
			allocated, time);
	} else if (!is_leak(why)) {
		pl_format_size(why->allocated > INT64_MAX ? INT64_MAX : (int64_t)why->allocated, false, allocated);
		add_more(answer, "; %s were allocated meanwhile", allocated);
	}
}

static void add_place(struct answer *answer, enum rank rank, const char *label, const char *filename, int line,
	const char *function)
{
	if (line)
		add_line(answer, rank, label, "%s:%d%s%s%s", filename, line, function ? " (" : "", function ? function : "",
			function ? ")" : "");
	else
		add_line(answer, rank, label, "%s%s%s%s", filename, function ? " (" : "", function ? function : "",
			function ? ")" : "");
}

static void add_native(struct answer *answer, const struct pl_row *row)
{
	const struct pl_native_caller *caller =
		row->domain == PL_SITE_NATIVE ? pl_sites_native_caller(answer->why->report->sites, row->site) : NULL;
	const char *slash = caller ? strrchr(caller->module, '/') : NULL;

	if (!caller)
		return;
	add_line(answer, RANK_LINK, "native", "%s%s%s%s", slash ? slash + 1 : caller->module, caller->symbol ? " (" : "",
		caller->symbol ? caller->symbol : "", caller->symbol ? ")" : "");
}

/* A name that may be long, and figures: on one line, or on two. */
static void add_figures(struct answer *answer, const char *figures)
{
	const char *line = answer->count ? answer->lines[answer->count - 1] : "";

	if (columns(line) + 2 + columns(figures) <= answer->width)
		add_more(answer, ": %s", figures);
	else
		add_line(answer, RANK_KEPT, "", "%s", figures);
}

/* Where it is put into what keeps it. */
static void add_container(struct answer *answer, const struct pl_row *row)
{
	pl_autofree char *source = shown_source(answer->options, row->filename, row->line);
	pl_autofree char *clean = source ? pl_printable(source) : NULL;

	add_place(answer, RANK_KEPT, "put at", row->filename, row->line, row->function);
	if (!clean)
		return;
	if (columns(answer->lines[answer->count - 1]) + 2 + columns(clean) <= answer->width)
		add_more(answer, ": %s", clean);
	else
		add_source(answer, RANK_CALLER_SOURCE, row->filename, row->line);
}

static void add_row(struct answer *answer)
{
	const struct pl_why *why = answer->why;
	const struct pl_row *row = &why->report->rows->items[why->row];
	const struct pl_verdict *verdict = &why->report->verdicts[why->row];
	const struct pl_frame *caller = pl_why_caller(why);
	const struct pl_frame *inner = pl_why_allocated_in(why);
	char grown[PL_SIZE_TEXT], figures[256];
	size_t used;

	pl_format_size(row->size_diff, true, grown);
	used = (size_t)snprintf(figures, sizeof(figures), "%s", grown);
	if (verdict->growth == PL_GROWTH_STEADY && verdict->container)
		used += (size_t)snprintf(figures + used, sizeof(figures) - used, ", one block that only grows");
	else if (verdict->growth == PL_GROWTH_STEADY && verdict->kept > 0)
		used += (size_t)snprintf(figures + used, sizeof(figures) - used, ", %.3g %% of its blocks stay", fmin(100 * verdict->kept, 100));
	else if (verdict->growth == PL_GROWTH_LEVELLING)
		used += (size_t)snprintf(figures + used, sizeof(figures) - used, ", and levels off: a cache that fills, or a start");
	else if (verdict->growth == PL_GROWTH_TURNOVER)
		used += (size_t)snprintf(figures + used, sizeof(figures) - used, ", and turns over: as many older blocks go");
	if (is_leak(why) && why->steady > 1) {
		pl_format_size(why->steady_diff - row->size_diff, true, grown);
		(void)snprintf(figures + used, sizeof(figures) - used, "; %zu more line%s %s", why->steady - 1, plural(why->steady - 1),
			grown);
	}
	add_place(answer, RANK_KEPT, is_leak(why) ? "line" : "largest", row->filename, row->line, row->function);
	add_figures(answer, figures);
	add_source(answer, RANK_SOURCE, row->filename, row->line);
	if (inner)
		add_place(answer, RANK_LINK, "in", inner->filename, inner->line, inner->function);
	add_native(answer, row);
	if (why->container != SIZE_MAX)
		add_container(answer, &why->report->rows->items[why->container]);
	if (!caller)
		return;
	add_place(answer, RANK_CALLER, "called", caller->filename, caller->line, caller->function);
	add_source(answer, RANK_CALLER_SOURCE, caller->filename, caller->line);
}

static void add_holder(struct answer *answer)
{
	const struct pl_why *why = answer->why;
	char count[PL_NUMBER_TEXT], of[PL_NUMBER_TEXT], figures[128] = "";

	if (why->held && why->held->held_by_count)
		(void)snprintf(figures, sizeof(figures), "%s%s of %s block%s of this line",
			why->held->looked_at < why->held->count ? "about " : "",
			pl_format_number(why->held->held_by[0].count, count), pl_format_number(why->held->count, of),
			plural(why->held->count));
	switch (why->holding) {
	case PL_WHY_NOT_ASKED:
		return;
	case PL_WHY_HELD:
		if (why->held)
			add_line(answer, RANK_KEPT, "held by", "%s", why->held->held_by[0].path);
		break;
	case PL_WHY_CYCLES:
		add_line(answer, RANK_KEPT, "held by", "nobody: garbage in cycles, which waits for the collector");
		break;
	case PL_WHY_BY_NATIVE:
		add_line(answer, RANK_KEPT, "held by", "native code, or nobody: no variable leads to it");
		break;
	case PL_WHY_NOT_SEEN:
		add_line(answer, RANK_KEPT, "held by", "not found: its blocks went while they were looked for");
		return;
	case PL_WHY_REFUSED:
		add_words(answer, RANK_REST, "held by", why->refusal);
		return;
	}
	add_figures(answer, figures);
}

/* The line of the account, without its beginning. */
static void add_account(struct answer *answer)
{
	pl_autofree char *text = NULL;
	size_t length = 0;
	FILE *stream = open_memstream(&text, &length);

	if (!stream) {
		answer->failed = true;
		return;
	}
	account_print(stream, answer->why->report);
	if (fclose(stream) != 0 || !text) {
		answer->failed = true;
		return;
	}
	if (!*text)
		return;
	text[strcspn(text, "\n")] = '\0';
	add_words(answer, RANK_REST, "where", text);
}

static void add_cause(struct answer *answer)
{
	const struct pl_why *why = answer->why;
	const struct pl_cause *cause = why->cause;
	pl_autofree char *advice = pl_why_advice(why);

	if (cause)
		add_words(answer, RANK_REST, "cause", cause->cause);
	if (advice)
		add_words(answer, RANK_REST_OF_ADVICE, "do", advice);
	else
		answer->failed = true;
	if (cause)
		add_line(answer, RANK_LINK, "see", "%s", cause->see);
}

static void add_commands(struct answer *answer)
{
	const struct pl_why *why = answer->why;
	int pid = (int)why->report->facts.pid;
	const char *children = why->children ? " --children" : "";

	switch (why->kind) {
	case PL_WHY_LEAK:
	case PL_WHY_CACHE:
		add_line(answer, RANK_KEPT, "more", "pyleak diff %d -c 8 --holders%s (lines)", pid, children);
		if (!why->children)
			add_more(answer, ", pyleak holders %d -i 10s (variables)", pid);
		return;
	case PL_WHY_FRAGMENTED:
	case PL_WHY_ELSEWHERE:
		add_line(answer, RANK_KEPT, "more", "pyleak diff %d -c 8%s (lines), pyleak doctor %d (what is recorded)", pid,
			children, pid);
		return;
	case PL_WHY_PERHAPS:
	case PL_WHY_NOTHING:
	case PL_WHY_IDLE:
	case PL_WHY_EARLY:
	case PL_WHY_KINDS:
		break;
	}
	add_line(answer, RANK_KEPT, "more", "pyleak why %d -d 10m%s (for longer), pyleak holders %d (what it keeps)", pid,
		children, pid);
}

static void mark_as_cut(struct answer *answer, char **line)
{
	char *whole;

	if (asprintf(&whole, "%s ...", *line) < 0) {
		answer->failed = true;
		return;
	}
	free(*line);
	*line = whole;
}

static void drop_what_is_too_much(struct answer *answer)
{
	while (answer->count > LINES_MOST) {
		size_t least = 0;

		for (size_t i = 1; i < answer->count; i++)
			if (answer->ranks[i] <= answer->ranks[least])
				least = i;
		free(answer->lines[least]);
		answer->lines[least] = NULL;
		/* There is room for that: add_words() leaves it. */
		if (answer->ranks[least] == RANK_REST || answer->ranks[least] == RANK_REST_OF_ADVICE)
			mark_as_cut(answer, &answer->lines[least - 1]);
		answer->count--;
		memmove(&answer->lines[least], &answer->lines[least + 1], (answer->count - least) * sizeof(answer->lines[0]));
		memmove(&answer->ranks[least], &answer->ranks[least + 1], (answer->count - least) * sizeof(answer->ranks[0]));
	}
}

int pl_why_text(FILE *out, const struct pl_why *why, const struct pl_report_options *options, size_t width)
{
	struct answer answer = {.why = why, .options = options, .width = width};
	const char *style = why->kind == PL_WHY_LEAK ? "\033[1;31m" : "\033[1m";

	add_head(&answer);
	add_memory(&answer);
	if (why->kind == PL_WHY_FRAGMENTED || why->kind == PL_WHY_ELSEWHERE)
		add_account(&answer);
	if (why->row != SIZE_MAX)
		add_row(&answer);
	add_holder(&answer);
	add_cause(&answer);
	add_commands(&answer);
	drop_what_is_too_much(&answer);
	for (size_t i = 0; i < answer.count; i++) {
		(void)fprintf(out, "%s%s%s\n", i == 0 && options->color ? style : "", answer.lines[i],
			i == 0 && options->color ? "\033[0m" : "");
		free(answer.lines[i]);
	}
	if (answer.failed)
		return -ENOMEM;
	return ferror(out) ? -EIO : 0;
}
