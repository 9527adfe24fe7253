/* SPDX-License-Identifier: MIT */
#include "report_sample.h"

#include <errno.h>
#include <jansson.h>

static struct report_sample sample;
static json_t *document;

static void set_up(void)
{
	uint32_t first, second, third;

	sample = report_sample_new();
	first = sample_site(sample.sites, PL_SITE_PYTHON, "/app/formatter.py:41:encode|/app/app.py:70:infer");
	second = sample_site(sample.sites, PL_SITE_NATIVE, "/app/formatter.py:50:encode|/app/app.py:71:infer");
	third = sample_site(sample.sites, PL_SITE_PYTHON, "");
	sample_allocate(sample.sites, first, 767454105, 16006705);
	sample_allocate(sample.sites, second, 10, 1);
	sample.before = pl_snapshot_take(sample.sites);
	sample_allocate(sample.sites, first, 33658880 + 50, 701235 + 1);
	sample_free(sample.sites, first, 50, 1);
	sample_allocate(sample.sites, third, 7, 2);
	sample_free(sample.sites, second, 10, 1);
	sample.now = pl_snapshot_take(sample.sites);
}

static void tear_down(void)
{
	json_decref(document);
	report_sample_free(&sample);
}

TestSuite(json, .init = set_up, .fini = tear_down);

static const char *print(void)
{
	const char *line = report_sample_print(&sample, pl_report_json);
	json_error_t error;

	cr_assert_eq(strchr(line, '\n'), line + sample.length - 1, "one line");
	for (const char *c = line; *c != '\n'; c++)
		cr_assert(*c >= ' ' && *c < 0x7f);
	json_decref(document);
	document = json_loads(line, JSON_REJECT_DUPLICATES, &error);
	cr_assert_not_null(document, "%s: %s", error.text, line);
	return line;
}

static void expect_keys(json_t *object, const char *wanted)
{
	char keys[500] = "";
	const char *key;
	json_t *value;

	cr_assert(json_is_object(object));
	json_object_foreach(object, key, value)
	{
		(void)value;
		if (keys[0])
			(void)strcat(keys, " ");
		(void)strcat(keys, key);
	}
	cr_assert_str_eq(keys, wanted, "%s", keys);
}

/* "{…}" in the notation of JSON. */
static void expect(json_t *value, const char *wanted)
{
	json_t *parsed = json_loads(wanted, JSON_DECODE_ANY, NULL);

	cr_assert_not_null(parsed);
	cr_assert(json_equal(value, parsed), "%s for %s", json_dumps(value, JSON_ENCODE_ANY), wanted);
	json_decref(parsed);
}

Test(json, difference)
{
	const char *line = print();
	json_t *stats = json_object_get(document, "stats");

	expect_keys(document, "schema kind pid pids python engine started window_s stop_ms frames group_by sample rss account pools places "
			      "not_recorded "
			      "total older net_growth lost stats");
	expect(json_object_get(document, "schema"), "1");
	expect(json_object_get(document, "kind"), "\"diff\"");
	expect(json_object_get(document, "pid"), "4711");
	expect(json_object_get(document, "pids"), "[4711]");
	expect(json_object_get(document, "python"), "\"3.11.2\"");
	expect(json_object_get(document, "engine"), "\"inline\"");
	expect(json_object_get(document, "started"), "\"2026-11-22T10:00:00Z\"");
	expect(json_object_get(document, "frames"), "16");
	expect(json_object_get(document, "group_by"), "\"line\"");
	expect(json_object_get(document, "sample"), "0");
	expect_keys(json_object_get(document, "rss"), "before after");
	expect(json_object_get(document, "rss"), "{\"before\": 104857600, \"after\": 146800640}");
	expect(json_object_get(document, "account"), "null");
	expect_keys(json_object_get(document, "total"), "size size_diff count count_diff");
	expect(json_object_get(document, "total"),
		"{\"size\": 801112992, \"size_diff\": 33658877, \"count\": 16707942, \"count_diff\": 701236}");
	expect_keys(json_object_get(document, "lost"), "events sites");
	/* Numbers as a person would write them. */
	cr_assert_not_null(strstr(line, "\"window_s\": 10.003, \"stop_ms\": 1.9, "));

	cr_assert_eq(json_array_size(stats), 3);
	expect_keys(json_array_get(stats, 0), "domain filename lineno function size size_diff count count_diff average "
					      "allocated freed");
	expect_keys(json_object_get(json_array_get(stats, 0), "allocated"), "size count");
	expect(json_array_get(stats, 0),
		"{\"domain\": \"python\", \"filename\": \"/app/formatter.py\", \"lineno\": 41, \"function\": "
		"\"encode\","
		" \"size\": 801112985, \"size_diff\": 33658880, \"count\": 16707940, \"count_diff\": 701235,"
		" \"average\": 48, \"allocated\": {\"size\": 33658930, \"count\": 701236},"
		" \"freed\": {\"size\": 50, \"count\": 1}}");
	expect(json_array_get(stats, 1),
		"{\"domain\": \"native\", \"filename\": \"/app/formatter.py\", \"lineno\": 50, \"function\": "
		"\"encode\","
		" \"size\": 0, \"size_diff\": -10, \"count\": 0, \"count_diff\": -1, \"average\": 0,"
		" \"allocated\": {\"size\": 0, \"count\": 0}, \"freed\": {\"size\": 10, \"count\": 1}}");
	expect(json_array_get(stats, 2),
		"{\"domain\": \"python\", \"filename\": \"<unknown>\", \"lineno\": 0, \"function\": \"<unknown>\","
		" \"size\": 7, \"size_diff\": 7, \"count\": 2, \"count_diff\": 2, \"average\": 4,"
		" \"allocated\": {\"size\": 7, \"count\": 2}, \"freed\": {\"size\": 0, \"count\": 0}}");
}

