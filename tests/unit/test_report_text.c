/* SPDX-License-Identifier: MIT */
#include "pyleak/units.h"
#include "report_sample.h"

#include <errno.h>
#include <unistd.h>

#include "compare_to.inc"

static struct report_sample sample;

static void set_up(void)
{
	sample = report_sample_new();
}

static void tear_down(void)
{
	report_sample_free(&sample);
}

TestSuite(text, .init = set_up, .fini = tear_down);

static void expect(const char *wanted)
{
	const char *printed = report_sample_print(&sample, pl_report_text);

	cr_assert_str_eq(printed, wanted, "printed:\n%s\nwanted:\n%s", printed, wanted);
}

static void expect_json(const char *wanted)
{
	const char *printed = report_sample_print(&sample, pl_report_json);

	cr_assert_not_null(strstr(printed, wanted), "printed:\n%s\nwanted:\n%s", printed, wanted);
}

/* Each row is str() of tracemalloc's own statistic. */
Test(text, rows_are_tracemallocs)
{
	size_t compared = 0;

	for (size_t i = 0; i < COUNT(cases); i++) {
		const struct sample_case *wanted = &cases[i];
		struct report_sample own = report_sample_new();
		struct pl_snapshot *snapshots[2];
		const char *printed;

		sample_snapshots(own.sites, wanted->traces, wanted->trace_count, snapshots);
		own.before = snapshots[0];
		own.now = snapshots[1];
		own.report.kind = wanted->difference ? PL_REPORT_DIFF : PL_REPORT_TOP;
		own.report.sort = wanted->difference ? PL_SORT_SIZE_DIFF : PL_SORT_SIZE;
		if (wanted->group_by == PL_GROUP_LINE) {
			printed = report_sample_print(&own, pl_report_text);
			for (size_t j = 0; j < wanted->row_count; j++) {
				size_t length = strlen(wanted->rows[j].text);

				cr_assert(
					strncmp(printed, wanted->rows[j].text, length) == 0 && printed[length] == '\n',
					"case %zu, row %zu: %s", i, j, wanted->rows[j].text);
				printed += length + 1;
				if (strncmp(printed, "    # called from ", 18) == 0)
					printed = strchr(printed, '\n') + 1;
				compared++;
			}
		}
		report_sample_free(&own);
	}
	cr_assert_gt(compared, 100);
}

Test(text, nothing)
{
	sample.report.kind = PL_REPORT_TOP;
	sample.options.traceback = true;
	expect("total: size=0 B, count=0\n"
	       "growth in 10.0 s: tracked +0 B, RSS +40.0 MiB (100 MiB to 140 MiB)\n");
	sample.report.kind = PL_REPORT_DIFF;
	expect("total: size=0 B (+0 B), count=0 (+0)\n"
	       "growth in 10.0 s: tracked +0 B, RSS +40.0 MiB (100 MiB to 140 MiB)\n");
}

Test(text, rows_of_processes)
{
	report_sample_of_two_processes(&sample);
	expect("/app/a.py:1: size=16 B, count=1, average=16 B, pid=4720\n"
	       "/app/a.py:1: size=8 B, count=1, average=8 B, pid=4711\n"
	       "total: size=24 B, count=2, average=12 B\n"
	       "growth in 10.0 s in 2 processes: tracked +24 B, RSS +40.0 MiB (100 MiB to 140 MiB)\n");
}

Test(text, figures_between_two_windows)
{
	uint32_t site = sample_site(sample.sites, PL_SITE_NATIVE, "/matplotlib/cbook/__init__.py:784:f");

	sample_allocate(sample.sites, site, 2 * 6720512, 2);
	sample.before = pl_snapshot_take(sample.sites);
	sample_allocate(sample.sites, site, 4 * 6720512, 4);
	expect("/matplotlib/cbook/__init__.py:784: size=38.5 MiB (+25.6 MiB), count=6 (+4), average=6563 KiB\n"
	       "total: size=38.5 MiB (+25.6 MiB), count=6 (+4), average=6563 KiB\n"
	       "growth in 10.0 s: tracked +25.6 MiB, RSS +40.0 MiB (100 MiB to 140 MiB)\n");
}

