/* SPDX-License-Identifier: MIT */
#include "sample.h"

#include <locale.h>

#include "../../src/live/chart.h"
#include "../../src/live/model.h"
#include "pyleak/units.h"

/* The view without a terminal: snapshots and keys go in, lines of text come out. */

#define SECOND PL_NSEC_PER_SEC

static struct pl_sites *sites;
static struct live_model model;
static struct live_screen screen;
static int64_t clock_ns;
static int height = 24, width = 80;
static bool utf8 = true;
static size_t processes = 1;

/* app.py:29 grows, cache.py:7 is full, big.py:1 goes up and down. */
enum { LEAK, LEAK_FROM_ELSEWHERE, CACHE, TEMPORARY };

static void start(bool adopted)
{
	const struct pl_live_facts facts = {
		.recording = {.pid = 4711, .python = "3.11.2", .engine = "inline", .rss = 100 << 20},
		.command = "python3 app.py",
		.process_ns = -3600 * SECOND,
		.adopted = adopted,
	};
	const struct pl_live_options options = {
		.rows = {.python = true, .native = true, .sort = PL_SORT_SIZE}, .interval_ns = 10 * SECOND};

	(void)setlocale(LC_CTYPE, "C.UTF-8");
	sites = pl_sites_new();
	(void)sample_site(sites, PL_SITE_PYTHON, "/srv/app.py:29:parse|/srv/app.py:50:import_csv");
	(void)sample_site(sites, PL_SITE_PYTHON, "/srv/app.py:29:parse|/srv/retry.py:5:again");
	(void)sample_site(sites, PL_SITE_PYTHON, "/srv/cache.py:7:get");
	(void)sample_site(sites, PL_SITE_PYTHON, "/srv/big.py:1:<module>");
	live_model_init(&model, &facts, &options);
	clock_ns = 0;
}

static void set_up(void)
{
	start(false);
}

static void tear_down(void)
{
	live_screen_free(&screen);
	live_model_free(&model);
	pl_sites_free(sites);
}

TestSuite(live, .init = set_up, .fini = tear_down);

static void update(int64_t seconds)
{
	const struct pl_live_state state = {
		.stop_ns = 2 * PL_NSEC_PER_MSEC, .memory = 12 << 20, .processes = processes, .headroom = {1 << 30, 1 << 20, true}};
	struct pl_snapshot *snapshot = pl_snapshot_take(sites);

	clock_ns += seconds * SECOND;
	snapshot->taken_ns = clock_ns;
	snapshot->rss = (100 << 20) + (uint64_t)(clock_ns / SECOND) * 4096;
	cr_assert_eq(live_model_update(&model, snapshot, &state), 0);
}

/* A second in the life of the process. */
static void live_on(int seconds)
{
	for (int i = 0; i < seconds; i++) {
		sample_allocate(sites, LEAK, 1024, 2);
		sample_allocate(sites, LEAK_FROM_ELSEWHERE, 512, 1);
		sample_allocate(sites, TEMPORARY, 1 << 20, 100);
		sample_free(sites, TEMPORARY, 1 << 20, 100);
		update(1);
	}
}

static void type(const char *keys)
{
	for (; *keys; keys++)
		cr_assert(live_model_key(&model, LIVE_KEY_TEXT, (const char[]){*keys, '\0'}));
}

static void press(enum live_key key)
{
	cr_assert(live_model_key(&model, key, ""));
}

/* Draws, and checks what any screen must be. */
static void draw(void)
{
	cr_assert_eq(live_render(&model, &screen, height, width, utf8), 0);
	cr_assert_eq(screen.height, height);
	for (int i = 0; i < height; i++) {
		const struct live_line *line = &screen.lines[i];
		size_t spans = 0;

		cr_assert_leq(line->cells, width);
		if (!line->text)
			continue;
		cr_assert_eq(strlen(line->text), line->length);
		cr_assert_leq(live_text_cells(line->text, utf8), width);
		for (size_t j = 0; j < line->span_count; j++) {
			cr_assert_eq(line->spans[j].start, spans);
			spans += line->spans[j].length;
		}
		cr_assert_eq(spans, line->length, "every byte has a style");
		for (const char *c = line->text; *c; c++)
			cr_assert((unsigned char)*c >= ' ' && (utf8 || (unsigned char)*c < 0x7f));
	}
}

