/* SPDX-License-Identifier: MIT */
#include "pyleak/holders_report.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* The holders' report, and what compares two of them, from figures that no process has. */

static char *print(const struct pl_holders_report *report, enum pl_format format)
{
	char *text = NULL;
	size_t size;
	FILE *stream = open_memstream(&text, &size);

	cr_assert_eq(pl_holders_print(stream, format, report, false), 0);
	cr_assert_eq(fclose(stream), 0);
	return text;
}

static size_t columns(const char *line, size_t length)
{
	size_t count = 0;

	for (size_t i = 0; i < length; i++)
		count += ((unsigned char)line[i] & 0xc0) != 0x80;
	return count;
}

static struct pl_held_type held_type = { .type = (char *)"app.models.inventory.WarehouseMovement", .count = 16777216,
	.size = UINT64_C(16) << 30, .sample = (char *)"[('a key of some length', 123456, 'żółw and more')]",
	.library = (char *)"_speedups.cpython-311-x86_64-linux-gnu.so", .unowned = true };
static struct pl_holder holder = { .path = (char *)"app.services.Registry.instances['warehouse'].moves",
	.type = (char *)"collections.OrderedDict", .size = UINT64_C(20) << 30, .count = 16777217, .own = 64, .contents = &held_type,
	.content_count = 1 };

static struct pl_holders sample(void)
{
	return (struct pl_holders){ .size = UINT64_C(64) << 30, .count = 123456789, .holders = &holder, .holder_count = 1,
		.garbage = { .size = UINT64_C(8) << 30, .count = 99999999, .types = &held_type, .type_count = 1 },
		.native = { .size = UINT64_C(7) << 30, .count = 88888888, .types = &held_type, .type_count = 1 },
		.collector_known = true };
}

Test(holders_report, lines_fit_80_columns_and_numbers_are_whole)
{
	const struct pl_holders holders = sample();
	const struct pl_holders_report report = { .holders = &holders, .pid = 1, .python = "3.12.1", .rss = UINT64_C(90) << 30,
		.account_known = true, .free = UINT64_C(11) << 30, .files = 12345678 };
	char *text = print(&report, PL_FORMAT_TEXT);

	for (const char *line = text, *end; (end = strchr(line, '\n')); line = end + 1)
		cr_assert_leq(columns(line, (size_t)(end - line)), 80, "%s", text);
	cr_assert_not_null(strstr(text, holder.path), "%s", text);
	cr_assert_not_null(strstr(text, "16,777,216 x "), "%s", text);
	cr_assert_not_null(strstr(text, "20.0 GiB  31.2 %"), "%s", text);
	cr_assert_not_null(strstr(text, "the collector is off"), "%s", text);
	cr_assert_not_null(strstr(text, "references that nobody owns"), "%s", text);
	free(text);
}

/* Some names have no blank to break at. */
Test(holders_report, a_long_path_is_not_cut)
{
	char path[301];
	struct pl_holders holders = sample();
	struct pl_holder one = holder;
	const struct pl_holders_report report = { .holders = &holders, .pid = 1, .python = "3.12.1" };
	char *text;

	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	one.path = path;
	holders.holders = &one;
	text = print(&report, PL_FORMAT_TEXT);
	cr_assert_not_null(strstr(text, path), "%s", text);
	free(text);
}

Test(holders_report, stacks_have_what_the_tree_has)
{
	struct pl_held_node nodes[] = {
		{ .path = (char *)"objects", .type = (char *)"", .parent = UINT32_MAX, .own = 5, .own_count = 1, .size = 155, .count = 4 },
		{ .path = (char *)"app.CACHE", .type = (char *)"dict", .parent = 0, .own = 50, .own_count = 1, .size = 150, .count = 3 },
		{ .type = (char *)"a;type", .parent = 1, .members = 2, .own = 100, .own_count = 2, .size = 100, .count = 2 },
	};
	const struct pl_held_tree tree = { nodes, 3 };
	const struct pl_holders holders = sample();
	const struct pl_holders_report report = { .holders = &holders, .pid = 1, .python = "3.12.1", .tree = &tree };
	char *text = print(&report, PL_FORMAT_FOLDED);

	cr_assert_str_eq(text, "objects (objects);app.CACHE (dict);a:type (objects) 100\nobjects (objects);app.CACHE (dict) 50\n"
			       "objects (objects) 5\n");
	free(text);
}

/* What is new grew from nothing, and what grew most comes first. */
Test(holders_report, what_grew)
{
	struct pl_holder *before_items = calloc(2, sizeof(*before_items)), *after_items = calloc(3, sizeof(*after_items));
	struct pl_holders before = { .size = 100, .count = 10, .holders = before_items, .holder_count = 2 };
	struct pl_holders after = { .size = 400, .count = 30, .holders = after_items, .holder_count = 3 };

	before_items[0] = (struct pl_holder){ .path = strdup("a.LARGE"), .type = strdup("dict"), .size = 90, .count = 9 };
	before_items[1] = (struct pl_holder){ .path = strdup("a.SMALL"), .type = strdup("dict"), .size = 10, .count = 1 };
	after_items[0] = (struct pl_holder){ .path = strdup("a.LARGE"), .type = strdup("dict"), .size = 95, .count = 9 };
	after_items[1] = (struct pl_holder){ .path = strdup("a.NEW"), .type = strdup("dict"), .size = 50, .count = 5 };
	after_items[2] = (struct pl_holder){ .path = strdup("a.SMALL"), .type = strdup("dict"), .size = 255, .count = 16 };
	pl_holders_compare(&before, &after, 2);
	cr_assert_eq(after.holder_count, 2);
	cr_assert_str_eq(after.holders[0].path, "a.SMALL");
	cr_assert_eq(after.holders[0].size_diff, 245);
	cr_assert_eq(after.holders[0].count_diff, 15);
	cr_assert_str_eq(after.holders[1].path, "a.NEW");
	cr_assert_eq(after.holders[1].size_diff, 50);
	cr_assert_eq(after.size_diff, 300);
	pl_holders_free(&before);
	pl_holders_free(&after);
}
