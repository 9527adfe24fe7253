/* SPDX-License-Identifier: MIT */
#include "sample.h"
#include "trace_frames.h"

Test(sites, equal_text_is_one_string)
{
	struct pl_sites *sites = pl_sites_new();
	char text[] = "/app/formatter.py";
	const char *first = pl_sites_string(sites, text);

	cr_assert_neq(first, text);
	text[0] = '\0';
	cr_assert_str_eq(first, "/app/formatter.py");
	cr_assert_eq(pl_sites_string(sites, "/app/formatter.py"), first);
	cr_assert_neq(pl_sites_string(sites, "/app/formatter.pyc"), first);
	cr_assert_str_eq(pl_sites_string(sites, ""), "");
	cr_assert_eq(pl_sites_string(sites, ""), pl_sites_string(sites, ""));
	pl_sites_free(sites);
}

Test(sites, a_long_string_is_whole)
{
	struct pl_sites *sites = pl_sites_new();
	static char text[1000000];
	const char *copy;

	memset(text, 'x', sizeof(text) - 1);
	copy = pl_sites_string(sites, text);
	cr_assert_str_eq(copy, text);
	cr_assert_str_eq(pl_sites_string(sites, "short"), "short");
	cr_assert_eq(pl_sites_string(sites, text), copy);
	pl_sites_free(sites);
}

Test(sites, what_makes_a_site)
{
	struct pl_sites *sites = pl_sites_new();
	const char *file = pl_sites_string(sites, "a.py"), *other = pl_sites_string(sites, "b.py");
	const struct pl_frame frames[] = {{file, file, 1}, {file, file, 2}}, *stored;
	const struct pl_frame line[] = {{file, file, 3}, {file, file, 2}};
	const struct pl_frame name[] = {{other, file, 1}, {file, file, 2}};
	const struct pl_frame function[] = {{file, other, 1}, {file, file, 2}};
	const struct pl_frame order[] = {{file, file, 2}, {file, file, 1}};
	size_t count;
	bool more;

	cr_assert_eq(pl_sites_count(sites), 0);
	cr_assert_eq(pl_sites_intern(sites, PL_SITE_PYTHON, frames, 2, false), 0);
	cr_assert_eq(pl_sites_intern(sites, PL_SITE_PYTHON, frames, 2, true), 1);
	cr_assert_eq(pl_sites_intern(sites, PL_SITE_NATIVE, frames, 2, false), 2);
	cr_assert_eq(pl_sites_intern(sites, PL_SITE_PYTHON, frames, 1, false), 3);
	cr_assert_eq(pl_sites_intern(sites, PL_SITE_PYTHON, line, 2, false), 4);
	cr_assert_eq(pl_sites_intern(sites, PL_SITE_PYTHON, name, 2, false), 5);
	cr_assert_eq(pl_sites_intern(sites, PL_SITE_PYTHON, function, 2, false), 6);
	cr_assert_eq(pl_sites_intern(sites, PL_SITE_PYTHON, order, 2, false), 7);
	cr_assert_eq(pl_sites_intern(sites, PL_SITE_PYTHON, frames, 2, false), 0);
	cr_assert_eq(pl_sites_count(sites), 8);

	/* The same of another process is another, as long as processes are told apart. */
	pl_sites_set_process(sites, 4711);
	cr_assert_eq(pl_sites_intern(sites, PL_SITE_PYTHON, frames, 2, false), 8);
	cr_assert_eq(pl_sites_intern(sites, PL_SITE_PYTHON, frames, 2, false), 8);
	cr_assert_eq(pl_sites_process(sites, 8), 4711);
	pl_sites_set_process(sites, 0);
	cr_assert_eq(pl_sites_intern(sites, PL_SITE_PYTHON, frames, 2, false), 0);
	cr_assert_eq(pl_sites_process(sites, 0), 0);

	stored = trace_frames(sites, 1, &count, &more);
	cr_assert_eq(count, 2);
	cr_assert(more);
	cr_assert_neq(stored, frames);
	cr_assert_eq(stored[0].filename, file);
	cr_assert_eq(stored[0].line, 1);
	cr_assert_eq(stored[1].line, 2);
	(void)trace_frames(sites, 0, &count, &more);
	cr_assert_not(more);
	cr_assert_eq(pl_sites_domain(sites, 2), PL_SITE_NATIVE);
	cr_assert_eq(pl_sites_domain(sites, 3), PL_SITE_PYTHON);
	pl_sites_free(sites);
}

