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