Test(text, where_memory_is_now)
{
	uint32_t site = sample_site(sample.sites, PL_SITE_PYTHON, "/app/formatter.py:41:encode|/app/app.py:70:infer");
	uint32_t other = sample_site(sample.sites, PL_SITE_PYTHON, "/app/formatter.py:41:encode|/app/app.py:99:infer");

	sample_allocate(sample.sites, site, 801424896, 16707940);
	sample_allocate(sample.sites, other, 48, 1);
	sample_allocate(sample.sites, sample_site(sample.sites, PL_SITE_PYTHON, "/app/app.py:1:f"), 1, 1);
	sample_allocate(sample.sites, sample_site(sample.sites, PL_SITE_PYTHON, "/app/app.py:2:f"), 1, 1);
	sample.report.kind = PL_REPORT_TOP;
	sample.report.sort = PL_SORT_SIZE;
	sample.options.limit = 1;
	sample.options.traceback = true;
	/* The traceback's own figures: one of two ways to line 41. */
	expect("/app/formatter.py:41: size=764 MiB, count=16707941, average=48 B\n"
	       "2 more rows: size=2 B, count=2\n"
	       "total: size=764 MiB, count=16707943, average=48 B\n"
	       "growth in 10.0 s: tracked +764 MiB, RSS +40.0 MiB (100 MiB to 140 MiB)\n"
	       "\n"
	       "largest traceback of /app/formatter.py:41, most recent call last:\n"
	       "memory_blocks=16707940 size_kB=782641.5\n"
	       "  File \"/app/app.py\", line 70\n"
	       "  File \"/app/formatter.py\", line 41\n");
}

Test(text, who_called_a_library)
{
	uint32_t site = sample_site(sample.sites, PL_SITE_PYTHON,
		"/usr/lib/python3.11/json/decoder.py:353:raw_decode|/usr/lib/python3.11/json/__init__.py:346:loads|"
		"/srv/app.py:70:handle|/srv/main.py:9:main");

	sample.before = pl_snapshot_take(sample.sites);
	sample_allocate(sample.sites, site, 64, 1);
	expect("/usr/lib/python3.11/json/decoder.py:353: size=64 B (+64 B), count=1 (+1), average=64 B\n"
	       "    # called from /srv/app.py:70 (handle)\n"
	       "total: size=64 B (+64 B), count=1 (+1), average=64 B\n"
	       "growth in 10.0 s: tracked +64 B, RSS +40.0 MiB (100 MiB to 140 MiB)\n");
}

static char *numbered_source(void *context, const char *filename, int line)
{
	char *text;

	return asprintf(&text, "source of %d", line) < 0 ? NULL : text;
}

/* With the line that called, and by caller with what it called. */
Test(text, rows_by_caller)
{
	uint32_t site = sample_site(sample.sites, PL_SITE_PYTHON,
		"/usr/lib/python3.11/json/decoder.py:353:raw_decode|/srv/app.py:70:handle|/venv/bin/gunicorn:8:<module>");

	sample.before = pl_snapshot_take(sample.sites);
	sample_allocate(sample.sites, site, 64, 1);
	sample.options.source = numbered_source;
	expect("/usr/lib/python3.11/json/decoder.py:353: size=64 B (+64 B), count=1 (+1), average=64 B\n"
	       "    source of 353\n"
	       "    # called from /srv/app.py:70 (handle)\n"
	       "    #     source of 70\n"
	       "total: size=64 B (+64 B), count=1 (+1), average=64 B\n"
	       "growth in 10.0 s: tracked +64 B, RSS +40.0 MiB (100 MiB to 140 MiB)\n");
	sample.report.group_by = PL_GROUP_CALLER;
	expect("/srv/app.py:70: size=64 B (+64 B), count=1 (+1), average=64 B\n"
	       "    source of 70\n"
	       "    # allocated in /usr/lib/python3.11/json/decoder.py:353 (raw_decode)\n"
	       "    #     source of 353\n"
	       "total: size=64 B (+64 B), count=1 (+1), average=64 B\n"
	       "growth in 10.0 s: tracked +64 B, RSS +40.0 MiB (100 MiB to 140 MiB)\n");
}