Test(sites, no_frame_is_the_unknown_one)
{
	struct pl_sites *sites = pl_sites_new();
	const char *unknown = pl_sites_string(sites, "<unknown>");
	const struct pl_frame frame = {unknown, unknown, 0}, *stored;
	uint32_t site = pl_sites_intern(sites, PL_SITE_PYTHON, NULL, 0, false);
	size_t count;

	stored = trace_frames(sites, site, &count, NULL);
	cr_assert_eq(count, 1);
	cr_assert_str_eq(stored->filename, "<unknown>");
	cr_assert_eq(stored->line, 0);
	cr_assert_eq(pl_sites_intern(sites, PL_SITE_PYTHON, &frame, 1, false), site);
	pl_sites_free(sites);
}

Test(sites, many)
{
	enum { FILES = 50, LINES = 2000, SITES = FILES * LINES };
	struct pl_sites *sites = pl_sites_new();

	for (int round = 0; round < 3; round++)
		for (int i = 0; i < SITES; i++) {
			char name[32];
			const struct pl_frame *stored;
			struct pl_frame frames[3];
			uint32_t site;
			size_t count;

			(void)snprintf(name, sizeof(name), "/app/%d.py", i % FILES);
			for (int j = 0; j < 3; j++)
				frames[j] = (struct pl_frame){pl_sites_string(sites, name), "f", i / FILES + j};
			site = pl_sites_intern(sites, PL_SITE_PYTHON, frames, 3, false);
			cr_assert_eq(site, (uint32_t)i);
			sample_allocate(sites, site, (uint64_t)i, 1);
			stored = trace_frames(sites, site, &count, NULL);
			cr_assert_eq(count, 3);
			for (int j = 0; j < 3; j++) {
				cr_assert_eq(stored[j].filename, frames[j].filename);
				cr_assert_eq(stored[j].line, frames[j].line);
			}
		}
	cr_assert_eq(pl_sites_count(sites), SITES);
	for (uint32_t i = 0; i < SITES; i++) {
		cr_assert_eq(pl_sites_totals(sites, i)->allocated_count, 3);
		cr_assert_eq(pl_sites_totals(sites, i)->allocated_size, 3 * (uint64_t)i);
		cr_assert_eq(pl_sites_totals(sites, i)->freed_count, 0);
	}
	pl_sites_free(sites);
}

Test(sites, a_snapshot_is_a_copy)
{
	struct pl_sites *sites = pl_sites_new();
	struct pl_snapshot *empty = pl_snapshot_take(sites), *snapshot;
	uint32_t site = sample_site(sites, PL_SITE_PYTHON, "a.py:1:f");

	sample_allocate(sites, site, 100, 2);
	snapshot = pl_snapshot_take(sites);
	sample_allocate(sites, site, 1, 1);
	(void)sample_site(sites, PL_SITE_PYTHON, "a.py:2:f");
	cr_assert_eq(empty->count, 0);
	cr_assert_eq(snapshot->count, 1);
	cr_assert_eq(snapshot->sites, sites);
	cr_assert_eq(snapshot->totals[0].allocated_size, 100);
	cr_assert_eq(snapshot->totals[0].allocated_count, 2);
	cr_assert_geq(snapshot->taken_ns, empty->taken_ns);
	cr_assert_eq(snapshot->rss, 0);
	pl_snapshot_free(empty);
	pl_snapshot_free(snapshot);
	pl_snapshot_free(NULL);
	pl_sites_free(sites);
	pl_sites_free(NULL);
}

static struct pl_native_line native_line(struct pl_sites *sites, const char *filename, int line, const char *function)
{
	return (struct pl_native_line){
		{pl_sites_string(sites, filename), pl_sites_string(sites, function), line}, pl_sites_string(sites, "/lib/x.so")};
}