Test(json, account)
{
	struct pl_account before = {.taken = true, .rss = 104857600}, after = {.taken = true, .rss = 146800640};
	json_t *account, *growth;

	before.known[PL_ACCOUNT_ARENAS_FREE] = after.known[PL_ACCOUNT_ARENAS_FREE] = true;
	after.known[PL_ACCOUNT_HEAP_FREE] = true;
	after.parts[PL_ACCOUNT_ARENAS_FREE] = 30000000;
	after.class_free[4] = 29000000;
	sample.report.account_before = &before;
	sample.report.account_after = &after;
	pl_rss_growth_compute(&before, &after, 33658877, 1000, 0, &sample.report.growth);
	(void)print();
	account = json_object_get(document, "account");
	expect_keys(account, "arenas_used arenas_free heap_used heap_free files shared stacks pyleak other "
			     "arenas_free_by_size growth");
	expect(json_object_get(account, "arenas_free"), "{\"before\": 0, \"after\": 30000000}");
	expect(json_object_get(account, "heap_free"), "{\"before\": null, \"after\": 0}");
	expect(json_object_get(account, "arenas_free_by_size"), "[{\"size\": 32, \"free\": 29000000}]");
	growth = json_object_get(account, "growth");
	expect_keys(growth, "rss tracked rounding older processes pools untouched arenas_free heap_free files shared stacks pyleak mapped heap_in_no_row unexplained "
			    "fragmentation");
	expect(json_object_get(growth, "rss"), "41943040");
	expect(json_object_get(growth, "unexplained"), "-21716837");
	expect(json_object_get(growth, "fragmentation"), "false"); /* as much is of lines */
	pl_rss_growth_compute(&before, &after, 0, 1000, 0, &sample.report.growth);
	(void)print();
	growth = json_object_get(json_object_get(document, "account"), "growth");
	expect(json_object_get(growth, "fragmentation"), "true");
}

Test(json, the_largest_row_now_has_its_traceback)
{
	json_t *stats;

	sample.report.kind = PL_REPORT_TOP;
	sample.report.sort = PL_SORT_SIZE;
	sample.report.facts.sample = 65536;
	sample.report.losses.events = UINT64_MAX;
	sample.report.losses.sites = 3;
	(void)print();
	stats = json_object_get(document, "stats");
	expect(json_object_get(document, "kind"), "\"top\"");
	expect(json_object_get(document, "sample"), "65536");
	expect(json_object_get(document, "lost"), "{\"events\": 9223372036854775807, \"sites\": 3}");
	expect(json_object_get(json_array_get(stats, 0), "size_diff"), "0");
	expect_keys(json_array_get(stats, 0), "domain filename lineno function size size_diff count count_diff average "
					      "allocated freed error traceback");
	expect(json_object_get(json_array_get(stats, 0), "error"),
		"{\"size\": 0, \"size_diff\": 0, \"count\": 0, \"count_diff\": 0}");
	expect_keys(
		json_array_get(json_object_get(json_array_get(stats, 0), "traceback"), 0), "filename lineno function");
	expect(json_object_get(json_array_get(stats, 0), "traceback"),
		"[{\"filename\": \"/app/app.py\", \"lineno\": 70, \"function\": \"infer\"},"
		" {\"filename\": \"/app/formatter.py\", \"lineno\": 41, \"function\": \"encode\"}]");
	cr_assert_null(json_object_get(json_array_get(stats, 1), "traceback"));
}