static void expect_remark(const char *trace, size_t count, bool more, int kept, const char *remark)
{
	struct report_sample own = report_sample_new();
	struct pl_frame frame = {pl_sites_string(own.sites, trace), pl_sites_string(own.sites, "f"), 1};
	struct pl_frame frames[16];
	const char *printed;

	for (size_t i = 0; i < count; i++)
		frames[i] = frame;
	sample_allocate(own.sites, pl_sites_intern(own.sites, PL_SITE_PYTHON, frames, count, more), 64, 1);
	own.report.kind = PL_REPORT_TOP;
	own.report.facts.frames = kept;
	printed = report_sample_print(&own, pl_report_text);
	if (*remark)
		cr_expect(strstr(printed, remark), "no '%s' in:\n%s", remark, printed);
	else
		cr_expect_not(strchr(printed, '#'), "%s", printed);
	report_sample_free(&own);
}

Test(text, nobody_of_the_program_called)
{
	static const char library[] = "/venv/lib/python3.11/site-packages/a.py";

	expect_remark(library, 16, true, 16, "    # all 16 frames kept are of libraries; --frames 64 shows more\n");
	expect_remark(library, 1, true, 1, "    # the one frame kept is a library's; --frames 16 shows more\n");
	expect_remark(library, 3, false, 16, "    # all its frames are of libraries\n");
	expect_remark(library, 16, true, 128, "    # all 16 frames kept are of libraries\n");
	expect_remark("/srv/app.py", 16, true, 16, "");
	expect_remark("<unknown>", 1, false, 16, "");
}

Test(text, account)
{
	struct pl_account before = {.taken = true, .rss = 104857600}, after = {.taken = true, .rss = 146800640};

	for (int part = 0; part < PL_ACCOUNT_PARTS; part++)
		before.known[part] = after.known[part] = true;
	after.parts[PL_ACCOUNT_ARENAS_FREE] = 6 << 20;
	after.parts[PL_ACCOUNT_STACKS] = 8192; /* too little to be read about */
	sample.report.account_before = &before;
	sample.report.account_after = &after;
	pl_rss_growth_compute(&before, &after, 0, 0, 0, &sample.report.growth);
	expect("Most of the growth of +40.0 MiB is in no row: +34.0 MiB unexplained, +6.0 MiB free in Python's arenas\n"
	       "total: size=0 B (+0 B), count=0 (+0)\n"
	       "growth in 10.0 s: tracked +0 B, RSS +40.0 MiB (100 MiB to 140 MiB)\n"
	       "RSS +40.0 MiB: +6.0 MiB free in Python's arenas, +34.0 MiB unexplained\n");
	/* Rows that are not shown have a part in it. */
	pl_rss_growth_compute(&before, &after, 40 << 20, 0, 0, &sample.report.growth);
	expect("total: size=0 B (+0 B), count=0 (+0)\n"
	       "growth in 10.0 s: tracked +0 B, RSS +40.0 MiB (100 MiB to 140 MiB)\n"
	       "RSS +40.0 MiB: +40.0 MiB all lines, +6.0 MiB free in Python's arenas, "
	       "-6.0 MiB unexplained\n");
	after.parts[PL_ACCOUNT_ARENAS_FREE] = 16 << 20;
	after.parts[PL_ACCOUNT_HEAP_FREE] = 16 << 20;
	pl_rss_growth_compute(&before, &after, 0, 0, 0, &sample.report.growth);
	expect("total: size=0 B (+0 B), count=0 (+0)\n"
	       "growth in 10.0 s: tracked +0 B, RSS +40.0 MiB (100 MiB to 140 MiB)\n"
	       "RSS +40.0 MiB: +16.0 MiB free in Python's arenas, +16.0 MiB free in the C library's heap, "
	       "+8.0 MiB unexplained\n"
	       "Most of this is not a leak but fragmentation: 32.0 MiB were freed, but Python's arenas and the C library's "
	       "heap cannot give them back, for the live blocks in between.\n");
	after.parts[PL_ACCOUNT_ARENAS_FREE] = 36 << 20;
	after.parts[PL_ACCOUNT_HEAP_FREE] = 0;
	after.class_free[6] = 20 << 20;
	pl_rss_growth_compute(&before, &after, 0, 0, 0, &sample.report.growth);
	expect("total: size=0 B (+0 B), count=0 (+0)\n"
	       "growth in 10.0 s: tracked +0 B, RSS +40.0 MiB (100 MiB to 140 MiB)\n"
	       "RSS +40.0 MiB: +36.0 MiB free in Python's arenas, +4.0 MiB unexplained\n"
	       "Most of this is not a leak but fragmentation: 36.0 MiB were freed, but Python's arenas cannot give them "
	       "back, most of them in pools of 48-byte blocks, for the live blocks in between.\n");
}