Test(sites, native_frames_lie_below_those_of_python)
{
	struct pl_sites *sites = pl_sites_new();
	const struct pl_native_caller caller = {.module = pl_sites_string(sites, "/lib/x.so")};
	const struct pl_frame python = {pl_sites_string(sites, "a.py"), pl_sites_string(sites, "f"), 3};
	const struct pl_native_line lines[] = {
		native_line(sites, "x.c", 10, "inner"), native_line(sites, "/lib/x.so", 0, "outer")};
	uint32_t with = pl_sites_intern_native(sites, &python, 1, true, &caller);
	uint32_t without = pl_sites_intern_native(sites, NULL, 0, false, &caller), stack;
	struct pl_traceback traceback;

	cr_assert_eq(pl_sites_stack(sites, with), UINT32_MAX);
	pl_sites_traceback(sites, with, &traceback);
	cr_assert(traceback.count == 1 && traceback.native == 0 && traceback.more && !traceback.gap);
	stack = pl_sites_intern_stack(sites, lines, 2, true);
	pl_sites_set_stack(sites, with, stack);
	pl_sites_set_stack(sites, without, stack);
	cr_assert_eq(pl_sites_stack(sites, with), stack);
	pl_sites_traceback(sites, with, &traceback);
	cr_assert_eq(traceback.count, 3);
	cr_assert_eq(traceback.native, 2);
	cr_assert(traceback.gap && traceback.more);
	cr_assert_eq(traceback.frames[0].line, 10);
	cr_assert_str_eq(traceback.frames[1].function, "outer");
	cr_assert_str_eq(traceback.modules[1], "/lib/x.so");
	cr_assert_str_eq(traceback.frames[2].filename, "a.py");
	/* Where Python had no frame, nothing stands for one any more. */
	pl_sites_traceback(sites, without, &traceback);
	cr_assert(traceback.count == 2 && traceback.native == 2 && !traceback.gap && !traceback.more);
	pl_sites_free(sites);
}

Test(sites, equal_native_stacks_are_one)
{
	struct pl_sites *sites = pl_sites_new();
	struct pl_native_line lines[3];

	for (int round = 0; round < 2; round++)
		for (int i = 0; i < 1000; i++) {
			for (int j = 0; j < 3; j++)
				lines[j] = native_line(sites, "x.c", i + j, "f");
			cr_assert_eq(pl_sites_intern_stack(sites, lines, 3, false), (uint32_t)i);
		}
	cr_assert_eq(pl_sites_stack_count(sites), 1000);
	cr_assert_eq(pl_sites_intern_stack(sites, lines, 3, true), 1000);
	cr_assert_eq(pl_sites_intern_stack(sites, lines, 2, false), 1001);
	cr_assert_eq(pl_sites_intern_stack(sites, lines, 0, false), 1002);
	pl_sites_free(sites);
}

Test(losses, add_up_and_count_from_a_moment)
{
	struct pl_losses sum = {.events = 1, .sites = UINT64_MAX - 1, .freed_before_count = 3};
	const struct pl_losses one = {10, 20, 30, 40, 50, 60}, later = {.events = 12, .sites = 5, .freed_before_count = 33, .freed_before_size = 39};
	struct pl_losses since;

	pl_losses_add(&sum, &one);
	cr_expect_eq(sum.events, 11);
	cr_expect_eq(sum.sites, UINT64_MAX, "a process can claim anything");
	cr_expect_eq(sum.freed_before_count, 33);
	cr_expect_eq(sum.freed_before_size, 40);
	cr_expect_eq(sum.freed_unseen_count, 50);
	cr_expect_eq(sum.freed_unseen_size, 60);
	since = pl_losses_since(&later, &one);
	cr_expect_eq(since.events, 2);
	cr_expect_eq(since.sites, 0, "never less than nothing");
	cr_expect_eq(since.freed_before_count, 3);
	cr_expect_eq(since.freed_before_size, 0);
	since = pl_losses_since(&later, NULL);
	cr_expect_eq(memcmp(&since, &later, sizeof(since)), 0);
}

Test(sites, native_frames_without_a_name_are_one)
{
	struct pl_sites *sites = pl_sites_new();
	const char *unknown = pl_sites_string(sites, "<unknown>"), *x = pl_sites_string(sites, "/x.so"), *y = pl_sites_string(sites, "/y.so");
	const struct pl_frame frame = {pl_sites_string(sites, "a.py"), pl_sites_string(sites, "f"), 1};
	const struct pl_native_line lines[] = {
		{{x, unknown, 0}, x}, {{x, unknown, 0}, x}, {{x, unknown, 0}, x}, {{y, unknown, 0}, y},
		{{x, pl_sites_string(sites, "named"), 0}, x}, {{x, unknown, 0}, x}, {{x, unknown, 0}, x},
	};
	uint32_t site = pl_sites_intern(sites, PL_SITE_NATIVE, &frame, 1, false);
	struct pl_traceback traceback;

	pl_sites_set_stack(sites, site, pl_sites_intern_stack(sites, lines, COUNT(lines), false));
	pl_sites_traceback(sites, site, &traceback);
	cr_assert_eq(traceback.native, 4);
	cr_assert_eq(traceback.count, 5);
	cr_assert_str_eq(traceback.modules[1], "/y.so");
	cr_assert_str_eq(traceback.frames[2].function, "named");
	cr_assert_str_eq(traceback.frames[4].filename, "a.py");
	pl_sites_free(sites);
}
