/* SPDX-License-Identifier: MIT */
#include "account.h"

#include <stdlib.h>

#include "members.h"
#include "pyleak/page.h"
#include "pyleak/units.h"

static const struct {
	const char *key, *text;
} causes[PL_CAUSES] = {
	[PL_CAUSE_TRACKED] = {"tracked", "these lines"},
	[PL_CAUSE_ROUNDING] = {"rounding", "rounding"},
	[PL_CAUSE_OLDER] = {"older", "older blocks freed"},
	[PL_CAUSE_POOLS] = {"pools", "allocators that are linked in"},
	[PL_CAUSE_UNTOUCHED] = {"untouched", "not used yet"},
	[PL_CAUSE_ARENAS_FREE] = {"arenas_free", "free in Python's arenas"},
	[PL_CAUSE_HEAP_FREE] = {"heap_free", "free in the C library's heap"},
	[PL_CAUSE_FILES] = {"files", "mapped files"},
	[PL_CAUSE_SHARED] = {"shared", "shared memory"},
	[PL_CAUSE_STACKS] = {"stacks", "thread stacks"},
	[PL_CAUSE_OWN] = {"pyleak", "pyleak's tables"},
	[PL_CAUSE_UNEXPLAINED] = {"unexplained", "unexplained"},
};

static const char *const parts[PL_ACCOUNT_PARTS] = {
	[PL_ACCOUNT_ARENAS_USED] = "arenas_used",
	[PL_ACCOUNT_ARENAS_FREE] = "arenas_free",
	[PL_ACCOUNT_HEAP_USED] = "heap_used",
	[PL_ACCOUNT_HEAP_FREE] = "heap_free",
	[PL_ACCOUNT_FILES] = "files",
	[PL_ACCOUNT_SHARED] = "shared",
	[PL_ACCOUNT_STACKS] = "stacks",
	[PL_ACCOUNT_OWN] = "pyleak",
	[PL_ACCOUNT_OTHER] = "other",
};

static const char *cause_text(const struct pl_report *report, int cause)
{
	const struct pl_row *total = &report->rows->total;
	int64_t bytes = report->growth.causes[cause];

	/* Some rows are left out (--include, --domain). */
	if (cause == PL_CAUSE_TRACKED && bytes != (report->kind == PL_REPORT_DIFF ? total->size_diff : total->size))
		return "all lines";
	if (cause == PL_CAUSE_UNEXPLAINED && bytes < 0)
		return "large older blocks freed, or new ones not used yet";
	return causes[cause].text;
}

/* What is too little to be read about: a hundredth of the largest. */
static int64_t smallest_shown(const struct pl_rss_growth *growth)
{
	int64_t largest = 0;

	for (int cause = 0; cause < PL_CAUSES; cause++)
		if (llabs(growth->causes[cause]) > largest)
			largest = llabs(growth->causes[cause]);
	return largest / 100 > PL_PAGE ? largest / 100 : PL_PAGE;
}

static void print_part(FILE *out, int64_t bytes, const char *text, bool *first)
{
	char size[PL_SIZE_TEXT];

	pl_format_size(bytes, true, size);
	(void)fprintf(out, "%s%s %s", *first ? " " : ", ", size, text);
	*first = false;
}

static void print_fragmentation(FILE *out, const struct pl_rss_growth *growth)
{
	int64_t arenas = growth->causes[PL_CAUSE_ARENAS_FREE], heap = growth->causes[PL_CAUSE_HEAP_FREE];
	char size[PL_SIZE_TEXT];

	pl_format_size(arenas + heap, false, size);
	(void)fprintf(out, "Most of this is not a leak but fragmentation: %s were freed, but %s cannot give them back", size,
		heap < arenas / 8   ? "Python's arenas" :
		arenas < heap / 8 ? "the C library's heap" :
				      "Python's arenas and the C library's heap");
	if (growth->class_size)
		(void)fprintf(out, ", most of them in pools of %u-byte blocks", growth->class_size);
	(void)fputs(", for the live blocks in between.\n", out);
}

/* The lines are a hint: who worked when the pool was full. */
static void print_pool(FILE *out, const struct pl_pool *pool)
{
	char size[PL_SIZE_TEXT];
	size_t length;
	const char *name = pl_pool_name(pool->module, &length);

	pl_format_size(pool->size, true, size);
	(void)fprintf(out, "%.*s (%s linked in): %s, lines not known", (int)length, name, pool->allocator, size);
	for (size_t i = 0; i < pool->line_count; i++) {
		char *text = pl_printable(pool->lines[i]->filename);

		(void)fprintf(out, "%s %s:%d", i ? "," : "; it grew while this ran:", text ? text : "?", pool->lines[i]->line);
		free(text);
	}
	(void)fputc('\n', out);
}