static void two_sites(void)
{
	uint32_t first = sample_site(sample.sites, PL_SITE_PYTHON, "/app/x.py:41:encode|/app/main.py:7:run");
	uint32_t second = sample_site(sample.sites, PL_SITE_PYTHON, "/app/x.py:50:encode");

	sample_allocate(sample.sites, first, 1000, 10);
	sample_allocate(sample.sites, second, 1, 1);
	sample.before = pl_snapshot_take(sample.sites);
	sample_allocate(sample.sites, first, 2048, 2);
	sample_free(sample.sites, second, 1, 1);
	sample.now = pl_snapshot_take(sample.sites);
}

Test(text, by_file)
{
	two_sites();
	sample.report.group_by = PL_GROUP_FILE;
	expect("/app/x.py: size=3048 B (+2047 B), count=12 (+1), average=254 B\n"
	       "total: size=3048 B (+2047 B), count=12 (+1), average=254 B\n"
	       "growth in 10.0 s: tracked +2047 B, RSS +40.0 MiB (100 MiB to 140 MiB)\n");
}

Test(text, by_function)
{
	two_sites();
	sample.report.group_by = PL_GROUP_FUNCTION;
	expect("/app/x.py:41 (encode): size=3048 B (+2047 B), count=12 (+1), average=254 B\n"
	       "total: size=3048 B (+2047 B), count=12 (+1), average=254 B\n"
	       "growth in 10.0 s: tracked +2047 B, RSS +40.0 MiB (100 MiB to 140 MiB)\n");
}

Test(text, by_traceback)
{
	two_sites();
	sample.report.group_by = PL_GROUP_TRACEBACK;
	sample.options.traceback = true;
	expect("/app/x.py:41: size=3048 B (+2048 B), count=12 (+2), average=254 B\n"
	       "memory_blocks=12 size_kB=3.0\n"
	       "  File \"/app/main.py\", line 7\n"
	       "  File \"/app/x.py\", line 41\n"
	       "/app/x.py:50: size=0 B (-1 B), count=0 (-1)\n"
	       "memory_blocks=0 size_kB=0.0\n"
	       "  File \"/app/x.py\", line 50\n"
	       "total: size=3048 B (+2047 B), count=12 (+1), average=254 B\n"
	       "growth in 10.0 s: tracked +2047 B, RSS +40.0 MiB (100 MiB to 140 MiB)\n");
}

Test(text, by_churn)
{
	two_sites();
	sample.report.sort = PL_SORT_CHURN;
	sample.options.limit = 1;
	expect("/app/x.py:41: size=3048 B (+2048 B), count=12 (+2), average=254 B, churn=2048 B in 2 blocks\n"
	       "1 more row: size=0 B (-1 B), count=0 (-1), churn=0 B in 0 blocks\n"
	       "total: size=3048 B (+2047 B), count=12 (+1), average=254 B, churn=2048 B in 2 blocks\n"
	       "growth in 10.0 s: tracked +2047 B, RSS +40.0 MiB (100 MiB to 140 MiB)\n");
}

Test(text, lost_and_ended)
{
	sample.report.kind = PL_REPORT_TOP;
	sample.report.losses.events = 12;
	sample.report.rss_after = 0;
	expect("total: size=0 B, count=0\n"
	       "growth in 10.0 s: tracked +0 B, RSS not known\n"
	       "lost: events=12 (in none of these figures), sites=0 (counted, but not where)\n");
	sample.report.losses.events = 0;
	sample.report.losses.sites = UINT64_MAX;
	sample.report.rss_after = 1024;
	expect("total: size=0 B, count=0\n"
	       "growth in 10.0 s: tracked +0 B, RSS -100.0 MiB (100 MiB to 1024 B)\n"
	       "lost: events=0 (in none of these figures), sites=18446744073709551615 (counted, but not where)\n");
}

