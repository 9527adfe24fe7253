/* SPDX-License-Identifier: MIT */
#include "sample.h"

#include <errno.h>
#include <unistd.h>

#include "pyleak/causes.h"
#include "trace_frames.h"

#define SECTION "[name]\ncause  it leaks\nremedy  do not\nsee https://example.org/\n"

static struct pl_causes *parse(const char *text)
{
	struct pl_causes *causes = NULL;
	struct pl_error err = {0};

	cr_assert_eq(pl_causes_parse(text, strlen(text), "FILE", &causes, &err), 0, "%s", err.text);
	return causes;
}

/* A file of ours. */
static char *line_of(void *context, const char *filename, int line)
{
	static const char *const lines[] = {
		"import functools",
		"@trace",
		"@functools.lru_cache(maxsize=None)",
		"def text(self):",
		"return 1",
		"",
		"@functools.cache",
		"async def page(number):",
		"x = 1",
		"def text_of(it):",
		"return text",
	};
	const char *wanted = context;

	if (strcmp(filename, wanted) != 0 || line < 1 || (size_t)line > COUNT(lines) || !*lines[line - 1])
		return NULL;
	return strdup(lines[line - 1]);
}

static struct pl_cause_facts facts_now;

/* Frames from "FILE:LINE:FUNCTION|…", innermost first. */
static bool found_in(const struct pl_causes *causes, const char *trace)
{
	struct pl_sites *sites = pl_sites_new();
	uint32_t site = sample_site(sites, PL_SITE_PYTHON, trace);
	char source[] = "/app/cached.py";
	size_t count;
	const struct pl_frame *frames = trace_frames(sites, site, &count, NULL);
	const struct pl_cause *cause = pl_causes_find(causes, &facts_now, frames, count, line_of, source);

	pl_sites_free(sites);
	return cause != NULL;
}

Test(causes, a_section)
{
	struct pl_causes *causes = parse("# a comment\n\n  \t\n" SECTION "match\t*/a.py:f\n\n[other] \n" "cause c\nremedy r\nsee s\n"
					 "match x.py:y\nmatch x.py:z");
	const struct pl_cause *cause = pl_causes_at(causes, 0);

	cr_assert_eq(pl_causes_count(causes), 2);
	cr_assert_str_eq(cause->name, "name");
	cr_assert_str_eq(cause->cause, "it leaks");
	cr_assert_str_eq(cause->remedy, "do not");
	cr_assert_str_eq(cause->see, "https://example.org/");
	cr_assert_str_eq(pl_causes_at(causes, 1)->name, "other");
	cr_assert(found_in(causes, "/lib/a.py:1:f"));
	cr_assert(found_in(causes, "x.py:1:z"));
	pl_causes_free(causes);
	causes = parse("# nothing\n");
	cr_assert_eq(pl_causes_count(causes), 0);
	cr_assert_not(found_in(causes, "x.py:1:z"));
	pl_causes_free(causes);
	pl_causes_free(NULL);
}

Test(causes, matches)
{
	static const struct {
		const char *match, *trace;
		bool found;
	} table[] = {
		/* The last frame is the innermost one, unless there may be others. */
		{"*/a.py:f", "/x/a.py:1:f", true},
		{"*/a.py:f", "/x/a.py:1:f|/x/b.py:2:g", true},
		{"*/a.py:f", "/x/b.py:2:g|/x/a.py:1:f", false},
		{"*/a.py:f ...", "/x/b.py:2:g|/x/a.py:1:f", true},
		{"*/a.py:f ...", "/x/a.py:1:f", true},
		{"*/a.py:f ...", "/x/a.py:1:g", false},
		{"*/a.py:f", "/x/a.pyc:1:f", false},
		/* Qualified names, and the part of them that older Pythons have. */
		{"*/a.py:put", "/x/a.py:1:Queue.put", true},
		{"*/a.py:put", "/x/a.py:1:f.<locals>.put", true},
		{"*/a.py:Queue.put", "/x/a.py:1:Queue.put", true},
		{"*/a.py:Queue.put", "/x/a.py:1:put", false},
		{"*/a.py:Queue.put", "/x/a.py:1:Stack.put", false},
		{"*/a.py:*", "/x/a.py:1:anything", true},
		{"*/a.py:p?t", "/x/a.py:1:pot", true},
		/* Several frames, outermost first, others between them. */
		{"*/m.py:g */a.py:f", "/x/a.py:1:f|/x/b.py:2:h|/x/m.py:3:g", true},
		{"*/m.py:g */a.py:f", "/x/m.py:3:g|/x/a.py:1:f", false},
		{"*/m.py:g */a.py:f ...", "/x/i.py:9:i|/x/a.py:1:f|/x/m.py:3:g|/x/o.py:1:o", true},
		{"*/m.py:g */a.py:f", "/x/a.py:1:f", false},
		{"*/a.py:f */a.py:f", "/x/a.py:1:f", false},
		{"*/a.py:f */a.py:f", "/x/a.py:1:f|/x/a.py:1:f", true},
		/* The part of a frame before its last colon is the file. */
		{"c:/a.py:f", "c?/a.py:1:f", false},
		{"<frozen?importlib>:f", "<frozen importlib>:1:f", true},
		{"*/a.py:f", "<frozen a>:1:f", true},
		{"*/a/b.py:f", "<frozen a.b>:1:f", true},
		{"*/a/__init__.py:f", "<frozen a>:1:f", true},
		{"*/a.py:f", "<frozen b>:1:f", false},
		{"*/a.py:f", "<frozen >:1:f", false},
		{"*/a.py:f", "", false},
		/* The decorators and the "def" of a function that is ours. */
		{"*:@*lru_cache*def*(self*", "/app/cached.py:5:Report.text", true},
		{"*:@*lru_cache*def*(self*", "/app/cached.py:4:text", true},
		{"*:@trace?@functools.lru_cache(maxsize=None)?def?text(self):", "/app/cached.py:5:text", true},
		{"*:@*lru_cache*def*(self*", "/app/cached.py:9:page", false},
		{"*:@functools.cache?async?def?page(*", "/app/cached.py:9:page", true},
		{"*:@*cache*", "/app/cached.py:11:text_of", false},
		{"*:@*cache*", "/app/cached.py:3:text", false},
		{"*:@*cache*", "/app/cached.py:99:text", false},
		{"*:@*cache*", "/app/other.py:5:text", false},
		{"*:@*cache*", "/app/cached.py:0:text", false},
		{"*:@*cache* ...", "/app/b.py:1:f|/app/cached.py:5:text|/app/m.py:1:g", true},
	};

	for (size_t i = 0; i < COUNT(table); i++) {
		char text[500];
		struct pl_causes *causes;

		(void)snprintf(text, sizeof(text), SECTION "match %s\n", table[i].match);
		causes = parse(text);
		cr_expect_eq(found_in(causes, table[i].trace), table[i].found, "%s, %s", table[i].match, table[i].trace);
		pl_causes_free(causes);
	}
}