Test(json, every_row_by_traceback_has_one)
{
	json_t *stats, *row;
	size_t i;

	sample.report.group_by = PL_GROUP_TRACEBACK;
	(void)print();
	stats = json_object_get(document, "stats");
	expect(json_object_get(document, "group_by"), "\"traceback\"");
	json_array_foreach(stats, i, row)
	{
		json_t *traceback = json_object_get(row, "traceback");
		json_t *last = json_array_get(traceback, json_array_size(traceback) - 1);

		cr_assert(json_equal(json_object_get(last, "filename"), json_object_get(row, "filename")));
		cr_assert(json_equal(json_object_get(last, "lineno"), json_object_get(row, "lineno")));
	}
	cr_assert_eq(i, 3);
}

Test(json, by_file_and_by_function)
{
	json_t *row;

	sample.report.group_by = PL_GROUP_FILE;
	(void)print();
	row = json_array_get(json_object_get(document, "stats"), 0);
	expect(json_object_get(document, "group_by"), "\"file\"");
	expect(json_object_get(row, "lineno"), "0");
	expect(json_object_get(row, "function"), "null");
	sample.report.group_by = PL_GROUP_FUNCTION;
	(void)print();
	row = json_array_get(json_object_get(document, "stats"), 0);
	expect(json_object_get(document, "group_by"), "\"function\"");
	expect(json_object_get(row, "function"), "\"encode\"");
}

Test(json, by_caller)
{
	struct report_sample own = report_sample_new();
	json_t *all, *row;

	sample_allocate(own.sites, sample_site(own.sites, PL_SITE_PYTHON, "/usr/lib/python3.11/json/decoder.py:3:decode|/srv/a.py:7:f"), 64, 1);
	own.report.kind = PL_REPORT_TOP;
	own.report.group_by = PL_GROUP_LINE;
	all = json_loads(report_sample_print(&own, pl_report_json), 0, NULL);
	row = json_array_get(json_object_get(all, "stats"), 0);
	expect(json_object_get(row, "caller"), "{\"filename\": \"/srv/a.py\", \"lineno\": 7, \"function\": \"f\"}");
	expect(json_object_get(row, "caller_kind"), "\"own\"");
	json_decref(all);
	own.report.group_by = PL_GROUP_CALLER;
	all = json_loads(report_sample_print(&own, pl_report_json), 0, NULL);
	row = json_array_get(json_object_get(all, "stats"), 0);
	expect(json_object_get(all, "group_by"), "\"caller\"");
	expect(json_object_get(row, "filename"), "\"/srv/a.py\"");
	expect(json_object_get(row, "lineno"), "7");
	expect(json_object_get(row, "allocated_in"),
		"{\"filename\": \"/usr/lib/python3.11/json/decoder.py\", \"lineno\": 3, \"function\": \"decode\"}");
	cr_assert_null(json_object_get(row, "caller"));
	json_decref(all);
	report_sample_free(&own);
}

Test(json, a_limit_cuts_rows_and_not_the_total)
{
	static const struct {
		size_t limit, rows;
	} table[] = {{0, 3}, {1, 1}, {2, 2}, {3, 3}, {4, 3}, {SIZE_MAX, 3}};

	for (size_t i = 0; i < COUNT(table); i++) {
		sample.options.limit = table[i].limit;
		(void)print();
		cr_assert_eq(json_array_size(json_object_get(document, "stats")), table[i].rows);
		expect(json_object_get(json_object_get(document, "total"), "size"), "801112992");
	}
}

/* File names are bytes. */
Test(json, rows_of_processes)
{
	json_t *stats;

	report_sample_free(&sample);
	sample = report_sample_new();
	report_sample_of_two_processes(&sample);
	(void)print();
	expect(json_object_get(document, "pids"), "[4711, 4720]");
	stats = json_object_get(document, "stats");
	cr_assert_eq(json_array_size(stats), 2);
	expect(json_object_get(json_array_get(stats, 0), "pid"), "4720");
	expect(json_object_get(json_array_get(stats, 1), "pid"), "4711");
	expect(json_object_get(json_array_get(stats, 1), "size"), "8");
}