Test(text, color)
{
	two_sites();
	sample.options.color = true;
	expect("/app/x.py:41: size=\033[1m3048 B\033[0m (\033[31m+2048 B\033[0m), count=12 (\033[31m+2\033[0m), "
	       "average=254 B\n"
	       "/app/x.py:50: size=\033[1m0 B\033[0m (\033[32m-1 B\033[0m), count=0 (\033[32m-1\033[0m)\n"
	       "total: size=\033[1m3048 B\033[0m (\033[31m+2047 B\033[0m), count=12 (\033[31m+1\033[0m), average=254 "
	       "B\n"
	       "growth in 10.0 s: tracked \033[31m+2047 B\033[0m, RSS \033[31m+40.0 MiB\033[0m "
	       "(100 MiB to 140 MiB)\n");
}

/* What a file, a function or a line of source is called must not reach the terminal as a command. */
Test(text, hostile_names)
{
	sample_allocate(sample.sites,
		sample_site(sample.sites, PL_SITE_PYTHON,
			"/a\033]0;x\007\n\x7f\xc2\x9b\xff\xe2\x80\xae\t\xc3\xa9\\%n.py"
			":1:\033[2Jf\xc3"),
		1, 1);
	sample.report.kind = PL_REPORT_TOP;
	sample.report.group_by = PL_GROUP_FUNCTION;
	sample.options.traceback = true;
	expect("/a\\x1b]0;x\\x07\\x0a\\x7f\\x9b\\xff\\u202e \xc3\xa9\\%n.py:1 (\\x1b[2Jf\\xc3): "
	       "size=1 B, count=1, average=1 B\n"
	       "total: size=1 B, count=1, average=1 B\n"
	       "growth in 10.0 s: tracked +1 B, RSS +40.0 MiB (100 MiB to 140 MiB)\n"
	       "\n"
	       "largest traceback of /a\\x1b]0;x\\x07\\x0a\\x7f\\x9b\\xff\\u202e \xc3\xa9\\%n.py:1, most recent call last:\n"
	       "memory_blocks=1 size_kB=0.0\n"
	       "  File \"/a\\x1b]0;x\\x07\\x0a\\x7f\\x9b\\xff\\u202e \xc3\xa9\\%n.py\", line 1\n");
}

Test(text, source_lines)
{
	char directory[] = "/tmp/pyleak-text-XXXXXX", path[64], trace[256], wanted[4000], long_line[2001];
	FILE *file;

	/* 167 characters of three bytes are 501: the cut falls within the last. */
	for (size_t i = 0; i + 3 <= sizeof(long_line); i += 3)
		memcpy(long_line + i, "\xe2\x82\xac", 3);
	long_line[1998] = '\0';
	cr_assert_not_null(mkdtemp(directory));
	(void)snprintf(path, sizeof(path), "%s/x.py", directory);
	file = fopen(path, "w");
	cr_assert_not_null(file);
	(void)fprintf(file, "def f():\n\treturn\t\033[31m1\n%s\n", long_line);
	cr_assert_eq(fclose(file), 0);
	(void)snprintf(trace, sizeof(trace), "%s:2:f|%s:3:g|%s:1:h", path, path, path);
	sample_allocate(sample.sites, sample_site(sample.sites, PL_SITE_PYTHON, trace), 1, 1);
	sample.report.kind = PL_REPORT_TOP;
	sample.options.traceback = true;
	sample.options.source_pid = getpid();
	(void)snprintf(wanted, sizeof(wanted),
		"%s:2: size=1 B, count=1, average=1 B\n"
		"    return \\x1b[31m1\n"
		"total: size=1 B, count=1, average=1 B\n"
		"growth in 10.0 s: tracked +1 B, RSS +40.0 MiB (100 MiB to 140 MiB)\n"
		"\n"
		"largest traceback of %s:2, most recent call last:\n"
		"memory_blocks=1 size_kB=0.0\n"
		"  File \"%s\", line 1\n"
		"    def f():\n"
		"  File \"%s\", line 3\n"
		"    %.*s ...\n"
		"  File \"%s\", line 2\n"
		"    return \\x1b[31m1\n",
		path, path, path, path, 166 * 3, long_line, path);
	expect(wanted);
	(void)unlink(path);
	(void)rmdir(directory);
}

