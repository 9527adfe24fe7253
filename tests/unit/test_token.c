/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "../../src/serve/token.h"

static const char token[] = "0123456789abcdef-._~";

Test(token, given)
{
	cr_assert(serve_token_given(token, "Bearer 0123456789abcdef-._~"));
	cr_assert(serve_token_given(token, "bEARER 0123456789abcdef-._~"));
	/* "user:" and ":" before it, by base64(1) */
	cr_assert(serve_token_given(token, "Basic dXNlcjowMTIzNDU2Nzg5YWJjZGVmLS5ffg=="));
	cr_assert(serve_token_given(token, "basic OjAxMjM0NTY3ODlhYmNkZWYtLl9+"));
}

Test(token, not_given)
{
	static const char *const wrong[] = {NULL, "", "Bearer", "Bearer ", "Bearer 0", "Bearer 0123456789abcdef-._",
		"Bearer 0123456789abcdef-._~0", "Bearer  0123456789abcdef-._~", "Bearer 0123456789abcdef-._~0123456789abcdef-._~",
		"0123456789abcdef-._~", "Basic", "Basic ", "Basic =", "Basic ====", "Basic Og==", "Basic OjAx", "Basic \xff\xff",
		"Basic MDEyMzQ1Njc4OWFiY2RlZi0uX34=", /* without a colon */
		"Basic OjAxMjM0NTY3ODlhYmNkZWYtLl9+MA==", "Digest 0123456789abcdef-._~"};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		cr_assert_not(serve_token_given(token, wrong[i]), "%s", wrong[i] ? wrong[i] : "none");
}

/* A client sends what it likes: for the sanitizers. */
Test(token, anything)
{
	static const char letters[] = "BearerBasic =:+/09azAZ\x01\x80\xff";
	unsigned int chance = 17;

	for (int round = 0; round < 100000; round++) {
		char text[64];
		size_t length, start = 0;

		chance = chance * 1103515245 + 12345;
		length = chance >> 16 & 31;
		if (round % 3)
			start = (size_t)snprintf(text, sizeof(text), round % 3 == 1 ? "Basic " : "Bearer ");
		for (size_t i = 0; i < length; i++) {
			chance = chance * 1103515245 + 12345;
			text[start + i] = letters[(chance >> 16) % (sizeof(letters) - 1)];
		}
		text[start + length] = '\0';
		cr_assert_not(serve_token_given(token, text));
	}
}

static int read_with(const char *content, size_t size, mode_t mode, char **ret, struct pl_error *err)
{
	char path[] = "/tmp/pyleak-token-XXXXXX";
	int fd = mkstemp(path), code;

	cr_assert(fd >= 0 && write(fd, content, size) == (ssize_t)size && fchmod(fd, mode) == 0 && close(fd) == 0);
	*err = (struct pl_error){0};
	*ret = NULL;
	code = serve_token_read(path, ret, err);
	cr_assert_eq(unlink(path), 0);
	return code;
}

Test(token, file)
{
	struct pl_error err;
	char *text, longest[1026];

	cr_assert_eq(read_with("0123456789abcdef\nmore\n", 22, 0600, &text, &err), 0);
	cr_assert_str_eq(text, "0123456789abcdef");
	free(text);
	cr_assert_eq(read_with("0123456789abcdef\r\n", 18, 0440, &text, &err), 0, "%s", err.text);
	cr_assert_str_eq(text, "0123456789abcdef");
	free(text);
	memset(longest, 'x', sizeof(longest));
	cr_assert_eq(read_with(longest, 1024, 0400, &text, &err), 0, "%s", err.text);
	cr_assert_eq(strlen(text), 1024);
	free(text);
	cr_assert_eq(read_with(longest, 1025, 0400, &text, &err), -EINVAL);
	cr_assert_eq(read_with(longest, 1026, 0400, &text, &err), -EINVAL);
	cr_assert_eq(read_with("0123456789abcde\n", 16, 0600, &text, &err), -EINVAL);
	cr_assert_eq(read_with("\n0123456789abcdef\n", 18, 0600, &text, &err), -EINVAL);
	cr_assert_eq(read_with("0123456789\0abcdef0123456789", 27, 0600, &text, &err), -EINVAL);
	cr_assert_eq(read_with("", 0, 0600, &text, &err), -EINVAL);
	cr_assert_eq(read_with("0123456789abcdef", 16, 0604, &text, &err), -EPERM);
	cr_assert_eq(read_with("0123456789abcdef", 16, 0660, &text, &err), -EPERM);
	cr_assert_eq(serve_token_read("/nowhere/at/all", &text, &err), -ENOENT);
	err = (struct pl_error){0};
	cr_assert_eq(serve_token_read("/dev/null", &text, &err), -EINVAL);
}
