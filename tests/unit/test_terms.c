/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include "report_sample.h"
#include "terms.h"

/* What stands in the glossary of the manual page, and what reports say: by one table. */

static const char *const terms[] = REPORT_TERMS;

static char *glossary(void)
{
	FILE *file = fopen(MANUAL_PAGE, "r");
	static char text[1 << 20];
	char *begin, *end;

	cr_assert_not_null(file, "%s", MANUAL_PAGE);
	text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
	(void)fclose(file);
	begin = strstr(text, ".Sh GLOSSARY\n");
	cr_assert_not_null(begin);
	end = strstr(begin + 1, "\n.Sh ");
	cr_assert_not_null(end);
	end[1] = '\0';
	return begin;
}

static bool is_term(const char *text, size_t length)
{
	for (size_t i = 0; i < COUNT(terms); i++)
		if (strlen(terms[i]) == length && memcmp(terms[i], text, length) == 0)
			return true;
	return false;
}

Test(terms, are_in_the_glossary)
{
	const char *text = glossary();

	for (size_t i = 0; i < COUNT(terms); i++) {
		char item[100];

		(void)snprintf(item, sizeof(item), "\n.It %s\n", terms[i]);
		cr_expect_not_null(strstr(text, item), "'%s' is not in the glossary", terms[i]);
	}
}

Test(terms, glossary_has_no_others)
{
	const char *last = "";

	for (const char *item = glossary(); (item = strstr(item, "\n.It ")); item++) {
		size_t length = strcspn(item + 5, "\n");

		cr_expect(is_term(item + 5, length), "no report says '%.*s'", (int)length, item + 5);
		cr_expect_leq(strncasecmp(last, item + 5, length), 0, "'%.*s' is not in its place", (int)length, item + 5);
		last = item + 5;
	}
}

/* Of a line "NAME SIZE: SIZE part, SIZE part", each part. */
static void expect_parts(char *line)
{
	char *part = strstr(line, ": ");

	cr_assert_not_null(part);
	for (part += 2; part; part = strstr(part, ", ") ? strstr(part, ", ") + 2 : NULL) {
		const char *name = strchr(strchr(part, ' ') + 1, ' ') + 1; /* behind number and unit */
		size_t length = strcspn(name, ",\n");

		cr_expect(is_term(name, length), "'%.*s' is not in the table", (int)length, name);
	}
}

/* Whatever the resident size may consist of. */
Test(terms, parts_of_the_growth)
{
	struct report_sample sample = report_sample_new();
	const struct pl_account account = {.taken = true};
	char *line;

	sample.report.account_before = sample.report.account_after = &account;
	for (int sign = -1; sign <= 1; sign += 2) {
		for (int cause = 0; cause < PL_CAUSES; cause++)
			sample.report.growth.causes[cause] = (cause ? sign : -sign) * INT64_C(1000000);
		sample.report.growth.causes[PL_CAUSE_ROUNDING] = 5000;
		sample.report.growth.known = true;
		line = strstr(report_sample_print(&sample, pl_report_text), "\nRSS ");
		cr_assert_not_null(line);
		line++;
		*strchr(line, '\n') = '\0';
		expect_parts(line);
	}
	report_sample_free(&sample);
}
