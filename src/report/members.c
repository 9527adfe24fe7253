/* SPDX-License-Identifier: MIT */
#include "members.h"

#include <errno.h>

bool put_thousandths(json_t *object, const char *key, int64_t ns, int64_t ns_per_thousandth)
{
	int64_t thousandths = (ns + ns_per_thousandth / 2) / ns_per_thousandth;

	return put(object, key, json_real((double)thousandths / 1000));
}

bool put_frame(json_t *object, const char *filename, int line, const char *function)
{
	bool failed = put_string(object, "filename", filename);

	failed |= put_integer(object, "lineno", line);
	return failed | put_string(object, "function", function);
}

json_t *report_make_frame(const struct pl_frame *frame)
{
	json_t *item = json_object();

	if (!put_frame(item, frame->filename, frame->line, frame->function))
		return item;
	json_decref(item);
	return NULL;
}

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
