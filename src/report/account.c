/* SPDX-License-Identifier: MIT */
#include "account.h"

#include <inttypes.h>
#include <stdlib.h>

#include "members.h"
#include "places.h"
#include "pyleak/page.h"
#include "pyleak/units.h"
#include "terms.h"

/* Less is noise: of libraries that are loaded, of buffers. */
#define IN_NO_ROW_MIN (INT64_C(1) << 20)

static const struct {
	const char *key, *text;
} causes[PL_CAUSES] = {
	[PL_CAUSE_TRACKED] = {"tracked", TERM_THESE_LINES},
	[PL_CAUSE_ROUNDING] = {"rounding", TERM_ROUNDING},
	[PL_CAUSE_OLDER] = {"older", TERM_OLDER},
	[PL_CAUSE_PROCESSES] = {"processes", TERM_PROCESSES},
	[PL_CAUSE_POOLS] = {"pools", TERM_POOLS},
	[PL_CAUSE_UNTOUCHED] = {"untouched", TERM_UNTOUCHED},
	[PL_CAUSE_ARENAS_FREE] = {"arenas_free", TERM_ARENAS_FREE},
	[PL_CAUSE_HEAP_FREE] = {"heap_free", TERM_HEAP_FREE},
	[PL_CAUSE_FILES] = {"files", TERM_FILES},
	[PL_CAUSE_SHARED] = {"shared", TERM_SHARED},
	[PL_CAUSE_STACKS] = {"stacks", TERM_STACKS},
	[PL_CAUSE_OWN] = {"pyleak", TERM_OWN},
	[PL_CAUSE_MAPPED] = {"mapped", TERM_MAPPED},
	[PL_CAUSE_HEAP_USED] = {"heap_in_no_row", TERM_HEAP_USED},
	[PL_CAUSE_UNEXPLAINED] = {"unexplained", TERM_UNEXPLAINED},
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

	/* Some rows are left out (--include, --domain). Of a family those that came or ended are apart. */
	if (cause == PL_CAUSE_TRACKED && !report->growth.causes[PL_CAUSE_PROCESSES] &&
		bytes != (report->kind == PL_REPORT_DIFF ? total->size_diff : total->size))
		return TERM_ALL_LINES;
	if (cause == PL_CAUSE_UNTOUCHED && bytes > 0)
		return TERM_TOUCHED;
	return causes[cause].text;
}

static int64_t largest_part(const struct pl_rss_growth *growth)
{
	int64_t largest = 0;

	for (int cause = 0; cause < PL_CAUSES; cause++)
		if (llabs(growth->causes[cause]) > largest)
			largest = llabs(growth->causes[cause]);
	return largest;
}

/* What is too little to be read about: a hundredth of the largest. */
static int64_t smallest_shown(int64_t largest)
{
	return largest / 100 > PL_PAGE ? largest / 100 : PL_PAGE;
}

