/* SPDX-License-Identifier: MIT */
#include "page.h"

#include <errno.h>
#include <string.h>

#include "pyleak/cleanup.h"

static const char data_mark[] = "@DATA@";

/* No name may end the script element or open a comment in it: "<" is written as JSON lets it be. */
static void print_data(FILE *out, const char *text)
{
	for (const char *open; (open = strchr(text, '<')); text = open + 1) {
		(void)fwrite(text, 1, (size_t)(open - text), out);
		(void)fputs("\\u003c", out);
	}
	(void)fputs(text, out);
}

int page_print(FILE *out, const char *page, size_t size, const json_t *data)
{
	const char *mark = memmem(page, size, data_mark, sizeof(data_mark) - 1);
	const char *rest = mark + sizeof(data_mark) - 1;
	pl_autofree char *text = data ? json_dumps(data, JSON_ENSURE_ASCII | JSON_COMPACT | JSON_REAL_PRECISION(15)) : NULL;

	if (!text)
		return -ENOMEM;
	errno = 0;
	(void)fwrite(page, 1, (size_t)(mark - page), out);
	print_data(out, text);
	(void)fwrite(rest, 1, size - (size_t)(rest - page), out);
	if (fflush(out) == 0 && !ferror(out))
		return 0;
	return errno ? -errno : -EIO;
}