/* The line that begins with, or contains, a text; NULL: none. */
static const char *find(const char *text)
{
	draw();
	for (int i = 0; i < height; i++)
		if (screen.lines[i].text && strstr(screen.lines[i].text, text))
			return screen.lines[i].text;
	return NULL;
}

static void expect(const char *text)
{
	cr_assert_not_null(find(text), "not on the screen: %s", text);
}

static void expect_not(const char *text)
{
	const char *line = find(text);

	cr_assert_null(line, "on the screen: %s", line);
}

Test(live, rows)
{
	sample_allocate(sites, CACHE, 4 << 20, 10);
	update(1);
	live_on(20);
	expect("4711 Python 3.11.2 up 1h python3 app.py");
	expect("recorded 21.0 s");
	expect("tracked 4126 KiB, +15.0 KiB in 10.0 s, +90.0 KiB/min");
	expect("RSS     100 MiB, +0.08 MiB since recording began");
	expect("stopped for 2.0 ms, tables 12.0 MiB, 103 allocations/s");
	expect("    SIZE\u25bc     CHANGE     COUNT   AVERAGE TREND  LINE");
	expect(" 4096 KiB        0 B        10   410 KiB");
	expect(" 30.0 KiB  +15.0 KiB        60     512 B");
	expect("/srv/app.py:29");
	expect_not("big.py"); /* nothing of it lives */
	expect("1/2");
}

Test(live, order)
{
	static const char *const titles[] = {"SIZE\u25bc", "CHANGE\u25bc     COUNT", "COUNT\u25bc", "CHANGE\u25bc   AVERAGE", "AVERAGE\u25bc",
		"CHURN/s\u25bc", "AGE\u25bc"};
	static const char *const first[] = {"cache.py:7", "app.py:29", "app.py:29", "app.py:29", "cache.py:7", "big.py:1", "app.py:29"};

	sample_allocate(sites, CACHE, 4 << 20, 10);
	update(1);
	live_on(20);
	for (int round = 0; round < 2; round++)
		for (size_t i = 0; i < COUNT(titles); i++) {
			if (round)
				type((const char[]){(char)('1' + i), '\0'});
			expect(titles[i]);
			expect(first[i]);
			cr_assert_eq(strncmp(model.shown[0]->filename + 5, first[i], strcspn(first[i], ":")), 0, "by %s: %s",
				titles[i], model.shown[0]->filename);
			if (!round)
				type(">");
		}
	type("1<");
	expect("AGE\u25bc");
}

Test(live, groups)
{
	live_on(3);
	type("f");
	expect("FILE");
	expect("4608 B");
	type("u");
	expect("/srv/app.py:29 (parse)");
	type("t");
	expect("TRACEBACK");
	cr_assert_eq(model.shown_count, 2, "from two places");
	expect("3072 B");
	expect("1536 B");
	type("g");
	expect("LINE");
	cr_assert_eq(model.shown_count, 1);
}

Test(live, filter)
{
	sample_allocate(sites, CACHE, 4 << 20, 10);
	live_on(3);
	type("/APP");
	expect("filter: APP");
	cr_assert_eq(screen.cursor_row, height - 2);
	cr_assert_eq(model.shown_count, 1);
	expect("1/1");
	expect_not("cache.py");
	press(LIVE_KEY_ERASE);
	press(LIVE_KEY_ERASE);
	cr_assert_eq(model.shown_count, 2, "both have an 'a'");
	type("qzz");
	expect("no row matches");
	press(LIVE_KEY_ENTER);
	expect("filter: Aqzz");
	cr_assert_eq(screen.cursor_row, -1);
	press(LIVE_KEY_BACK);
	expect_not("filter:");
	cr_assert_eq(model.shown_count, 2);
	/* Of a traceback, any frame; of a name, any part, of the function too. */
	type("t/again");
	cr_assert_eq(model.shown_count, 1);
	press(LIVE_KEY_BACK);
	type("l/parse");
	cr_assert_eq(model.shown_count, 1);
	/* It ends where there is no room, and goes character by character. */
	for (int i = 0; i < 100; i++)
		cr_assert(live_model_key(&model, LIVE_KEY_TEXT, "\u00e9"));
	draw();
	press(LIVE_KEY_ERASE);
	draw();
}

