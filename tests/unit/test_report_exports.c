/* SPDX-License-Identifier: MIT */
#include "report_sample.h"

#include <errno.h>
#include <jansson.h>

/* csv, folded and speedscope: figures to the byte, and names that try to be something else. */

static struct report_sample sample;

static void set_up(void)
{
	uint32_t grown, gone, quiet;

	sample = report_sample_new();
	grown = sample_site(sample.sites, PL_SITE_PYTHON, "/app/formatter.py:41:encode|/app/app.py:70:infer");
	gone = sample_site(sample.sites, PL_SITE_NATIVE, "/app/formatter.py:50:encode|/app/app.py:71:infer");
	quiet = sample_site(sample.sites, PL_SITE_PYTHON, "/app/temporary.py:3:make");
	sample_allocate(sample.sites, grown, 1000, 10);
	sample_allocate(sample.sites, gone, 10, 1);
	sample.before = pl_snapshot_take(sample.sites);
	sample_allocate(sample.sites, grown, 540, 3);
	sample_free(sample.sites, grown, 40, 1);
	sample_free(sample.sites, gone, 10, 1);
	sample_allocate(sample.sites, quiet, 64, 1);
	sample_free(sample.sites, quiet, 64, 1);
	sample.now = pl_snapshot_take(sample.sites);
}

static void tear_down(void)
{
	report_sample_free(&sample);
}

TestSuite(exports, .init = set_up, .fini = tear_down);

#define CSV_TITLES                                                                                                   \
	"domain,filename,lineno,function,size,size_diff,count,count_diff,average,allocated_size,allocated_count,"    \
	"freed_size,freed_count"

Test(exports, csv_difference)
{
	cr_assert_str_eq(report_sample_print(&sample, pl_report_csv),
		CSV_TITLES "\r\n"
		"python,\"/app/formatter.py\",41,\"encode\",1500,500,12,2,125,540,3,40,1\r\n"
		"native,\"/app/formatter.py\",50,\"encode\",0,-10,0,-1,0,0,0,10,1\r\n"
		"python,\"/app/temporary.py\",3,\"make\",0,0,0,0,0,64,1,64,1\r\n");
	sample.options.limit = 1;
	cr_assert_str_eq(report_sample_print(&sample, pl_report_csv),
		CSV_TITLES "\r\n"
		"python,\"/app/formatter.py\",41,\"encode\",1500,500,12,2,125,540,3,40,1\r\n");
}

Test(exports, csv_of_processes)
{
	report_sample_free(&sample);
	sample = report_sample_new();
	report_sample_of_two_processes(&sample);
	cr_assert_str_eq(report_sample_print(&sample, pl_report_csv),
		CSV_TITLES ",pid\r\n"
		"python,\"/app/a.py\",1,\"f\",16,0,1,0,16,16,1,0,0,4720\r\n"
		"python,\"/app/a.py\",1,\"f\",8,0,1,0,8,8,1,0,0,4711\r\n");
}

Test(exports, csv_traceback)
{
	sample.report.group_by = PL_GROUP_TRACEBACK;
	sample.options.limit = 1;
	cr_assert_str_eq(report_sample_print(&sample, pl_report_csv),
		CSV_TITLES ",traceback\r\n"
		"python,\"/app/formatter.py\",41,\"encode\",1500,500,12,2,125,540,3,40,1,"
		"\"/app/app.py:70 (infer); /app/formatter.py:41 (encode)\"\r\n");
}

/* A report of one block whose file and function have this name. */
static struct report_sample named(const char *name)
{
	struct report_sample own = report_sample_new();
	const char *text = pl_sites_string(own.sites, name);
	const struct pl_frame frame = {text, text, 1};

	own.report.kind = PL_REPORT_TOP;
	own.report.sort = PL_SORT_SIZE;
	sample_allocate(own.sites, pl_sites_intern(own.sites, PL_SITE_PYTHON, &frame, 1, false), 8, 1);
	return own;
}

Test(exports, csv_names)
{
	static const struct {
		const char *name, *wanted;
	} table[] = {
		{"plain, with a comma", "\"plain, with a comma\""},
		{"a \"quoted\" one", "\"a \"\"quoted\"\" one\""},
		{"\"", "\"\"\"\""},
		{"=HYPERLINK(\"x\")", "\"'=HYPERLINK(\"\"x\"\")\""},
		{"+1", "\"'+1\""},
		{"@SUM", "\"'@SUM\""},
		{"two\r\nlines", "\"two\\x0d\\x0alines\""},
		{"\033[2J\xff", "\"\\x1b[2J\\xff\""},
		{"", "\"\""},
	};

	for (size_t i = 0; i < COUNT(table); i++) {
		struct report_sample own = named(table[i].name);
		char wanted[200];

		(void)snprintf(wanted, sizeof(wanted), CSV_TITLES "\r\npython,%s,1,%s,8,0,1,0,8,8,1,0,0\r\n",
			table[i].wanted, table[i].wanted);
		cr_expect_str_eq(report_sample_print(&own, pl_report_csv), wanted, "row %zu: %s", i, own.document);
		report_sample_free(&own);
	}
}

