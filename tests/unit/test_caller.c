/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>
#include <string.h>

#include "pyleak/stats.h"
#include "sample.h"
#include "trace_frames.h"

static const char *caller_of(const char *trace)
{
	struct pl_sites *sites = pl_sites_new();
	struct pl_row row = {.site = sample_site(sites, PL_SITE_PYTHON, trace)};
	const struct pl_frame *caller;
	static char name[100];
	size_t count;

	row.filename = trace_frames(sites, row.site, &count, NULL)[0].filename;
	caller = pl_row_caller(sites, &row);
	(void)snprintf(name, sizeof(name), "%s", caller ? caller->function : "nobody");
	pl_sites_free(sites);
	return name;
}

Test(caller, library)
{
	cr_assert(pl_is_library("/usr/lib/python3.11/json/decoder.py"));
	cr_assert(pl_is_library("/usr/lib64/python3.6/json/decoder.py"));
	cr_assert(pl_is_library("/usr/lib/python311.zip/json/decoder.py"));
	cr_assert(pl_is_library("/usr/lib/python3/dist-packages/flask/app.py"));
	cr_assert(pl_is_library("/srv/venv/lib/python3.12/site-packages/flask/app.py"));
	cr_assert(pl_is_library("<frozen importlib._bootstrap>"));
	cr_assert_not(pl_is_library("/srv/lib/pythonic/app.py"));
	cr_assert_not(pl_is_library("/home/me/python3/app.py"));
	cr_assert_not(pl_is_library("app.py"));
	cr_assert_not(pl_is_library(""));
}

Test(caller, innermost_of_the_program)
{
	cr_assert_str_eq(caller_of("/usr/lib/python3.11/json/decoder.py:1:raw_decode|/srv/a.py:2:handle|/srv/b.py:3:main"),
		"handle");
	cr_assert_str_eq(caller_of("/usr/lib/python3.11/json/decoder.py:1:raw_decode|<string>:2:run"), "run");
	cr_assert_str_eq(caller_of("<string>:2:__init__|/srv/a.py:2:handle"), "handle");
	cr_assert_str_eq(caller_of("<unknown>:0:<unknown>"), "nobody");
	cr_assert_str_eq(caller_of("/srv/a.py:2:handle|/srv/b.py:3:main"), "nobody");
	cr_assert_str_eq(caller_of("/usr/lib/python3.11/threading.py:1:run|<frozen runpy>:2:_run"), "nobody");
}

/* "KIND FUNCTION" of a trace. */
static const char *place_of(const char *trace, const char *const *libraries)
{
	static const char *const kinds[] = {"own", "task", "libraries", "none"};
	struct pl_sites *sites = pl_sites_new();
	uint32_t site = sample_site(sites, PL_SITE_PYTHON, trace);
	struct pl_caller caller;
	static char name[100];

	pl_sites_set_libraries(sites, libraries);
	caller = pl_sites_caller(sites, site);
	(void)snprintf(name, sizeof(name), "%s %s", kinds[caller.kind], caller.frame->function);
	pl_sites_free(sites);
	return name;
}

#define LIBRARY "/venv/lib/python3.11/site-packages/"
#define STANDARD "/usr/lib/python3.11/"
#define LOOP "|" STANDARD "asyncio/base_events.py:1:_run_once|" STANDARD "asyncio/base_events.py:2:BaseEventLoop.run_forever|" \
	STANDARD "asyncio/base_events.py:3:BaseEventLoop.run_until_complete|" STANDARD "asyncio/runners.py:4:Runner.run|" \
	STANDARD "asyncio/runners.py:5:run|/srv/app.py:99:<module>"