static void print_part(FILE *out, int64_t bytes, int64_t like, const char *text, bool *first)
{
	char size[PL_SIZE_TEXT];

	pl_format_size_like(bytes, true, like, size);
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

/* The lines are a hint. */
static void print_pool(FILE *out, const struct pl_pool *pool)
{
	static const char *const hints[] = {
		[PL_POOL_KEPT] = "other blocks of the library stay below:",
		[PL_POOL_MAPPED] = "it grew while this ran:",
		[PL_POOL_ALLOCATED] = "it allocates most for:",
		[PL_POOL_WORKED] = "it works most below:",
	};
	char size[PL_SIZE_TEXT];
	size_t length;
	const char *name = pl_pool_name(pool->module, &length);

	pl_format_size(pool->size, true, size);
	(void)fprintf(out, "%.*s (%s linked in): %s, lines not known", (int)length, name, pool->allocator, size);
	for (size_t i = 0; i < pool->line_count; i++) {
		char *text = pl_printable(pool->lines[i]->filename);

		(void)fprintf(out, "%s%s %s:%d", i ? "," : "; ", i ? "" : hints[pool->lines_by], text ? text : "?",
			pool->lines[i]->line);
		free(text);
	}
	(void)fputc('\n', out);
}

void account_print(FILE *out, const struct pl_report *report)
{
	const struct pl_rss_growth *growth = &report->growth;
	/* What adds up stands in one unit. */
	int64_t like = largest_part(growth), least = smallest_shown(like), small = 0;
	char size[PL_SIZE_TEXT];
	bool first = true;

	if (!growth->known)
		return;
	pl_format_size_like(growth->rss, true, like, size);
	(void)fprintf(out, TERM_RSS " %s:", size);
	for (int cause = 0; cause < PL_CAUSES; cause++) {
		int64_t bytes = growth->causes[cause];

		if (llabs(bytes) >= least)
			print_part(out, bytes, like, cause_text(report, cause), &first);
		else
			small += bytes;
	}
	if (first || llabs(small) >= least)
		print_part(out, small, like, TERM_SMALL, &first);
	(void)fputc('\n', out);
	touched_print(out, report, least);
	places_print(out, report, least);
	for (size_t i = 0; i < report->pools.count; i++)
		if (llabs(report->pools.items[i].size) >= least)
			print_pool(out, &report->pools.items[i]);
	if (growth->fragmentation)
		print_fragmentation(out, growth);
}

/* What went that was there before stands against what came. */
void account_print_older(FILE *out, const struct pl_report *report)
{
	char size[PL_SIZE_TEXT], net[PL_SIZE_TEXT];

	if (!report->older.count)
		return;
	if (!report->older.sized) {
		(void)fprintf(out, TERM_OLDER ": count=%" PRIu64 " (allocated before the recording; their size is not known)\n",
			report->older.count);
		return;
	}
	pl_format_size((int64_t)report->older.size, false, size);
	pl_format_size(pl_report_net_growth(report), true, net);
	(void)fprintf(out, TERM_OLDER ": size=%s, count=%" PRIu64 " (allocated before the recording)", size,
		report->older.count);
	(void)fprintf(out, "; " TERM_NET_GROWTH ": %s\n", net);
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

	return (int64_t)((uint64_t)(report->kind == PL_REPORT_DIFF ? total->size_diff : total->size) + (uint64_t)report->rounding -
			 report->older.size);
}

json_t *account_make_pools(const struct pl_report *report)
{
	json_t *pools = json_array();
	bool failed = !pools;

	for (size_t i = 0; i < report->pools.count && !failed; i++) {
		const struct pl_pool *pool = &report->pools.items[i];
		static const char *const names[] = {
			[PL_POOL_KEPT] = "kept",
			[PL_POOL_MAPPED] = "mapped",
			[PL_POOL_ALLOCATED] = "allocated",
			[PL_POOL_WORKED] = "worked",
		};
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
		failed |= pool->line_count && put_string(item, "lines_by", names[pool->lines_by]);
		failed |= put(item, "lines_allocated", json_boolean(pool->line_count && pool->lines_by == PL_POOL_ALLOCATED));
		failed |= json_array_append_new(pools, item) < 0;
	}
	if (!failed)
		return pools;
	json_decref(pools);
	return NULL;
}


bool pl_report_is_in_no_row(const struct pl_report *report)
{
	const int64_t *bytes = report->growth.causes;
	int64_t grown, rows;

	if (!report->growth.known || report->growth.fragmentation || report->two_recordings)
		return false;
	/* Of a family, what came and what went with a process is nobody's growth. */
	if (report->account_before->others != report->account_after->others ||
		report->pid_count > report->account_after->others + (size_t)1)
		return false;
	grown = report->growth.rss - bytes[PL_CAUSE_OWN] - bytes[PL_CAUSE_PROCESSES];
	rows = bytes[PL_CAUSE_TRACKED] + bytes[PL_CAUSE_ROUNDING] + bytes[PL_CAUSE_OLDER] + bytes[PL_CAUSE_UNTOUCHED];
	return grown >= IN_NO_ROW_MIN && rows < grown / 2;
}

/* The causes that no row has, largest first: that behind `last`. Below 0: there is none. */
static int next_largest(const int64_t *bytes, int last)
{
	int next = -1;

	for (int cause = PL_CAUSE_POOLS; cause < PL_CAUSES; cause++) {
		if (cause == PL_CAUSE_UNTOUCHED || cause == PL_CAUSE_OWN || cause == last || bytes[cause] <= 0 ||
			(last >= 0 && (bytes[cause] > bytes[last] || (bytes[cause] == bytes[last] && cause < last))))
			continue;
		if (next < 0 || bytes[cause] > bytes[next])
			next = cause;
	}
	return next;
}

void account_print_headline(FILE *out, const struct pl_report *report)
{
	const int64_t *bytes = report->growth.causes;
	int64_t grown = report->growth.rss - bytes[PL_CAUSE_OWN], least = grown / 8;
	char size[PL_SIZE_TEXT];
	bool first = true;

	if (!pl_report_is_in_no_row(report))
		return;
	pl_format_size_like(grown, true, grown, size);
	(void)fprintf(out, "Most of the growth of %s is in no row:", size);
	for (int cause = next_largest(bytes, -1); cause >= 0 && bytes[cause] >= least; cause = next_largest(bytes, cause))
		print_part(out, bytes[cause], grown, causes[cause].text, &first);
	(void)fputs(first ? " it is in many small bytes\n" : "\n", out);
}