Test(exports, folded_difference_is_before_and_after)
{
	cr_assert_str_eq(report_sample_print(&sample, pl_report_folded),
		"infer (/app/app.py:70);encode (/app/formatter.py:41) 1000 1500\n"
		"infer (/app/app.py:71);encode (/app/formatter.py:50) 10 0\n");
	sample.options.limit = 1;
	cr_assert_str_eq(report_sample_print(&sample, pl_report_folded),
		"infer (/app/app.py:70);encode (/app/formatter.py:41) 1000 1500\n"
		"(2 more stacks) 10 0\n");
}

Test(exports, folded_weighs_by_the_order)
{
	static const struct {
		enum pl_sort sort;
		const char *wanted;
	} table[] = {
		{PL_SORT_SIZE, "infer;encode 1500\n"},
		{PL_SORT_COUNT, "infer;encode 12\n"},
		{PL_SORT_CHURN, "infer;encode 1540\nmake 64\ninfer;encode 10\n"},
	};

	sample.report.kind = PL_REPORT_TOP;
	for (size_t i = 0; i < COUNT(table); i++) {
		char names[200] = "";
		const char *text;

		sample.report.sort = table[i].sort;
		sample.report.group_by = PL_GROUP_FUNCTION;
		text = report_sample_print(&sample, pl_report_folded);
		/* Without the files, which stand in parentheses. */
		for (char *to = names; *text; text++) {
			if (*text == ' ' && text[1] == '(')
				text = strchr(text, ')') + 1;
			*to++ = *text;
		}
		cr_expect_str_eq(names, table[i].wanted, "row %zu: %s", i, names);
	}
}

Test(exports, folded_frames_by_group)
{
	static const struct {
		enum pl_group group_by;
		const char *wanted;
	} table[] = {
		{PL_GROUP_LINE, "infer (/app/app.py:70);encode (/app/formatter.py:41) 1500\n"},
		{PL_GROUP_TRACEBACK, "infer (/app/app.py:70);encode (/app/formatter.py:41) 1500\n"},
		{PL_GROUP_FUNCTION, "infer (/app/app.py);encode (/app/formatter.py) 1500\n"},
		{PL_GROUP_FILE, "/app/app.py;/app/formatter.py 1500\n"},
	};

	sample.report.kind = PL_REPORT_TOP;
	sample.report.sort = PL_SORT_SIZE;
	for (size_t i = 0; i < COUNT(table); i++) {
		sample.report.group_by = table[i].group_by;
		cr_expect_str_eq(report_sample_print(&sample, pl_report_folded), table[i].wanted);
	}
}

Test(exports, folded_names)
{
	struct report_sample own = named("a;b\n1 2");

	cr_assert_str_eq(report_sample_print(&own, pl_report_folded), "a:b\\x0a1 2 (a:b\\x0a1 2:1) 8\n");
	report_sample_free(&own);
}

Test(exports, folded_says_where_tracebacks_were_cut)
{
	struct report_sample own = named("unused");
	const struct pl_frame frame = {
		pl_sites_string(own.sites, "/app/deep.py"), pl_sites_string(own.sites, "dive"), 7};

	own.options.limit = 1;
	sample_allocate(own.sites, pl_sites_intern(own.sites, PL_SITE_PYTHON, &frame, 1, true), 100, 1);
	cr_assert_str_eq(report_sample_print(&own, pl_report_folded),
		"(older frames);dive (/app/deep.py:7) 100\n(1 more stacks) 8\n");
	report_sample_free(&own);
}

