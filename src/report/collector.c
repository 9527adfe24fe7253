/* SPDX-License-Identifier: MIT */
#include "collector.h"

#include "members.h"
#include "pyleak/units.h"

/* Garbage in cycles looks like a leak until a collection comes. */
void collector_print(FILE *out, const struct pl_report *report)
{
	const struct pl_collector *now = &report->collector, *before = &report->collector_before;
	bool steady = false;

	for (size_t i = 0; i < report->verdict_count; i++)
		steady |= report->verdicts[i].growth == PL_GROWTH_STEADY;
	if (now->known && !now->enabled)
		(void)fputs("The collector of cycles is off (gc.disable()): what is in cycles stays.\n", out);
	else if (now->limited && !now->thresholds[0])
		(void)fputs("The collector of cycles never runs by itself (gc.set_threshold(0)): what is in cycles stays.\n", out);
	else if (steady && now->counted && before->counted && now->full == before->full)
		(void)fputs("No full collection since the recording began: what grows may be garbage in cycles.\n", out);
}

static json_t *make_thresholds(const struct pl_collector *collector)
{
	return json_pack("[i, i, i]", (int)collector->thresholds[0], (int)collector->thresholds[1], (int)collector->thresholds[2]);
}

json_t *collector_make(const struct pl_report *report)
{
	const struct pl_collector *now = &report->collector, *before = &report->collector_before;
	json_t *object = json_object();
	bool failed = put(object, "enabled", json_boolean(now->enabled));

	failed |= put(object, "full_collections",
		now->counted && before->counted ? json_integer((json_int_t)(now->full - before->full)) : json_null());
	failed |= put(object, "last_full_s", report->last_full_ns ? json_integer(report->last_full_ns / PL_NSEC_PER_SEC) : json_null());
	failed |= put(object, "thresholds", now->limited ? make_thresholds(now) : json_null());
	failed |= put(object, "frozen", now->listed ? json_boolean(now->frozen) : json_null());
	if (!failed)
		return object;
	json_decref(object);
	return NULL;
}