/* All conditions of a section have to hold; on what is not known none does. */
Test(causes, conditions)
{
	static const struct pl_row_types third = {
		.items = {{"greenlet.greenlet", 200}, {"traceback", 100}}, .count = 2, .chain = 1200};
	static const struct {
		const char *when;
		struct pl_cause_facts facts;
		bool found;
	} table[] = {
		{"when threads > 8\nmatch */a.py:f", {9, 0}, true},
		{"when threads > 8\nmatch */a.py:f", {8, 0}, false},
		{"when threads > 8\nmatch */a.py:f", {0, 31200}, false},
		{"when python >= 3.12\nwhen python < 3.12.5\nmatch */a.py:f", {0, 31204}, true},
		{"when python >= 3.12\nwhen python < 3.12.5\nmatch */a.py:f", {0, 31205}, false},
		{"when python >= 3.12\nwhen python < 3.12.5\nmatch */a.py:f", {0, 31105}, false},
		{"when python < 3.14\nmatch */a.py:f", {0, 0}, false},
		{"when maxsize > 1000\nmatch *:@*lru_cache*", {0, 0}, true},
		{"when maxsize < 1000\nmatch *:@*lru_cache*", {0, 0}, false},
		{"when maxsize > 1000\nmatch */cached.py:text", {0, 0}, false},
		{"when tracebacks >= 10\nmatch *:*", {.types = &third}, true},
		{"when tracebacks >= 34\nmatch *:*", {.types = &third}, false},
		{"when live:*reenlet >= 60\nmatch *:*", {.types = &third}, true},
		{"when live:*reenlet >= 70\nmatch *:*", {.types = &third}, false},
		{"when live:reenlet >= 1\nmatch *:*", {.types = &third}, false},
		{"when live:*reenlet >= 60\nmatch *:*", {0, 0}, false},
		{"when chain > 1100\nmatch *:*", {.types = &third}, true},
		{"when chain > 1200\nmatch *:*", {.types = &third}, false},
		{"when tracebacks >= 10\nmatch *:*", {0, 0}, false},
		{"match *:=return?1", {0, 0}, true},
		{"match *:=return?2", {0, 0}, false},
	};

	for (size_t i = 0; i < COUNT(table); i++) {
		char text[500];
		struct pl_causes *causes;

		(void)snprintf(text, sizeof(text), SECTION "%s\n", table[i].when);
		causes = parse(text);
		facts_now = table[i].facts;
		cr_expect_eq(found_in(causes, strstr(text, "a.py") ? "/x/a.py:1:f" : "/app/cached.py:5:text"), table[i].found, "%s",
			table[i].when);
		pl_causes_free(causes);
	}
	facts_now = (struct pl_cause_facts){0};
	cr_expect_eq(pl_causes_version("3.11.5"), 31105);
	cr_expect_eq(pl_causes_version("3.9"), 30900);
	cr_expect_eq(pl_causes_version("x"), 0);
}

