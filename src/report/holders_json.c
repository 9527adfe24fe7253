/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <jansson.h>

#include "holders_document.h"
#include "pyleak/cleanup.h"
#include "pyleak/holders_report.h"
#include "pyleak/report.h"

/* Holders for a script. A json_t that could not be made is NULL, and what is made with it is too. */

static json_t *text(const char *bytes)
{
	pl_autofree char *printable = pl_printable(bytes);

	return printable ? json_string(printable) : NULL;
}

static json_t *sum(uint64_t size, uint64_t count)
{
	return json_pack("{sI sI}", "size", (json_int_t)size, "count", (json_int_t)count);
}

static json_t *types(const struct pl_held_type *items, size_t count, bool native)
{
	json_t *array = json_array();

	for (size_t i = 0; i < count; i++) {
		json_t *item = json_pack("{so sI sI}", "type", text(items[i].type), "count", (json_int_t)items[i].count, "size",
			(json_int_t)items[i].size);

		if (items[i].sample[0])
			(void)json_object_set_new(item, "sample", text(items[i].sample));
		if (native)
			(void)json_object_set_new(item, "kind", json_string(items[i].unowned ? "unowned" : "held"));
		if (items[i].library)
			(void)json_object_set_new(item, "library", text(items[i].library));
		(void)json_array_append_new(array, item);
	}
	return array;
}

static json_t *holder(const struct pl_holder *item, bool compared)
{
	json_t *row = json_pack("{so so so sI so}", "path", text(item->path), "type", text(item->type), "retained",
		sum(item->size, item->count), "own", (json_int_t)item->own, "contents",
		types(item->contents, item->content_count, false));

	if (compared)
		(void)json_object_set_new(row, "diff", json_pack("{sI sI}", "size", (json_int_t)item->size_diff, "count",
			(json_int_t)item->count_diff));
	return row;
}

static json_t *group(const struct pl_held_group *item)
{
	json_t *held_by = json_array();

	for (size_t i = 0; i < item->held_by_count; i++)
		(void)json_array_append_new(held_by, json_pack("{so sI}", "path", text(item->held_by[i].path), "count",
			(json_int_t)item->held_by[i].count));
	return json_pack("{so sI sI so}", "type", text(item->type), "count", (json_int_t)item->count, "size",
		(json_int_t)item->size, "held_by", held_by);
}

static json_t *typed_sum(const struct pl_held_sum *item, bool native)
{
	return json_pack("{sI sI so}", "size", (json_int_t)item->size, "count", (json_int_t)item->count, "types",
		types(item->types, item->type_count, native));
}

/* What is not known is left out. */
static json_t *collector(const struct pl_holders *holders)
{
	json_t *object = json_object();

	if (holders->collector_known)
		(void)json_object_set_new(object, "enabled", json_boolean(holders->collector_enabled));
	if (holders->frozen_known)
		(void)json_object_set_new(object, "frozen", json_integer((json_int_t)holders->frozen));
	if (holders->full_known) {
		(void)json_object_set_new(object, "full", json_integer((json_int_t)holders->full));
		(void)json_object_set_new(object, "since_full", json_integer(holders->since_full));
		(void)json_object_set_new(object, "full_after", json_integer(holders->full_after));
	}
	return object;
}

json_t *holders_document(const struct pl_holders_report *report)
{
	const struct pl_holders *holders = report->holders;
	json_t *list = json_array(), *groups = json_array();

	for (size_t i = 0; i < holders->holder_count; i++)
		(void)json_array_append_new(list, holder(&holders->holders[i], holders->compared));
	for (size_t i = 0; i < holders->group_count; i++)
		(void)json_array_append_new(groups, group(&holders->groups[i]));
	return json_pack("{si ss si ss sf so sI so so so so so so}", "schema", 1, "kind", "holders", "pid", (int)report->pid,
		"python", report->python, "stop_ms", report->stop_ms, "gc",
		collector(holders), "rss",
		(json_int_t)report->rss, "total", sum(holders->size, holders->count), "reached",
		sum(holders->reached.size, holders->reached.count), "holders", list, "groups", groups, "garbage",
		typed_sum(&holders->garbage, false), "native", typed_sum(&holders->native, true));
}

int pl_holders_json(FILE *out, const struct pl_holders_report *report)
{
	json_t *document = holders_document(report);
	int code;

	if (!document)
		return -ENOMEM;
	if (report->file)
		(void)json_object_set_new(document, "file", text(report->file));
	code = json_dumpf(document, out, JSON_COMPACT | JSON_ENSURE_ASCII);
	json_decref(document);
	(void)fputc('\n', out);
	return code < 0 ? -EIO : 0;
}