Test(live, verdicts)
{
	width = 110;
	sample_allocate(sites, CACHE, 4 << 20, 10);
	for (int i = 0; i < 100; i++) {
		if (i < 40)
			sample_allocate(sites, CACHE, (uint64_t)(40 - i) << 10, 1);
		live_on(1);
	}
	expect("TREND  LINE");
	expect("steady /srv/app.py:29");
	expect("levels /srv/cache.py:7");
	/* On the rows that are shown, wherever they are in the order. */
	type("/app");
	expect("steady /srv/app.py:29");
	width = 60;
	press(LIVE_KEY_ENTER);
	press(LIVE_KEY_ENTER);
	expect("steady growth in ");
	expect("+5400 KiB/h");
	expect("fills the cgroup's memory in");
}

/* What is slow would be nothing in a second. */
Test(live, slow_rates)
{
	width = 100;
	live_on(1);
	sample_allocate(sites, CACHE, 5, 1);
	live_on(1);
	type("/cache");
	press(LIVE_KEY_ENTER);
	expect("9000 B/h");
	press(LIVE_KEY_ENTER);
	expect("churn=9000 B/h");
}

Test(live, known_cause)
{
	uint32_t site = sample_site(sites, PL_SITE_PYTHON, "/usr/lib/python3/logging/__init__.py:9:addHandler|/srv/app.py:3:serve");

	live_on(1);
	sample_allocate(sites, site, 1 << 20, 1);
	update(1);
	press(LIVE_KEY_ENTER);
	expect("known cause, if this goes on: a handler is added to a logger again and again");
	expect("add handlers once");
	for (int i = 0; i < 60; i++) {
		sample_allocate(sites, site, 1 << 20, 1);
		update(1);
	}
	expect("known cause: a handler");
	for (int i = 0; i < 200; i++)
		update(1);
	expect_not("known cause");
}

Test(live, processes)
{
	processes = 4;
	pl_sites_set_process(sites, 77);
	sample_allocate(sites, sample_site(sites, PL_SITE_PYTHON, "/srv/worker.py:3:work"), 1 << 20, 1);
	live_on(1);
	expect("4711 and 3 more Python");
	expect("/srv/worker.py:3 pid=77");
	processes = 1;
}

Test(live, native)
{
	const struct pl_native_caller caller = {
		.module = pl_sites_string(sites, "/usr/lib/numpy.so"), .symbol = pl_sites_string(sites, "PyArray_New")};
	const struct pl_frame frame = {.filename = pl_sites_string(sites, "/srv/figure.py"), .function = pl_sites_string(sites, "draw"), .line = 9};

	sample_allocate(sites, pl_sites_intern_native(sites, &frame, 1, false, &caller), 1 << 20, 1);
	live_on(1);
	expect("native /srv/figure.py:9");
	press(LIVE_KEY_ENTER);
	expect("native: /usr/lib/numpy.so, in PyArray_New");
}

/* A library's own thread: what it runs, and as a hint what Python did meanwhile. */
Test(live, librarys_thread)
{
	const char *module = pl_sites_string(sites, "/usr/lib/xla.so"), *function = pl_sites_string(sites, "loop");
	const struct pl_native_caller caller = {.module = module, .symbol = pl_sites_string(sites, "allocate")};
	const struct pl_native_line lines[] = {{{module, caller.symbol, 0}, module}};
	const struct pl_native_thread thread = {pl_sites_string(sites, "worker\033[2J"), {{module, function, 0}, module},
		{pl_sites_string(sites, "/srv/train.py"), pl_sites_string(sites, "step"), 9}};
	uint32_t site = pl_sites_intern_native(sites, NULL, 0, false, &caller);

	sample_allocate(sites, site, 1 << 20, 1);
	pl_sites_set_stack(sites, site, pl_sites_intern_thread_stack(sites, lines, 1, false, &thread));
	live_on(1);
	press(LIVE_KEY_ENTER);
	expect("thread: worker\\x1b[2J, runs loop (xla.so)");
	expect("meanwhile: /srv/train.py:9");
}

