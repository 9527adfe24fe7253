/* SPDX-License-Identifier: MIT */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "account.h"
#include "collector.h"
#include "held.h"
#include "members.h"
#include "places.h"
#include "pyleak/report.h"
#include "pyleak/units.h"
#include "shown.h"
#include "windows.h"

static json_t *make_amount(uint64_t size, uint64_t count)
{
	json_t *amount = json_object();
	bool failed = put_unsigned(amount, "size", size) | put_unsigned(amount, "count", count);

	if (!failed)
		return amount;
	json_decref(amount);
	return NULL;
}

/* Blocks older than the recording that were freed. */
static json_t *make_older(const struct pl_report *report)
{
	json_t *older = make_amount(report->older.size, report->older.count);

	if (older && !put_unsigned(older, "sized", report->older.sized))
		return older;
	json_decref(older);
	return NULL;
}

static json_t *make_native_frame(const struct pl_frame *frame, const char *module)
{
	json_t *item = report_make_frame(frame);
	bool failed = put_string(item, "module", module);

	if (!failed && !put(item, "native", json_true()))
		return item;
	json_decref(item);
	return NULL;
}

/* Most recent call last; the native frames alone where Python's are not wanted. */
static json_t *make_traceback(const struct pl_sites *sites, uint32_t site, bool python)
{
	struct pl_traceback traceback;
	json_t *list = json_array();
	bool failed = !list;
	size_t i;

	pl_sites_traceback(sites, site, &traceback);
	for (i = python ? traceback.count : traceback.native; i-- > 0 && !failed;) {
		const struct pl_frame *frame = &traceback.frames[i];
		json_t *item = i < traceback.native ? make_native_frame(frame, traceback.modules[i]) : report_make_frame(frame);

		failed = json_array_append_new(list, item) < 0;
	}
	if (!failed)
		return list;
	json_decref(list);
	return NULL;
}

static uint64_t standard_error(double variance)
{
	return (uint64_t)llround(sqrt(fmax(variance, 0)));
}

/* One standard error of the figures of the same names: of what was sampled, only estimates are known. */
static json_t *make_error(const struct pl_row *row)
{
	json_t *error = json_object();
	bool failed = put_unsigned(error, "size", standard_error(row->window.size_variance));

	failed |= put_unsigned(error, "size_diff", standard_error(row->size_diff_variance));
	failed |= put_unsigned(error, "count", standard_error(row->window.count_variance));
	failed |= put_unsigned(error, "count_diff", standard_error(row->count_diff_variance));
	if (!failed)
		return error;
	json_decref(error);
	return NULL;
}

/* To so many parts of one: not more digits than mean something. */
static json_t *make_real(double number, double parts)
{
	return json_real(round(number * parts) / parts);
}

/* Of a growth that is not steady there is no rate: null. */
static json_t *make_verdict(const struct pl_verdict *verdict, const struct pl_headroom *headroom)
{
	bool steady = verdict->growth == PL_GROWTH_STEADY;
	int64_t full_ns = headroom->limit && !verdict->ends ? pl_verdict_time_to_fill(verdict, headroom->left) : INT64_MAX;
	json_t *item = json_object(), *rate = steady ? json_object() : json_null();
	bool failed = put_string(item, "kind", pl_growth_name(verdict->growth));

	failed |= put_integer(item, "windows", (int64_t)verdict->windows);
	failed |= put_thousandths(item, "watched_s", verdict->watched_ns, PL_NSEC_PER_MSEC);
	if (steady) {
		failed |= put(rate, "size_per_hour", make_real(verdict->rate, 1));
		failed |= put(rate, "low", make_real(verdict->rate_low, 1));
		failed |= put(rate, "high", make_real(verdict->rate_high, 1));
	}
	failed |= put(item, "turned_over", make_real(verdict->turned, 1e3));
	failed |= put(item, "ends", json_boolean(verdict->ends));
	failed |= put(item, "container", json_boolean(verdict->container));
	failed |= put(item, "rate", rate);
	failed |= put(item, "kept", steady ? make_real(verdict->kept, 1e6) : json_null());
	failed |= put(item, "size_per_block", steady ? make_real(verdict->size_per_block, 1e3) : json_null());
	failed |= put(item, "full_in_s", full_ns < INT64_MAX ? json_integer(full_ns / PL_NSEC_PER_SEC) : json_null());
	if (!failed)
		return item;
	json_decref(item);
	return NULL;
}

