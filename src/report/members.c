/* SPDX-License-Identifier: MIT */
#include "members.h"

#include <errno.h>

int json_print_line(FILE *out, json_t *document)
{
	pl_autofree char *line = document ? json_dumps(document, JSON_ENSURE_ASCII | JSON_REAL_PRECISION(15)) : NULL;

	json_decref(document);
	if (!line)
		return -ENOMEM;
	errno = 0;
	if (fputs(line, out) != EOF && fputc('\n', out) != EOF && fflush(out) == 0)
		return 0;
	return errno ? -errno : -EIO;
}
