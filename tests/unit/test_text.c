/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include <stdlib.h>
#include <string.h>

#include "pyleak/error.h"
#include "pyleak/text.h"

static const struct {
	const char *text, *printed, *blanked, *repaired;
} texts[] = {
	{"", "", "", ""},
	{"plain text", "plain text", "plain text", "plain text"},
	{"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80",
		"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"},
	{"a\nb\rc\x1b[2J\x7f", "a\\x0ab\\x0dc\\x1b[2J\\x7f", "a?b?c?[2J?", "a\nb\rc\x1b[2J\x7f"},
	{"a\tb", "a b", "a?b", "a\tb"},
	/* CSI as C1, NEL; the raw bytes of both, as a terminal that is set to Latin-1 takes them. */
	{"\xc2\x9b" "2J\xc2\x85", "\\x9b2J\\x85", "??2J??", "\xc2\x9b" "2J\xc2\x85"},
	{"\x9b" "2J\x85", "\\x9b2J\\x85", "?2J?", "\xef\xbf\xbd" "2J\xef\xbf\xbd"},
	/* RLO, LRI, PDI, RLM, ALM, LS */
	{"\xe2\x80\xae" "a\xe2\x81\xa6\xe2\x81\xa9\xe2\x80\x8f\xd8\x9c\xe2\x80\xa8",
		"\\u202ea\\u2066\\u2069\\u200f\\u061c\\u2028", "???a?\?\?\?\?\?\?\?\?\?\?\?\?\?",
		"\xe2\x80\xae" "a\xe2\x81\xa6\xe2\x81\xa9\xe2\x80\x8f\xd8\x9c\xe2\x80\xa8"},
	/* Cut, too long for what it is, a surrogate, beyond the last. */
	{"\xe2\x82", "\\xe2\\x82", "?\?", "\xef\xbf\xbd\xef\xbf\xbd"},
	{"\xc0\xaf", "\\xc0\\xaf", "?\?", "\xef\xbf\xbd\xef\xbf\xbd"},
	{"\xed\xa0\x80", "\\xed\\xa0\\x80", "?\?\?", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
};

Test(text, hostile)
{
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		char *printed = pl_printable(texts[i].text), *repaired = pl_text_repair(texts[i].text);
		char *blanked = strdup(texts[i].text);

		pl_text_blank(blanked, strlen(blanked));
		cr_expect_str_eq(printed, texts[i].printed, "%zu", i);
		cr_expect_str_eq(blanked, texts[i].blanked, "%zu", i);
		cr_expect_str_eq(repaired, texts[i].repaired, "%zu", i);
		free(printed);
		free(repaired);
		free(blanked);
	}
}

/* A character that goes on beyond the length is not touched there. */
Test(text, cut_by_its_length)
{
	char text[] = "a\xe2\x82\xac";

	pl_text_blank(text, 2);
	cr_assert_str_eq(text, "a?\x82\xac");
}

Test(text, an_error_is_one_line)
{
	struct pl_error err = {0};

	(void)pl_fail(&err, -1, "cannot: %s", "x\npyleak: all is well\xc2\x9b" "2J\xe2\x80\xae");
	cr_assert_str_eq(err.text, "cannot: x?pyleak: all is well??2J???");
}