Test(text, a_full_disk)
{
	FILE *full = fopen("/dev/full", "w");

	two_sites();
	(void)report_sample_print(&sample, pl_report_text);
	cr_assert_not_null(full);
	cr_assert_eq(pl_report_text(full, &sample.report, &sample.options), -ENOSPC);
	(void)fclose(full);
}

Test(text, verdicts_are_remarks)
{
	const struct pl_verdict verdicts[] = {
		{.growth = PL_GROWTH_STEADY, .windows = 5, .rate = 12.25 * 1048576, .rate_low = 11 * 1048576,
			.rate_high = 13 * 1048576, .kept = 0.333, .watched_ns = 300 * PL_NSEC_PER_SEC},
		{.growth = PL_GROWTH_LEVELLING, .windows = 5},
	};

	two_sites();
	sample.report.verdicts = verdicts;
	sample.report.verdict_count = 2;
	sample.report.headroom = (struct pl_headroom){.limit = 512 << 20, .left = 98 << 20, .cgroup = true};
	expect("/app/x.py:41: size=3048 B (+2048 B), count=12 (+2), average=254 B\n"
	       "    # steady growth in 5 windows: +12.2 MiB/h (11.0 MiB to 13.0 MiB), 33 % of its blocks stay; fills the "
	       "cgroup's memory in 8 h 0 min\n"
	       "/app/x.py:50: size=0 B (-1 B), count=0 (-1)\n"
	       "    # levels off: a cache that fills, or a start\n"
	       "total: size=3048 B (+2047 B), count=12 (+1), average=254 B\n"
	       "growth in 10.0 s: tracked +2047 B, RSS +40.0 MiB (100 MiB to 140 MiB)\n");
	sample.options.color = true;
	cr_assert_not_null(strstr(report_sample_print(&sample, pl_report_text), "    # \033[31msteady growth in 5 windows: "));
}

Test(text, known_causes_are_remarks)
{
	const struct pl_cause cause = {"name", "it \033leaks", "do not", "https://example.org/"};
	const struct pl_cause *causes[] = {&cause, NULL};
	const struct pl_verdict verdict = {.growth = PL_GROWTH_STEADY};
	const char *printed;

	two_sites();
	sample.report.causes = causes;
	sample.report.cause_count = 2;
	expect("known cause, if this goes on: it \\x1bleaks (+2048 B in 1 row)\n"
	       "    do not\n"
	       "    https://example.org/\n"
	       "/app/x.py:41: size=3048 B (+2048 B), count=12 (+2), average=254 B\n"
	       "    # known cause: name\n"
	       "/app/x.py:50: size=0 B (-1 B), count=0 (-1)\n"
	       "total: size=3048 B (+2047 B), count=12 (+1), average=254 B\n"
	       "growth in 10.0 s: tracked +2047 B, RSS +40.0 MiB (100 MiB to 140 MiB)\n");
	sample.report.verdicts = &verdict;
	sample.report.verdict_count = 1;
	printed = report_sample_print(&sample, pl_report_text);
	cr_assert_eq(strncmp(printed, "known cause: it ", 16), 0, "%s", printed);
}

