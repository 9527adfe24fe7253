/* SPDX-License-Identifier: MIT */
#include "windows.h"

#include <time.h>

#include "members.h"
#include "pyleak/units.h"
#include "terms.h"

enum { TIME_TEXT = 32 };

/* On the clock of the recording's start: seconds since 1970. */
static time_t wall_time(const struct pl_report *report, int64_t taken_ns)
{
	int64_t since_ns = taken_ns - report->facts.since_ns + report->facts.started.tv_nsec;

	return report->facts.started.tv_sec + (time_t)(since_ns / PL_NSEC_PER_SEC);
}

/* A person's: in local time, and with the day where it is another than that of `before` (0: none). */
static void format_time(time_t at, time_t before, char text[TIME_TEXT])
{
	struct tm now, then = {0};

	*text = '\0';
	if (!localtime_r(&at, &now) || (before && !localtime_r(&before, &then)))
		return;
	(void)strftime(text, TIME_TEXT, now.tm_yday == then.tm_yday && now.tm_year == then.tm_year ? "%H:%M:%S" : "%Y-%m-%d %H:%M:%S",
		&now);
}

void windows_print_head(FILE *out, const struct pl_report *report)
{
	time_t from = wall_time(report, report->taken_ns - report->window_ns), to = wall_time(report, report->taken_ns);
	char first[TIME_TEXT], last[TIME_TEXT];

	if (!report->window)
		return;
	format_time(from, 0, first);
	format_time(to, from, last);
	(void)fprintf(out, TERM_WINDOW " %zu", report->window);
	if (report->windows)
		(void)fprintf(out, " of %zu", report->windows);
	(void)fprintf(out, ", %s to %s:\n", first, last);
}

static void print_place(FILE *out, const struct pl_report *report, const struct pl_row *row)
{
	const struct pl_frame *caller = report->group_by == PL_GROUP_TRACEBACK ? NULL : pl_row_caller(report->sites, row);

	pl_text_print(out, row->filename);
	if (report->group_by != PL_GROUP_FILE)
		(void)fprintf(out, ":%d", row->line);
	if (report->group_by == PL_GROUP_FUNCTION && row->function) {
		(void)fputs(" (", out);
		pl_text_print(out, row->function);
		(void)fputc(')', out);
	}
	if (!caller)
		return;
	(void)fputs(", " TERM_CALLED_FROM " ", out);
	pl_text_print(out, caller->filename);
	(void)fprintf(out, ":%d", caller->line);
}

static void print_growth(FILE *out, const struct pl_verdict *verdict)
{
	static const char *const words[] = {
		[PL_GROWTH_NONE] = "",
		[PL_GROWTH_EARLY] = "",
		[PL_GROWTH_STEADY] = TERM_STEADY,
		[PL_GROWTH_LEVELLING] = TERM_LEVELS_OFF,
		[PL_GROWTH_NOISE] = TERM_NO_TREND,
		[PL_GROWTH_TURNOVER] = TERM_TURNS_OVER,
	};
	char rate[PL_SIZE_TEXT];

	if (*words[verdict->growth])
		(void)fprintf(out, ": %s", words[verdict->growth]);
	if (verdict->growth != PL_GROWTH_STEADY)
		return;
	pl_format_rate(verdict->rate, true, verdict->rate, rate);
	(void)fprintf(out, ", %s/%s", rate, pl_rate_unit(verdict->rate));
}

void windows_print_grown(FILE *out, const struct pl_report *report)
{
	char duration[PL_SIZE_TEXT], size[PL_SIZE_TEXT];

	if (!report->grown_windows)
		return;
	if (!report->grown_count) {
		(void)fprintf(out, "\n" TERM_OVER_ALL " %zu windows no row grew\n", report->grown_windows);
		return;
	}
	pl_format_duration(report->grown_ns, duration);
	(void)fprintf(out, "\n" TERM_OVER_ALL " %zu windows (%s) grew most:\n", report->grown_windows, duration);
	/* What is a hundredth of the largest is not what one looks for. */
	for (size_t i = 0; i < report->grown_count && report->grown[i].size >= report->grown[0].size / 100; i++) {
		const struct pl_grown *grown = &report->grown[i];

		pl_format_size(grown->size, true, size);
		(void)fprintf(out, "  %10s  ", size);
		print_place(out, report, grown->row);
		print_growth(out, &grown->verdict);
		(void)fputc('\n', out);
	}
}

static bool put_time(json_t *object, const char *key, time_t at)
{
	char text[TIME_TEXT] = "";
	struct tm utc;

	if (gmtime_r(&at, &utc))
		(void)strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc);
	return put_string(object, key, text);
}

json_t *windows_make_window(const struct pl_report *report)
{
	json_t *item = json_object();
	bool failed = put_integer(item, "number", (int64_t)report->window);

	failed |= put(item, "of", report->windows ? json_integer((json_int_t)report->windows) : json_null());
	failed |= put_time(item, "from", wall_time(report, report->taken_ns - report->window_ns));
	failed |= put_time(item, "to", wall_time(report, report->taken_ns));
	if (!failed)
		return item;
	json_decref(item);
	return NULL;
}

static json_t *make_row(const struct pl_grown *grown)
{
	const struct pl_row *row = grown->row;
	json_t *item = json_object();
	bool failed = put_string(item, "domain", row->domain == PL_SITE_NATIVE ? "native" : "python");

	failed |= put_frame(item, row->filename, row->line, row->function);
	failed |= put_integer(item, "size_diff", grown->size);
	failed |= put_string(item, "kind", pl_growth_name(grown->verdict.growth));
	if (!failed)
		return item;
	json_decref(item);
	return NULL;
}

json_t *windows_make_grown(const struct pl_report *report)
{
	json_t *object = json_object(), *list = json_array();
	bool failed = put_integer(object, "windows", (int64_t)report->grown_windows);

	for (size_t i = 0; i < report->grown_count && !failed; i++)
		failed = json_array_append_new(list, make_row(&report->grown[i])) < 0;
	failed |= put_thousandths(object, "window_s", report->grown_ns, PL_NSEC_PER_MSEC);
	failed |= put(object, "stats", list);
	if (!failed)
		return object;
	json_decref(object);
	return NULL;
}