Test(caller, kinds)
{
	static const struct {
		const char *trace, *expected;
	} table[] = {
		{"/srv/a.py:2:handle|/srv/b.py:3:main", "own handle"},
		{LIBRARY "a.py:1:f|/srv/a.py:2:handle|/srv/b.py:3:main", "own handle"},
		{LIBRARY "a.py:1:inner|" LIBRARY "b.py:2:outer", "libraries outer"},
		/* Nobody's code, unless there is nothing else. */
		{LIBRARY "a.py:1:inner|" LIBRARY "b.py:2:outer|/venv/bin/gunicorn:8:<module>", "libraries outer"},
		{LIBRARY "a.py:1:inner|/srv/bin/serve.py:8:<module>", "own <module>"},
		{LIBRARY "a.py:1:inner|/srv/bin/serve:8:main", "own main"},
		{LIBRARY "a.py:1:inner|/srv/bin/serve:300:<module>", "own <module>"},
		{"/venv/bin/gunicorn:8:<module>", "own <module>"},
		{LIBRARY "a.py:1:inner|" STANDARD "threading.py:2:Thread.run|" STANDARD "threading.py:3:Thread._bootstrap", "libraries inner"},
		{STANDARD "threading.py:3:Thread._bootstrap", "libraries Thread._bootstrap"},
		/* Callbacks. */
		{LIBRARY "a.py:1:inner|" LIBRARY "b.py:2:coroutine|" STANDARD "asyncio/events.py:3:Handle._run" LOOP, "task coroutine"},
		{LIBRARY "a.py:1:inner|/srv/h.py:2:handler|" LIBRARY "b.py:2:coroutine|" STANDARD "asyncio/events.py:3:Handle._run" LOOP,
			"own handler"},
		{LIBRARY "a.py:1:inner|" LIBRARY "b.py:2:coroutine|" STANDARD "asyncio/runners.py:4:run|/srv/app.py:9:<module>",
			"task coroutine"},
		/* What is the loop's own doing: of who runs it. */
		{STANDARD "selectors.py:1:select" LOOP, "own <module>"},
		{STANDARD "asyncio/events.py:3:Handle._run" LOOP, "own <module>"},
		{STANDARD "asyncio/base_events.py:7:BaseEventLoop.call_soon|/srv/a.py:3:later", "own later"},
		{"<string>:1:__init__|/srv/a.py:3:f", "own f"},
		{LIBRARY "a.py:1:inner|<string>:1:<module>", "own <module>"},
		{"<unknown>:0:<unknown>", "none <unknown>"},
	};

	for (size_t i = 0; i < COUNT(table); i++)
		cr_expect_str_eq(place_of(table[i].trace, NULL), table[i].expected, "%s", table[i].trace);
}

Test(caller, excluded_files_are_libraries)
{
	static const char *const globs[] = {"/srv/framework/*", "orm.py", NULL};

	cr_expect_str_eq(place_of("/srv/framework/db.py:1:save|/srv/lib/orm.py:2:flush|/srv/app.py:3:handle", globs), "own handle");
	cr_expect_str_eq(place_of("/srv/framework/db.py:1:save|/srv/lib/orm.py:2:flush", globs), "libraries flush");
	cr_expect_str_eq(place_of("/srv/framework/db.py:1:save|/srv/app.py:3:handle", NULL), "own save");
}

/* Rows by caller: one for each line of the program, with what the libraries below it allocate; nothing is left out. */
Test(caller, rows)
{
	static const char *const globs[] = {"*/orm.py", NULL};
	struct pl_sites *sites = pl_sites_new();
	struct pl_rows_options options = {.group_by = PL_GROUP_CALLER, .python = true, .native = true, .exclude = globs};
	struct pl_snapshot *now;
	struct pl_rows rows;

	pl_sites_set_libraries(sites, globs);
	sample_allocate(sites, sample_site(sites, PL_SITE_PYTHON, STANDARD "json/decoder.py:1:decode|/srv/a.py:2:f"), 100, 1);
	sample_allocate(sites, sample_site(sites, PL_SITE_PYTHON, LIBRARY "b.py:1:g|/srv/a.py:2:f"), 30, 1);
	sample_allocate(sites, sample_site(sites, PL_SITE_PYTHON, "/srv/orm.py:1:save|/srv/a.py:2:f"), 20, 1);
	sample_allocate(sites, sample_site(sites, PL_SITE_NATIVE, "/srv/orm.py:1:save|/srv/a.py:2:f"), 7, 1);
	sample_allocate(sites, sample_site(sites, PL_SITE_PYTHON, LIBRARY "b.py:1:g|" LIBRARY "c.py:5:h"), 3, 1);
	now = pl_snapshot_take(sites);
	cr_assert_eq(pl_rows_make(now, NULL, &options, &rows), 0);
	cr_assert_eq(rows.count, 3);
	cr_expect_str_eq(rows.items[0].filename, "/srv/a.py");
	cr_expect_eq(rows.items[0].line, 2);
	cr_expect_eq(rows.items[0].size, 150);
	cr_expect_eq(rows.items[1].size, 7);
	cr_expect_eq(rows.items[1].domain, PL_SITE_NATIVE);
	cr_expect_str_eq(rows.items[2].filename, LIBRARY "c.py");
	cr_expect_eq(rows.total.size, 160);
	cr_expect_null(pl_row_caller(sites, &rows.items[0]), "it is the row itself");
	pl_rows_free(&rows);
	pl_snapshot_free(now);
	pl_sites_free(sites);
}