/* A library's own thread. */
static json_t *make_thread(const struct pl_native_thread *thread)
{
	json_t *item = json_object();
	bool failed = !item;

	failed |= thread->name && put_string(item, "name", thread->name);
	failed |= thread->begins.module && put(item, "runs", make_native_frame(&thread->begins.frame, thread->begins.module));
	failed |= thread->meanwhile.filename && put(item, "meanwhile", report_make_frame(&thread->meanwhile));
	if (!failed)
		return item;
	json_decref(item);
	return NULL;
}

static json_t *make_native(const struct pl_sites *sites, uint32_t site, const struct pl_native_caller *caller)
{
	json_t *native = json_object();
	const struct pl_native_thread *thread = pl_sites_thread(sites, site);
	bool failed = put_string(native, "module", caller->module);

	failed |= put_string(native, "symbol", caller->symbol);
	failed |= put_unsigned(native, "offset", caller->offset);
	failed |= caller->filename && put_string(native, "filename", caller->filename);
	failed |= caller->filename && put_integer(native, "lineno", caller->line);
	failed |= thread && put(native, "thread", make_thread(thread));
	if (pl_sites_stack(sites, site) != UINT32_MAX)
		failed |= put(native, "frames", make_traceback(sites, site, false));
	if (!failed)
		return native;
	json_decref(native);
	return NULL;
}

/* Of Python's own allocators: who of an extension asked them. NULL: nobody is known to. */
static json_t *make_asker(const struct pl_report *report, const struct pl_row *row)
{
	struct pl_traceback traceback;
	json_t *native;
	bool failed;

	if (row->domain != PL_SITE_PYTHON || strcmp(report->facts.engine, "inline") != 0 ||
		pl_sites_stack(report->sites, row->site) == UINT32_MAX)
		return NULL;
	pl_sites_traceback(report->sites, row->site, &traceback);
	if (!traceback.native)
		return NULL;
	native = json_object();
	failed = put_string(native, "module", traceback.modules[0]);
	failed |= put_string(native, "symbol", traceback.frames[0].function);
	failed |= put(native, "frames", make_traceback(report->sites, row->site, false));
	if (!failed)
		return native;
	json_decref(native);
	return NULL;
}

static json_t *make_cause(const struct pl_cause *cause)
{
	json_t *item = json_object();
	bool failed = put_string(item, "name", cause->name);

	failed |= put_string(item, "cause", cause->cause);
	failed |= put_string(item, "remedy", cause->remedy);
	failed |= put_string(item, "see", cause->see);
	if (!failed)
		return item;
	json_decref(item);
	return NULL;
}

/* Each once, of all rows, shown or not. */
static json_t *make_causes(const struct pl_report *report)
{
	json_t *list = json_array();
	bool failed = !list;

	for (size_t i = 0; i < report->cause_count && !failed; i++) {
		bool known = !report->causes[i];

		for (size_t k = 0; k < i && !known; k++)
			known = report->causes[k] == report->causes[i];
		if (!known)
			failed = json_array_append_new(list, make_cause(report->causes[i])) < 0;
	}
	if (!failed)
		return list;
	json_decref(list);
	return NULL;
}

/* Of rows whose own line is a library's. */
static const char *const caller_kinds[] = {
	[PL_CALLER_OWN] = "own",
	[PL_CALLER_TASK] = "task",
	[PL_CALLER_LIBRARY] = "libraries",
};

/* Objects in live blocks. */
static json_t *make_types(const struct pl_row_types *types)
{
	json_t *list = json_array();
	bool failed = !list;

	for (size_t i = 0; i < types->count && !failed; i++) {
		json_t *item = json_object();

		failed = put_string(item, "type", types->items[i].name) ||
			 put_integer(item, "count", llround(types->items[i].count)) || json_array_append(list, item) < 0;
		json_decref(item);
	}
	if (!failed)
		return list;
	json_decref(list);
	return NULL;
}