Test(live, freeze)
{
	live_on(3);
	type(" ");
	expect("FROZEN at 3.0 s");
	expect("4608 B");
	live_on(5);
	expect("4608 B");
	type("tl");
	expect("4608 B");
	type(" ");
	expect("12.0 KiB");
	expect("recorded 8.0 s");
	expect_not("FROZEN");
}

Test(live, baseline)
{
	live_on(30);
	expect("+15.0 KiB in 10.0 s");
	type("b");
	expect("the new baseline");
	live_on(20);
	expect("+30.0 KiB since baseline, 20.0 s, +90.0 KiB/min");
	expect("+30.0 KiB       150"); /* in the row, too */
	type("w");
	expect("+15.0 KiB in 10.0 s");
}

Test(live, window_slides)
{
	/* Whatever the pace: never shorter than the interval once that is over, and never much longer. */
	for (int i = 0; i < 200; i++) {
		live_on(1);
		if (clock_ns < 10 * SECOND)
			cr_assert_eq(model.window_ns, clock_ns, "since the recording began");
		else
			cr_assert(model.window_ns >= 10 * SECOND && model.window_ns <= 12 * SECOND, "%ld", (long)model.window_ns);
	}
	update(3600);
	live_on(1);
	cr_assert(model.window_ns >= 10 * SECOND);
}

Test(live, row)
{
	live_on(40);
	press(LIVE_KEY_ENTER);
	expect("/srv/app.py:29 in parse");
	expect("size=60.0 KiB (+15.0 KiB), count=120 (+30), average=512 B, churn=1536 B/s");
	/* It has no room left in that line, and is not cut. */
	expect("age=0s");
	cr_assert_eq(strncmp(find("age=0s"), "age=0s", 6), 0);
	expect("60.0 KiB\u2502");
	expect("\u2588");
	expect("30s ago");
	expect("largest traceback: 40.0 KiB in 80 blocks");
	expect("File \"/srv/app.py\", line 50, in import_csv");
	expect("File \"/srv/app.py\", line 29, in parse");
	live_on(10);
	expect("80.0 KiB\u2502"); /* a round value above 75 KiB */
	sample_free(sites, LEAK, 1024 * 50, 100);
	sample_free(sites, LEAK_FROM_ELSEWHERE, 512 * 50, 50);
	live_on(1);
	expect("size=1536 B (");
	press(LIVE_KEY_BACK);
	expect("SIZE\u25bc");
}

/* Of a path that is too long for the screen the end stays, and the number of the line. */
Test(live, long_path)
{
	char trace[400];

	(void)sprintf(trace, "/%0200d/site-packages/orm/session.py:1234:flush|/srv/app.py:50:import_csv", 0);
	sample_allocate(sites, sample_site(sites, PL_SITE_PYTHON, trace), 1 << 20, 1);
	live_on(1);
	press(LIVE_KEY_ENTER);
	expect("orm/session.py\", line 1234");
	expect("in 1 block,");
	width = 60;
	expect("session.py\", line 1234");
}

/* Below so many frames of a library the program's own one would not be seen. */
Test(live, own_frame)
{
	char trace[4096] = "";

	for (int i = 0; i < 20; i++)
		(void)sprintf(trace + strlen(trace), "/usr/lib/python3/dist-packages/deep.py:%d:f%d|", i + 1, i);
	strcat(trace, "/srv/mine.py:99:handler|/usr/lib/python3/dist-packages/server.py:7:serve");
	sample_allocate(sites, sample_site(sites, PL_SITE_PYTHON, trace), 1 << 20, 1);
	live_on(1);
	press(LIVE_KEY_ENTER);
	expect("File \"/srv/mine.py\", line 99, in handler");
	expect_not("line 1, in f0");
	press(LIVE_KEY_END);
	expect("line 1, in f0");
	/* So it is by caller, where it is the row itself. */
	press(LIVE_KEY_BACK);
	expect("called from /srv/mine.py:99");
	type("c");
	expect("CALLER");
	expect("/srv/mine.py:99 in handler");
	press(LIVE_KEY_ENTER);
	expect("allocated in /usr/lib/python3/dist-packages/deep.py:1 (f0)");
	expect("File \"/srv/mine.py\", line 99, in handler");
}

/* Rows of one line, told apart by who called. */
Test(live, rows_of_one_line)
{
	live_on(3);
	type("t");
	expect("app.py:50 > /srv/app.py:29");
	expect("retry.py:5 > /srv/app.py:29");
}