Test(json, any_bytes)
{
	static const struct {
		const char *text, *wanted;
	} table[] = {
		{"plain", "plain"},
		{"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x90\x8d \xf4\x8f\xbf\xbf",
			"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x90\x8d \xf4\x8f\xbf\xbf"},
		{"\xff", "\xef\xbf\xbd"},
		{"\x80y", "\xef\xbf\xbdy"},
		{"a\xc3", "a\xef\xbf\xbd"}, /* cut */
		{"\xe2\x82", "\xef\xbf\xbd\xef\xbf\xbd"},
		{"\xf0\x9f\x90", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
		{"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"}, /* longer than need be */
		{"\xe0\x80\xaf", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
		{"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* half a surrogate pair */
		{"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
		{"\xf8\x88\x80\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
		{"\xc3(", "\xef\xbf\xbd("},
		{"\033[2J\n\"\\\x7f", "\033[2J\n\"\\\x7f"},
	};

	for (size_t i = 0; i < COUNT(table); i++) {
		struct report_sample own = report_sample_new();
		const char *text = pl_sites_string(own.sites, table[i].text);
		const struct pl_frame frame = {text, text, 1};
		json_t *parsed, *row;

		sample_allocate(own.sites, pl_sites_intern(own.sites, PL_SITE_PYTHON, &frame, 1, false), 1, 1);
		own.report.group_by = PL_GROUP_TRACEBACK;
		parsed = json_loads(report_sample_print(&own, pl_report_json), 0, NULL);
		cr_assert_not_null(parsed, "row %zu: %s", i, own.document);
		row = json_array_get(json_object_get(parsed, "stats"), 0);
		cr_assert_str_eq(json_string_value(json_object_get(row, "filename")), table[i].wanted, "row %zu", i);
		cr_assert_str_eq(json_string_value(json_object_get(row, "function")), table[i].wanted, "row %zu", i);
		json_decref(parsed);
		report_sample_free(&own);
	}
}

Test(json, no_python_version_is_null)
{
	sample.report.facts.python[0] = '\0';
	(void)print();
	expect(json_object_get(document, "python"), "null");
}

Test(json, a_full_disk)
{
	FILE *full = fopen("/dev/full", "w");

	(void)print();
	cr_assert_not_null(full);
	cr_assert_eq(pl_report_json(full, &sample.report, &sample.options), -ENOSPC);
	(void)fclose(full);
}

Test(json, known_causes)
{
	const struct pl_cause cause = {"name", "it leaks", "do not", "https://example.org/"};
	const struct pl_cause *causes[] = {NULL, &cause};
	json_t *stats;

	sample.report.causes = causes;
	sample.report.cause_count = 2;
	(void)print();
	stats = json_object_get(document, "stats");
	cr_assert_null(json_object_get(json_array_get(stats, 0), "known_cause"));
	expect(json_object_get(json_array_get(stats, 1), "known_cause"),
		"{\"name\": \"name\", \"cause\": \"it leaks\", \"remedy\": \"do not\", \"see\": \"https://example.org/\"}");
	cr_assert_null(json_object_get(json_array_get(stats, 2), "known_cause"));
}

Test(json, verdicts)
{
	const struct pl_verdict verdicts[] = {
		{PL_GROWTH_STEADY, 5, INT64_C(50123000000), 3600.4, 3000, 4000, 1.0 / 3, 16.0004},
		{.growth = PL_GROWTH_NOISE, .windows = 12, .watched_ns = 1000000000},
	};
	json_t *stats;

	sample.report.verdicts = verdicts;
	sample.report.verdict_count = 2;
	sample.report.headroom = (struct pl_headroom){.limit = 2000, .left = 1000, .cgroup = true};
	(void)print();
	stats = json_object_get(document, "stats");
	expect_keys(document, "schema kind pid pids python engine started window_s stop_ms frames group_by sample rss account pools places "
			      "not_recorded "
			      "total older net_growth lost headroom stats");
	expect(json_object_get(document, "headroom"), "{\"limit\": 2000, \"left\": 1000, \"cgroup\": true}");
	expect(json_object_get(json_array_get(stats, 0), "verdict"),
		"{\"kind\": \"steady\", \"windows\": 5, \"watched_s\": 50.123, \"turned_over\": 0.0, \"ends\": false, \"container\": false,"
		" \"rate\": {\"size_per_hour\": 3600.0, \"low\": 3000.0, \"high\": 4000.0},"
		" \"kept\": 0.333333, \"size_per_block\": 16.0, \"full_in_s\": 999}");
	expect(json_object_get(json_array_get(stats, 1), "verdict"),
		"{\"kind\": \"noise\", \"windows\": 12, \"watched_s\": 1.0, \"turned_over\": 0.0, \"ends\": false, \"container\": false, \"rate\": null, \"kept\": null,"
		" \"size_per_block\": null, \"full_in_s\": null}");
	cr_assert_null(json_object_get(json_array_get(stats, 2), "verdict"));
	sample.report.headroom.limit = 0;
	(void)print();
	cr_assert_null(json_object_get(document, "headroom"));
	expect(json_object_get(json_object_get(json_array_get(json_object_get(document, "stats"), 0), "verdict"), "full_in_s"),
		"null");
}
