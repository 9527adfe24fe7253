/* SPDX-License-Identifier: MIT */
#include <math.h>

#include "held.h"
#include "members.h"
#include "pyleak/units.h"
#include "pyleak/why_report.h"

static json_t *make_holder(const struct pl_why *why)
{
	static const char *const names[] = {
		[PL_WHY_HELD] = "variable",
		[PL_WHY_CYCLES] = "cycles",
		[PL_WHY_BY_NATIVE] = "native",
		[PL_WHY_NOT_SEEN] = "not seen",
		[PL_WHY_REFUSED] = "refused",
	};
	json_t *item;
	bool failed;

	if (why->holding == PL_WHY_NOT_ASKED)
		return json_null();
	item = json_object();
	failed = put_string(item, "kind", names[why->holding]);
	failed |= put_thousandths(item, "stop_ms", why->held_stop_ns, PL_NSEC_PER_USEC);
	failed |= put_string(item, "path", why->holding == PL_WHY_HELD ? why->held->held_by[0].path : NULL);
	failed |= put_string(item, "reason", why->refusal);
	if (why->held) {
		failed |= put(item, "held_by", held_make(why->held));
		failed |= put(item, "of", held_make_of(why->held));
	}
	if (!failed)
		return item;
	json_decref(item);
	return NULL;
}

int pl_why_json(FILE *out, const struct pl_why *why)
{
	const struct pl_frame *caller = pl_why_caller(why);
	const struct pl_frame *inner = pl_why_allocated_in(why);
	pl_autofree char *advice = pl_why_advice(why);
	json_t *document = json_object();
	bool failed = !advice;

	failed |= put_integer(document, "schema", 1);
	failed |= put_string(document, "kind", "why");
	failed |= put_integer(document, "pid", why->report->facts.pid);
	failed |= put_string(document, "verdict", pl_why_name(why->kind));
	failed |= put_unsigned(document, "windows", why->windows);
	failed |= put_thousandths(document, "interval_s", why->interval_ns, PL_NSEC_PER_MSEC);
	failed |= put(document, "size_per_hour", why->kind == PL_WHY_LEAK || why->kind == PL_WHY_PERHAPS ? json_real(round(why->steady_rate)) : json_null());
	failed |= put(document, "rss_per_hour", json_real(round(why->rss_rate)));
	failed |= put(document, "full_in_s", why->full_ns < INT64_MAX ? json_integer(why->full_ns / PL_NSEC_PER_SEC) : json_null());
	failed |= put_unsigned(document, "allocated", why->allocated);
	failed |= put_unsigned(document, "steady_rows", why->steady);
	failed |= put_integer(document, "steady_size_diff", why->steady_diff);
	failed |= put(document, "row", why->row == SIZE_MAX ? json_null() : report_make_row(why->report, why->row, true));
	failed |= put(document, "caller", caller ? report_make_frame(caller) : json_null());
	failed |= put(document, "put_at", why->container == SIZE_MAX ? json_null() :
								       report_make_row(why->report, why->container, false));
	failed |= put(document, "allocated_in", inner ? report_make_frame(inner) : json_null());
	failed |= put_string(document, "known_cause", why->cause ? why->cause->name : NULL);
	failed |= put(document, "held_by", make_holder(why));
	failed |= put_string(document, "advice", advice);
	failed |= put(document, "report", report_make(why->report, 10));
	if (!failed)
		return json_print_line(out, document);
	json_decref(document);
	return json_print_line(out, NULL);
}