Test(live, long_traceback)
{
	char trace[4096] = "";

	for (int i = 0; i < 60; i++)
		(void)sprintf(trace + strlen(trace), "%s/srv/deep.py:%d:f%d", i ? "|" : "", i + 1, i);
	sample_allocate(sites, sample_site(sites, PL_SITE_PYTHON, trace), 1 << 20, 1);
	live_on(1);
	press(LIVE_KEY_ENTER);
	expect("line 1, in f0");
	expect_not("line 60,");
	press(LIVE_KEY_PAGE_UP);
	expect_not("line 1,");
	press(LIVE_KEY_END);
	expect("line 1, in f0");
	press(LIVE_KEY_HOME);
	expect("line 60, in f59");
	expect_not("line 1,");
	press(LIVE_KEY_DOWN);
	expect_not("line 60,");
	expect("line 59,");
}

/* Where head, chart and traceback have no room, the whole page is scrolled: nothing of it is out of reach. */
Test(live, row_on_a_low_screen)
{
	height = 10;
	width = 40;
	live_on(100);
	press(LIVE_KEY_ENTER);
	expect("app.py:29");
	expect("steady growth in");
	expect_not("in import_csv");
	press(LIVE_KEY_PAGE_DOWN);
	expect("m ago");
	expect_not("steady growth in");
	press(LIVE_KEY_END);
	expect("line 50");
	expect("line 29");
	press(LIVE_KEY_UP);
	expect("largest traceback");
	press(LIVE_KEY_HOME);
	expect("app.py:29");
	width = 200;
	height = 40;
	expect("largest traceback");
	expect("m ago");
	expect("steady growth in");
	expect("line 50");
}

Test(live, selection_stays_on_its_row)
{
	char trace[64];

	for (int i = 0; i < 50; i++) {
		(void)snprintf(trace, sizeof(trace), "/srv/many.py:%d:f", 1000 + i);
		sample_allocate(sites, sample_site(sites, PL_SITE_PYTHON, trace), (uint64_t)(5000 - i) << 10, 1);
	}
	live_on(1);
	cr_assert_eq(model.shown[model.selected]->line, 1000);
	for (int i = 0; i < 30; i++)
		press(LIVE_KEY_DOWN);
	expect("31/51");
	expect("many.py:1030");
	expect_not("many.py:1001");
	/* It comes to the top, and the selection with it. */
	sample_allocate(sites, 4 + 30, 1 << 30, 1);
	live_on(1);
	cr_assert_eq(model.selected, 0);
	cr_assert_eq(model.shown[0]->line, 1030);
	press(LIVE_KEY_END);
	expect("51/51");
	press(LIVE_KEY_PAGE_UP);
	press(LIVE_KEY_HOME);
	/* At the top it stays at the top. */
	sample_allocate(sites, 4, (uint64_t)1 << 31, 1);
	live_on(1);
	cr_assert_eq(model.selected, 0);
	cr_assert_eq(model.shown[0]->line, 1000);
}

Test(live, help)
{
	live_on(1);
	type("?");
	expect("group by line, file, function, caller, traceback");
	expect("any key back");
	type("q");
	expect("SIZE\u25bc");
	cr_assert_not(live_model_key(&model, LIVE_KEY_TEXT, "q"), "now it means to quit");
}

Test(live, notes)
{
	live_on(1);
	live_model_note(&model, "another tool has changed the allocator hooks");
	expect("another tool has changed");
	press(LIVE_KEY_DOWN);
	expect_not("another tool");
}

Test(live, adopted)
{
	tear_down();
	start(true);
	width = 90;
	sample_allocate(sites, CACHE, 4 << 20, 10);
	clock_ns = pl_now_ns() + 100 * SECOND; /* all sites are older than the view */
	update(0);
	expect("4096 KiB                   10   410 KiB   >1m "); /* no change yet, and of unknown age */
	live_on(5);
	expect("+7.5 KiB in 5.0 s");
}