Test(causes, what_is_wrong_is_named_with_its_line)
{
	static const struct {
		const char *text, *wanted;
	} table[] = {
		{"match a:b", "FILE, line 1: this stands in no section: 'match'"},
		{SECTION "match a:b\n" SECTION "match a:b\n", "FILE, line 6: there is a section of this name already: 'name'"},
		{SECTION, "FILE, line 5: before this, there is no match in section 'name'"},
		{SECTION "[other]\n", "FILE, line 5: before this, there is no match in section 'name'"},
		{"[name]\ncause c\nmatch a:b\n\n", "FILE, line 5: before this, cause, remedy or see is missing in section 'name'"},
		{"[name\n", "FILE, line 1: not the name of a section in brackets: '[name'"},
		{"[]\n", "FILE, line 1: not the name of a section in brackets: '[]'"},
		{SECTION "see again\n", "FILE, line 5: the section has this already: 'see'"},
		{SECTION "nonsense again\n", "FILE, line 5: not one of cause, remedy, see, when and match: 'nonsense'"},
		{SECTION "match\n", "FILE, line 5: nothing follows 'match'"},
		{SECTION "match ...\n", "FILE, line 5: a match without a frame"},
		{SECTION "match a:b ... c:d\n", "FILE, line 5: '...' stands at the end of a match only, here follows 'c:d'"},
		{SECTION "match ab\n", "FILE, line 5: not FILE:FUNCTION: 'ab'"},
		{SECTION "match :b\n", "FILE, line 5: not FILE:FUNCTION: ':b'"},
		{SECTION "match a:\n", "FILE, line 5: not FILE:FUNCTION: 'a:'"},
		{SECTION "when threads\n", "FILE, line 5: not FACT RELATION NUMBER: 'threads'"},
		{SECTION "when moons > 1\n", "FILE, line 5: not one of threads, python, maxsize, tracebacks, chain and live:GLOB: 'moons > 1'"},
		{SECTION "when live: > 1\n",
			"FILE, line 5: not one of threads, python, maxsize, tracebacks, chain and live:GLOB: 'live: > 1'"},
		{SECTION "when threads = 1\n", "FILE, line 5: not one of <, > and >=: 'threads = 1'"},
		{SECTION "when threads > x\n", "FILE, line 5: not a number: 'threads > x'"},
		{SECTION "when python > 3\n", "FILE, line 5: not a number: 'python > 3'"},
		{SECTION "match a:1 a:2 a:3 a:4 a:5 a:6 a:7 a:8 a:9\n", "FILE, line 5: too many frames in one match"},
	};

	for (size_t i = 0; i < COUNT(table); i++) {
		struct pl_causes *causes = NULL;
		struct pl_error err = {0};

		cr_expect_eq(pl_causes_parse(table[i].text, strlen(table[i].text), "FILE", &causes, &err), -EINVAL);
		cr_expect_str_eq(err.text, table[i].wanted, "%s", err.text);
		cr_expect_null(causes);
	}
}

/* Each is whole, and links to a page. */
Test(causes, the_built_in_ones)
{
	struct pl_causes *causes;
	struct pl_error err = {0};

	cr_assert_eq(pl_causes_builtin(&causes, &err), 0, "%s", err.text);
	cr_assert_geq(pl_causes_count(causes), 15);
	for (size_t i = 0; i < pl_causes_count(causes); i++)
		cr_expect_eq(strncmp(pl_causes_at(causes, i)->see, "https://", 8), 0, "%s", pl_causes_at(causes, i)->name);
	cr_assert(found_in(causes, "/usr/lib/python3/dist-packages/matplotlib/cbook/__init__.py:784:f|"
				   "/usr/lib/python3/dist-packages/matplotlib/pyplot.py:10:figure|/app/app.py:3:draw"));
	cr_assert_not(found_in(causes, "/app/app.py:3:draw"));
	pl_causes_free(causes);
}

Test(causes, files)
{
	char path[] = "/tmp/pyleak-causes-XXXXXX";
	const char text[] = SECTION "match a:b\n";
	struct pl_causes *causes;
	struct pl_error err = {0};
	int fd = mkstemp(path);

	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	cr_assert_eq(pl_causes_read(path, &causes, &err), 0, "%s", err.text);
	cr_assert_eq(pl_causes_count(causes), 1);
	pl_causes_free(causes);
	(void)setenv("PYLEAK_CAUSES", path, 1);
	cr_assert_eq(pl_causes_count(pl_causes_default()), 1);
	(void)close(fd);
	(void)unlink(path);
	cr_assert_eq(pl_causes_read(path, &causes, &err), -ENOENT);
	cr_assert_eq(pl_causes_read("/tmp", &causes, &err), -EINVAL);
	cr_assert_eq(pl_causes_read("/dev/zero", &causes, &err), -EINVAL);
}

/* A file that is named and not there is a mistake; nothing stands in its way but the built-in ones. */
Test(causes, built_in_ones_stand_in)
{
	(void)setenv("PYLEAK_CAUSES", "/nonexistent", 1);
	cr_assert_geq(pl_causes_count(pl_causes_default()), 15);
	cr_assert_eq(pl_causes_default(), pl_causes_default());
}