/* The sum of one profile's weights, and the frames of its first stack by name. */
static json_int_t profile_sum(json_t *document, size_t number, const char *name, const char *first)
{
	json_t *profile = json_array_get(json_object_get(document, "profiles"), number);
	json_t *frames = json_object_get(json_object_get(document, "shared"), "frames");
	json_t *samples = json_object_get(profile, "samples"), *weights = json_object_get(profile, "weights");
	char names[200] = "";
	json_int_t sum = 0;
	json_t *item;
	size_t i;

	cr_assert_str_eq(json_string_value(json_object_get(profile, "name")), name);
	cr_assert_eq(json_array_size(samples), json_array_size(weights));
	json_array_foreach(weights, i, item)
	{
		cr_assert_gt(json_integer_value(item), 0);
		sum += json_integer_value(item);
	}
	cr_assert_eq(json_integer_value(json_object_get(profile, "endValue")), sum);
	json_array_foreach(json_array_get(samples, 0), i, item)
	{
		json_t *frame = json_array_get(frames, (size_t)json_integer_value(item));

		(void)strcat(names, json_string_value(json_object_get(frame, "name")));
		(void)strcat(names, ";");
	}
	cr_assert_str_eq(names, first);
	return sum;
}

Test(exports, speedscope)
{
	json_t *document = json_loads(report_sample_print(&sample, pl_report_speedscope), JSON_REJECT_DUPLICATES, NULL);

	cr_assert_not_null(document);
	cr_expect_eq(json_array_size(json_object_get(document, "profiles")), 3);
	cr_expect_eq(profile_sum(document, 0, "grown: live bytes", "infer;encode;"), 500);
	cr_expect_eq(profile_sum(document, 1, "shrunk: live bytes", "infer;encode;"), 10);
	cr_expect_eq(profile_sum(document, 2, "live bytes", "infer;encode;"), 1500);
	cr_expect_eq(json_array_size(json_object_get(json_object_get(document, "shared"), "frames")), 4);
	json_decref(document);

	sample.report.kind = PL_REPORT_TOP;
	sample.report.sort = PL_SORT_CHURN;
	sample.options.limit = 1;
	document = json_loads(report_sample_print(&sample, pl_report_speedscope), JSON_REJECT_DUPLICATES, NULL);
	cr_expect_eq(json_array_size(json_object_get(document, "profiles")), 1);
	cr_expect_eq(profile_sum(document, 0, "allocated bytes", "infer;encode;"), 1614, "the rest is one stack");
	json_decref(document);
}

/* More frames than the first table of them holds. */
Test(exports, speedscope_of_many_frames)
{
	struct report_sample own = named("first");
	json_t *document, *frames;

	for (int i = 0; i < 5000; i++) {
		const struct pl_frame stack[] = {
			{pl_sites_string(own.sites, "many.py"), pl_sites_string(own.sites, "leaf"), i % 2500},
			{pl_sites_string(own.sites, "many.py"), pl_sites_string(own.sites, "root"), i},
		};

		sample_allocate(own.sites, pl_sites_intern(own.sites, PL_SITE_PYTHON, stack, 2, false), 1, 1);
	}
	document = json_loads(report_sample_print(&own, pl_report_speedscope), JSON_REJECT_DUPLICATES, NULL);
	frames = json_object_get(json_object_get(document, "shared"), "frames");
	cr_assert_eq(json_array_size(frames), 1 + 2500 + 5000);
	cr_assert_eq(profile_sum(document, 0, "live bytes", "first;"), 5008);
	json_decref(document);
	report_sample_free(&own);
}

Test(exports, a_full_disk)
{
	static const report_printer printers[] = {pl_report_csv, pl_report_folded, pl_report_speedscope, pl_report_pprof, pl_report_html,
		pl_report_openmetrics};

	for (size_t i = 0; i < COUNT(printers); i++) {
		FILE *full = fopen("/dev/full", "w");

		(void)report_sample_print(&sample, printers[i]);
		cr_assert_not_null(full);
		cr_expect_eq(printers[i](full, &sample.report, &sample.options), -ENOSPC, "printer %zu", i);
		(void)fclose(full);
	}
}

Test(exports, a_file_name_says_its_format)
{
	static const struct {
		const char *name;
		enum pl_format format;
	} table[] = {
		{"growth.txt", PL_FORMAT_TEXT},
		{"growth", PL_FORMAT_TEXT},
		{"growth.json", PL_FORMAT_JSON},
		{"growth.speedscope.json", PL_FORMAT_SPEEDSCOPE},
		{"growth.pb.gz", PL_FORMAT_PPROF},
		{"growth.html", PL_FORMAT_HTML},
		{"/tmp/a.csv/growth.folded", PL_FORMAT_FOLDED},
		{"/tmp/a.csv/growth", PL_FORMAT_TEXT},
		{".csv", PL_FORMAT_TEXT},
		{"growth.CSV", PL_FORMAT_TEXT},
		{"", PL_FORMAT_TEXT},
	};

	for (size_t i = 0; i < COUNT(table); i++)
		cr_expect_eq(pl_report_format_of_file(table[i].name), table[i].format, "%s", table[i].name);
}