void account_print(FILE *out, const struct pl_report *report)
{
	const struct pl_rss_growth *growth = &report->growth;
	int64_t least = smallest_shown(growth), small = 0;
	char size[PL_SIZE_TEXT];
	bool first = true;

	if (!growth->known)
		return;
	pl_format_size(growth->rss, true, size);
	(void)fprintf(out, "RSS %s:", size);
	for (int cause = 0; cause < PL_CAUSES; cause++) {
		int64_t bytes = growth->causes[cause];

		if (llabs(bytes) >= least)
			print_part(out, bytes, cause_text(report, cause), &first);
		else
			small += bytes;
	}
	if (first || llabs(small) >= least)
		print_part(out, small, "in small parts", &first);
	(void)fputc('\n', out);
	for (size_t i = 0; i < report->pools.count; i++)
		if (llabs(report->pools.items[i].size) >= least)
			print_pool(out, &report->pools.items[i]);
	if (growth->fragmentation)
		print_fragmentation(out, growth);
}

static json_t *make_change(const struct pl_account *before, const struct pl_account *after, enum pl_account_part part)
{
	json_t *change = json_object();
	bool failed = put(change, "before", before->known[part] ? json_integer(before->parts[part]) : json_null());

	failed |= put(change, "after", after->known[part] ? json_integer(after->parts[part]) : json_null());
	if (!failed)
		return change;
	json_decref(change);
	return NULL;
}

/* Where the free part of the arenas is, by size of block. */
static json_t *make_classes(const struct pl_account *account)
{
	json_t *classes = json_array();
	bool failed = !classes;

	for (size_t i = 0; i < PL_ACCOUNT_CLASSES && !failed; i++) {
		json_t *item;

		if (!account->class_free[i])
			continue;
		item = json_object();
		failed |= put_unsigned(item, "size", i * 8);
		failed |= put_unsigned(item, "free", account->class_free[i]);
		failed |= json_array_append_new(classes, item) < 0;
	}
	if (!failed)
		return classes;
	json_decref(classes);
	return NULL;
}

static json_t *make_growth(const struct pl_rss_growth *growth)
{
	json_t *object = json_object();
	bool failed = put_integer(object, "rss", growth->rss);

	for (int cause = 0; cause < PL_CAUSES; cause++)
		failed |= put_integer(object, causes[cause].key, growth->causes[cause]);
	failed |= put(object, "fragmentation", json_boolean(growth->fragmentation));
	if (!failed)
		return object;
	json_decref(object);
	return NULL;
}

json_t *account_make(const struct pl_report *report)
{
	json_t *account;
	bool failed = false;

	if (!report->growth.known)
		return json_null();
	account = json_object();
	for (int part = 0; part < PL_ACCOUNT_PARTS; part++)
		failed |= put(account, parts[part], make_change(report->account_before, report->account_after, part));
	failed |= put(account, "arenas_free_by_size", make_classes(report->account_after));
	failed |= put(account, "growth", make_growth(&report->growth));
	if (!failed)
		return account;
	json_decref(account);
	return NULL;
}

int64_t pl_report_net_growth(const struct pl_report *report)
{
	const struct pl_row *total = &report->rows->total;

	return (int64_t)((uint64_t)(report->kind == PL_REPORT_DIFF ? total->size_diff : total->size) - report->older.size);
}

json_t *account_make_pools(const struct pl_report *report)
{
	json_t *pools = json_array();
	bool failed = !pools;

	for (size_t i = 0; i < report->pools.count && !failed; i++) {
		const struct pl_pool *pool = &report->pools.items[i];
		json_t *item = json_object(), *lines = json_array();

		failed |= put_string(item, "object", pool->module);
		failed |= put_string(item, "allocator", pool->allocator);
		failed |= put_integer(item, "size", pool->size);
		failed |= put_integer(item, "mapped", pool->mapped);
		for (size_t n = 0; n < pool->line_count && !failed; n++) {
			json_t *line = json_object();

			failed |= put_string(line, "filename", pool->lines[n]->filename);
			failed |= put_integer(line, "lineno", pool->lines[n]->line);
			failed |= json_array_append_new(lines, line) < 0;
		}
		failed |= put(item, "lines", lines);
		failed |= json_array_append_new(pools, item) < 0;
	}
	if (!failed)
		return pools;
	json_decref(pools);
	return NULL;
}