static json_t *make_row(const struct pl_report *report, const struct pl_row *row, bool traceback)
{
	json_t *item = json_object();
	const struct pl_totals *window = &row->window;
	const struct pl_native_caller *native = pl_sites_native_caller(report->sites, row->site);
	const struct pl_frame *caller = pl_row_caller(report->sites, row);
	enum pl_caller_kind kind = pl_sites_caller(report->sites, row->site).kind;
	size_t number = (size_t)(row - report->rows->items);
	json_t *asker = native ? NULL : make_asker(report, row);
	bool failed = false;

	failed |= put_string(item, "domain", row->domain == PL_SITE_NATIVE ? "native" : "python");
	failed |= put_frame(item, row->filename, row->line, row->function);
	if (report->per_process)
		failed |= put_integer(item, "pid", row->pid);
	failed |= put_integer(item, "size", row->size);
	failed |= put_integer(item, "size_diff", row->size_diff);
	failed |= put_integer(item, "count", row->count);
	failed |= put_integer(item, "count_diff", row->count_diff);
	failed |= put_integer(item, "average", pl_row_average(row));
	failed |= put(item, "allocated", make_amount(window->allocated_size, window->allocated_count));
	failed |= put(item, "freed", make_amount(window->freed_size, window->freed_count));
	if (caller)
		failed |= put(item, "caller", report_make_frame(caller));
	if (caller || kind == PL_CALLER_TASK || kind == PL_CALLER_LIBRARY)
		failed |= put_string(item, "caller_kind", caller_kinds[kind]);
	if (report->group_by == PL_GROUP_CALLER)
		failed |= put(item, "allocated_in", report_make_frame(pl_sites_innermost(report->sites, row->site)));
	if (native)
		failed |= put(item, "native", make_native(report->sites, row->site, native));
	if (asker)
		failed |= put(item, "native", asker);
	if (pl_report_is_estimate(report))
		failed |= put(item, "error", make_error(row));
	if (number < report->verdict_count)
		failed |= put(item, "verdict", make_verdict(&report->verdicts[number], &report->headroom));
	if (number < report->cause_count && report->causes[number])
		failed |= put(item, "known_cause", make_cause(report->causes[number]));
	if (report->touched)
		failed |= put_integer(item, "touched", report->touched[number]);
	if (number < report->type_count && report->types && report->types[number].living)
		failed |= put_integer(item, "processes", report->types[number].processes);
	if (number < report->type_count && report->types)
		failed |= put(item, "types", make_types(&report->types[number]));
	if (number < report->held_count) {
		failed |= put(item, "held_by", held_make(&report->held[number]));
		failed |= put(item, "held_of", held_make_of(&report->held[number]));
	}
	if (traceback)
		failed |= put(item, "traceback", make_traceback(report->sites, row->site, true));
	if (!failed)
		return item;
	json_decref(item);
	return NULL;
}

json_t *report_make_row(const struct pl_report *report, size_t row, bool traceback)
{
	return make_row(report, &report->rows->items[row], traceback);
}

static json_t *make_stats(const struct pl_report *report, size_t limit)
{
	const struct pl_rows *rows = report->rows;
	size_t shown = shown_rows(rows, limit);
	json_t *stats = json_array();
	bool failed = !stats;

	for (size_t i = 0; i < shown && !failed; i++) {
		bool traceback = report->group_by == PL_GROUP_TRACEBACK || (report->kind == PL_REPORT_TOP && i == 0);

		failed = json_array_append_new(stats, make_row(report, &rows->items[i], traceback)) < 0;
	}
	if (!failed)
		return stats;
	json_decref(stats);
	return NULL;
}

static json_t *make_total(const struct pl_row *row)
{
	json_t *total = json_object();
	bool failed = false;

	failed |= put_integer(total, "size", row->size);
	failed |= put_integer(total, "size_diff", row->size_diff);
	failed |= put_integer(total, "count", row->count);
	failed |= put_integer(total, "count_diff", row->count_diff);
	if (!failed)
		return total;
	json_decref(total);
	return NULL;
}

static json_t *make_pair(const char *first_key, uint64_t first, const char *second_key, uint64_t second)
{
	json_t *pair = json_object();
	bool failed = put_unsigned(pair, first_key, first) | put_unsigned(pair, second_key, second);

	if (!failed)
		return pair;
	json_decref(pair);
	return NULL;
}

static json_t *make_headroom(const struct pl_headroom *headroom)
{
	json_t *item = make_pair("limit", headroom->limit, "left", headroom->left);

	if (!put(item, "cgroup", json_boolean(headroom->cgroup)))
		return item;
	json_decref(item);
	return NULL;
}