Test(text, verdict)
{
	static const struct {
		struct pl_verdict verdict;
		struct pl_headroom headroom;
		const char *wanted;
	} table[] = {
		{{.growth = PL_GROWTH_NONE, .windows = 9}, {0}, ""},
		{{.growth = PL_GROWTH_EARLY, .windows = 3}, {0}, "grows; 3 windows are too few to say more"},
		{{.growth = PL_GROWTH_NOISE, .windows = 12}, {0}, "no trend in 12 windows: noise"},
		{{PL_GROWTH_STEADY, 4, 0, 100, 50, 200, 1, 0}, {0},
			"steady growth in 4 windows: +100 B/h (50 B to 200 B), every block stays"},
		{{PL_GROWTH_STEADY, 4, INT64_C(3600000000000), 100, 50, 200, 0, 0}, {1000, 1000, false},
			"steady growth in 4 windows: +100 B/h (50 B to 200 B); fills the machine's memory in 10 h 0 min"},
		{{PL_GROWTH_STEADY, 4, 10 * INT64_C(3600000000000), 100, 50, 200, 0.004, 0}, {100000, 100000, true},
			"steady growth in 4 windows: +100 B/h (50 B to 200 B), 1 in 250 of its blocks stays; fills the cgroup's "
			"memory in 41 days"},
		/* Nobody has watched for long enough to say so. */
		{{PL_GROWTH_STEADY, 4, 10 * INT64_C(3600000000000) - 1, 100, 50, 200, 0.004, 0}, {100000, 100000, true},
			"steady growth in 4 windows: +100 B/h (50 B to 200 B), 1 in 250 of its blocks stays"},
		/* One unit. */
		{{PL_GROWTH_STEADY, 4, 0, 20e6, 7e6, 200e6, 0, 0}, {0}, "steady growth in 4 windows: +19.1 MiB/h (6.7 MiB to 191 MiB)"},
		/* Of what is fast, nobody thinks by the hour. */
		{{PL_GROWTH_STEADY, 4, 0, 6e9, 3e9, 12e9, 0, 0}, {0}, "steady growth in 4 windows: +95.4 MiB/min (47.7 MiB to 191 MiB)"},
		/* Not within any uptime. */
		{{PL_GROWTH_STEADY, 4, INT64_MAX, 100, 50, 200, 1, 0}, {UINT64_MAX, UINT64_MAX, true},
			"steady growth in 4 windows: +100 B/h (50 B to 200 B), every block stays"},
	};

	for (size_t i = 0; i < COUNT(table); i++) {
		char text[PL_VERDICT_TEXT];

		pl_verdict_text(&table[i].verdict, &table[i].headroom, text);
		cr_assert_str_eq(text, table[i].wanted, "%s", text);
	}
	/* Whatever a hostile process makes of its figures. */
	char text[PL_VERDICT_TEXT];
	pl_verdict_text(&(struct pl_verdict){PL_GROWTH_STEADY, SIZE_MAX, 0, 1e300, -1e300, 1e300, 1e-300, 0},
		&(struct pl_headroom){1, 1, false}, text);
	cr_assert_not_null(strstr(text, "/min ("));
}

/* A thread of a library's own: what is known of it, below the row; and by caller the function that it runs. */
Test(text, threads_of_librarys)
{
	const char *module = pl_sites_string(sample.sites, "/lib/x.so");
	const struct pl_native_caller caller = {.module = module, .symbol = pl_sites_string(sample.sites, "inner"), .offset = 5};
	const struct pl_native_line lines[] = {{{module, pl_sites_string(sample.sites, "inner"), 0}, module}};
	const struct pl_native_thread thread = {pl_sites_string(sample.sites, "worker"),
		{{module, pl_sites_string(sample.sites, "loop"), 0}, module},
		{pl_sites_string(sample.sites, "/app/a.py"), pl_sites_string(sample.sites, "f"), 3}};
	const struct pl_frame frame = {pl_sites_string(sample.sites, "/app/b.py"), pl_sites_string(sample.sites, "g"), 9};
	uint32_t site = pl_sites_intern_native(sample.sites, NULL, 0, false, &caller);
	uint32_t other = pl_sites_intern_native(sample.sites, &frame, 1, false, &caller);
	uint32_t stack = pl_sites_intern_thread_stack(sample.sites, lines, 1, false, &thread);
	const char *text;

	sample_allocate(sample.sites, site, 4096, 1);
	pl_sites_set_stack(sample.sites, site, stack);
	/* Where Python ran nothing of it is said. */
	sample_allocate(sample.sites, other, 2048, 1);
	pl_sites_set_stack(sample.sites, other, stack);
	sample.report.kind = PL_REPORT_TOP;
	sample.report.sort = PL_SORT_SIZE;
	expect("/lib/x.so:0: size=4096 B, count=1, average=4096 B\n"
	       "    native: x.so (inner)\n"
	       "    thread: worker, runs loop (x.so)\n"
	       "    meanwhile: /app/a.py:3\n"
	       "/app/b.py:9: size=2048 B, count=1, average=2048 B\n"
	       "    native: x.so (inner)\n"
	       "total: size=6144 B, count=2, average=3072 B\n"
	       "growth in 10.0 s: tracked +6144 B, RSS +40.0 MiB (100 MiB to 140 MiB)\n");
	expect_json("\"thread\": {\"name\": \"worker\", \"runs\": {\"filename\": \"/lib/x.so\", \"lineno\": 0, \"function\": "
		    "\"loop\", \"module\": \"/lib/x.so\", \"native\": true}, \"meanwhile\": {\"filename\": \"/app/a.py\", "
		    "\"lineno\": 3, \"function\": \"f\"}}");
	sample.report.group_by = PL_GROUP_CALLER;
	text = report_sample_print(&sample, pl_report_json);
	cr_assert_not_null(strstr(text, "\"filename\": \"/lib/x.so\", \"lineno\": 0, \"function\": \"loop\", \"size\": 4096"), "%s", text);
	/* In the page it goes with each stack; the row by Python has none. */
	text = report_sample_print(&sample, pl_report_html);
	cr_assert_not_null(strstr(text, "\"threads\":[[\"worker, runs loop (x.so)\",\"/app/a.py:3\"]]"), "%s", strstr(text, "\"stacks\""));
	cr_assert_not_null(strstr(text, "\"stacks\":[[4096,0,1,0,4096,1,0,1,0,3,0,"), "%s", strstr(text, "\"stacks\""));
}