Test(live, any_size)
{
	static const int heights[] = {1, 2, 3, 5, 6, 8, 10, 16, 24, 50}, widths[] = {1, 2, 10, 20, 40, 64, 72, 80, 100, 120, 200, 400};
	static const char *const keys[] = {"", "l", "/app", "?"};

	sample_allocate(sites, sample_site(sites, PL_SITE_NATIVE, "/srv/\u65e5\u672c\u8a9e/\x1b[2J\xff\u202e.py:3:f\u00fc"), 1 << 20, 1);
	live_on(130);
	for (size_t i = 0; i < COUNT(heights); i++)
		for (size_t j = 0; j < COUNT(widths); j++)
			for (size_t k = 0; k <= COUNT(keys); k++) {
				height = heights[i];
				width = widths[j];
				utf8 = k % 2;
				if (k < COUNT(keys))
					type(keys[k]);
				else
					press(LIVE_KEY_ENTER); /* the help goes */
				draw();
				press(LIVE_KEY_ENTER);
				draw();
				press(LIVE_KEY_DOWN);
				draw();
				press(LIVE_KEY_BACK);
				press(LIVE_KEY_BACK);
			}
}

Test(live, nothing_yet)
{
	draw();
	press(LIVE_KEY_ENTER);
	type("bwfs ");
	draw();
	update(1);
	expect("nothing was allocated yet");
	press(LIVE_KEY_ENTER);
	press(LIVE_KEY_END);
	draw();
}

Test(live, history_is_bounded)
{
	double values[LIVE_POINTS_MAX];
	struct pl_row row = {.site = LEAK};

	live_on(5000);
	cr_assert_leq(model.history.count, LIVE_POINTS_MAX);
	cr_assert_geq(model.history.count, LIVE_POINTS_MAX / 2);
	cr_assert_eq(model.history.points[0].at_ns, SECOND);
	cr_assert_eq(model.history.points[model.history.count - 1].at_ns, 5000 * SECOND);
	live_history_row(&model.history, sites, &row, PL_GROUP_TRACEBACK, values);
	for (size_t i = 0; i < model.history.count; i++) {
		cr_assert_float_eq(values[i], 1024.0 * (double)(model.history.points[i].at_ns / SECOND), 1);
		if (i > 0 && i + 1 < model.history.count)
			cr_assert_geq(model.history.points[i].at_ns - model.history.points[i - 1].at_ns, 32 * SECOND);
	}
}

Test(chart, sparkline)
{
	static const double values[] = {0, 1, 2, 3, 4, 5, 6, 7};
	static const double flat[] = {5, 5};
	char text[64];

	live_sparkline(values, 8, 10, true, text);
	cr_assert_str_eq(text, "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588");
	live_sparkline(values, 8, 4, false, text);
	cr_assert_str_eq(text, "_-*#");
	live_sparkline(flat, 2, 4, false, text);
	cr_assert_str_eq(text, "__");
	live_sparkline(values, 0, 4, false, text);
	cr_assert_str_eq(text, "");
}

Test(chart, round_values)
{
	static const double sizes[][2] = {
		{0, 1}, {1, 1}, {7, 8}, {9, 10}, {1000, 1000}, {5300, 6000}, {10 * 1024 - 1, 10 * 1024}, {10 * 1024, 10 * 1024},
		{10 * 1024 + 1, 15 * 1024}, {75 * 1024, 80 * 1024}, {1100 * 1024, 1500 * 1024}, {9000 * 1024, 10000 * 1024},
		{10239.0 * 1024, 10240.0 * 1024}, {33.5 * 1024 * 1024, 40.0 * 1024 * 1024},
	};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		cr_assert_float_eq(live_round_up(sizes[i][0]), sizes[i][1], 0.001, "of %g: %g", sizes[i][0], live_round_up(sizes[i][0]));
}

Test(chart, bars)
{
	static const double values[] = {0, 2, 8, 16};
	static const char *const wanted[] = {"   \u2588", " \u2582\u2588\u2588"};
	char text[64];

	for (int i = 0; i < 2; i++) {
		live_chart_line(values, 4, 4, 16, 2, i, true, text);
		cr_assert_str_eq(text, wanted[i]);
	}
	live_chart_line(values, 4, 8, 16, 1, 0, false, text);
	cr_assert_str_eq(text, "  ..####");
	live_chart_line(values, 4, 4, 0, 1, 0, true, text);
	cr_assert_str_eq(text, " \u2581\u2581\u2581");
}