static json_t *make_pids(const struct pl_report *report)
{
	json_t *pids = json_array();
	bool failed = !pids;

	for (size_t i = 0; i < report->pid_count && !failed; i++)
		failed = json_array_append_new(pids, json_integer(report->pids[i])) < 0;
	/* A recording knows of one only. */
	if (!report->pid_count && !failed)
		failed = json_array_append_new(pids, json_integer(report->facts.pid)) < 0;
	if (!failed)
		return pids;
	json_decref(pids);
	return NULL;
}

static json_t *make_unrecorded(const struct pl_report *report)
{
	json_t *objects = json_array();
	bool failed = !objects;

	for (size_t i = 0; i < report->unrecorded_count && !failed; i++) {
		json_t *item = json_object();

		failed |= put_string(item, "object", report->unrecorded[i].path);
		failed |= put_unsigned(item, "words", report->unrecorded[i].words);
		failed |= put_string(item, "why", report->unrecorded[i].why);
		failed |= json_array_append_new(objects, item) < 0;
	}
	if (!failed)
		return objects;
	json_decref(objects);
	return NULL;
}

json_t *report_make(const struct pl_report *report, size_t limit)
{
	static const char *const groups[] = {
		[PL_GROUP_LINE] = "line",
		[PL_GROUP_FILE] = "file",
		[PL_GROUP_FUNCTION] = "function",
		[PL_GROUP_CALLER] = "caller",
		[PL_GROUP_TRACEBACK] = "traceback",
	};
	json_t *document = json_object();
	char started[32] = "";
	struct tm utc;
	bool failed = false;

	if (gmtime_r(&report->facts.started.tv_sec, &utc))
		(void)strftime(started, sizeof(started), "%Y-%m-%dT%H:%M:%SZ", &utc);
	failed |= put_integer(document, "schema", 1);
	failed |= put_string(document, "kind", report->kind == PL_REPORT_DIFF ? "diff" : "top");
	failed |= put_integer(document, "pid", report->facts.pid);
	failed |= put(document, "pids", make_pids(report));
	failed |= put_string(document, "python", report->facts.python[0] ? report->facts.python : NULL);
	failed |= put_string(document, "engine", report->facts.engine);
	failed |= put_string(document, "started", started);
	failed |= put_thousandths(document, "window_s", report->window_ns, PL_NSEC_PER_MSEC);
	if (report->window)
		failed |= put(document, "window", windows_make_window(report));
	if (report->grown_windows)
		failed |= put(document, "over_all", windows_make_grown(report));
	failed |= put_thousandths(document, "stop_ms", report->stop_ns, PL_NSEC_PER_USEC);
	failed |= put_integer(document, "frames", report->facts.frames);
	failed |= put_string(document, "group_by", groups[report->group_by]);
	failed |= put_unsigned(document, "sample", report->facts.sample);
	failed |= put(document, "rss", make_pair("before", report->rss_before, "after", report->rss_after));
	failed |= put(document, "account", account_make(report));
	failed |= put(document, "pools", account_make_pools(report));
	failed |= put(document, "places", places_make(report));
	failed |= put(document, "not_recorded", make_unrecorded(report));
	failed |= put(document, "total", make_total(&report->rows->total));
	if (!pl_report_is_estimate(report)) {
		failed |= put(document, "older", make_older(report));
		failed |= put(document, "net_growth",
			report->older.count && !report->older.sized ? json_null() : json_integer(pl_report_net_growth(report)));
	}
	if (report->collector.known)
		failed |= put(document, "collector", collector_make(report));
	failed |= put(document, "lost", make_pair("events", report->losses.events, "sites", report->losses.sites));
	if (report->losses.shortened)
		failed |= put_unsigned(document, "shortened", report->losses.shortened);
	if (report->losses.sampling)
		failed |= put_unsigned(document, "sampling", report->losses.sampling);
	if (report->verdicts && report->headroom.limit)
		failed |= put(document, "headroom", make_headroom(&report->headroom));
	if (report->facts.native) {
		failed |= put(document, "freed_before", make_amount(report->losses.freed_before_size, report->losses.freed_before_count));
		failed |= put(document, "freed_unseen", make_amount(report->losses.freed_unseen_size, report->losses.freed_unseen_count));
	}
	if (report->causes)
		failed |= put(document, "known_causes", make_causes(report));
	failed |= put(document, "stats", make_stats(report, limit));
	if (!failed)
		return document;
	json_decref(document);
	return NULL;
}

int pl_report_json(FILE *out, const struct pl_report *report, const struct pl_report_options *options)
{
	return json_print_line(out, report_make(report, options->limit));
}