/* Native frames stand below those of Python, and who called the allocator's caller below the row. */
Test(text, native_frames)
{
	const char *module = pl_sites_string(sample.sites, "/lib/x.so"), *file = pl_sites_string(sample.sites, "x.c");
	const struct pl_native_caller caller = {module, pl_sites_string(sample.sites, "inner"), 5, file, 10};
	const struct pl_frame frame = {pl_sites_string(sample.sites, "/app/a.py"), pl_sites_string(sample.sites, "f"), 3};
	const struct pl_native_line lines[] = {
		{{file, pl_sites_string(sample.sites, "inner"), 10}, module},
		{{module, pl_sites_string(sample.sites, "outer"), 0}, module},
	};
	uint32_t site = pl_sites_intern_native(sample.sites, &frame, 1, false, &caller);

	sample_allocate(sample.sites, site, 4096, 1);
	pl_sites_set_stack(sample.sites, site, pl_sites_intern_stack(sample.sites, lines, 2, true));
	sample.report.kind = PL_REPORT_TOP;
	sample.report.sort = PL_SORT_SIZE;
	sample.options.traceback = true;
	expect("/app/a.py:3: size=4096 B, count=1, average=4096 B\n"
	       "    native: x.so (inner), x.c:10\n"
	       "    called by: x.so (outer)\n"
	       "total: size=4096 B, count=1, average=4096 B\n"
	       "growth in 10.0 s: tracked +4096 B, RSS +40.0 MiB (100 MiB to 140 MiB)\n"
	       "\n"
	       "largest traceback of /app/a.py:3, most recent call last:\n"
	       "memory_blocks=1 size_kB=4.0\n"
	       "  File \"/app/a.py\", line 3\n"
	       "  (native frames that are not known)\n"
	       "  File \"/lib/x.so\", in outer\n"
	       "  File \"x.c\", line 10, in inner (x.so)\n");
	expect_json("{\"module\": \"/lib/x.so\", \"symbol\": \"inner\", \"offset\": 5, \"filename\": \"x.c\", \"lineno\": 10, "
		    "\"frames\": [{\"filename\": \"/lib/x.so\", \"lineno\": 0, \"function\": \"outer\", \"module\": "
		    "\"/lib/x.so\", \"native\": true}, {\"filename\": \"x.c\", \"lineno\": 10, \"function\": \"inner\", "
		    "\"module\": \"/lib/x.so\", \"native\": true}]}");
	expect_json("\"traceback\": [{\"filename\": \"/app/a.py\", \"lineno\": 3, \"function\": \"f\"}, {\"filename\": "
		    "\"/lib/x.so\",");
	cr_assert_not_null(strstr(report_sample_print(&sample, pl_report_folded),
		"f (/app/a.py:3);outer (/lib/x.so:0);inner (x.c:10) 4096\n"));
	sample.report.group_by = PL_GROUP_TRACEBACK;
	cr_assert_not_null(strstr(report_sample_print(&sample, pl_report_csv),
		"/app/a.py:3 (f); /lib/x.so:0 (outer); x.c:10 (inner)"));
}
