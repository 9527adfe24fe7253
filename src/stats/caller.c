/* SPDX-License-Identifier: MIT */
#include <ctype.h>
#include <string.h>

#include "pyleak/stats.h"

/* A folder of the standard library, such as "/usr/lib/python3.11/" or, zipped, "/usr/lib64/python311.zip/". */
static bool is_below(const char *filename, const char *folder)
{
	const char *found = filename;

	while ((found = strstr(found, folder))) {
		found += strlen(folder);
		if (isdigit((unsigned char)*found))
			return true;
	}
	return false;
}

bool pl_is_library(const char *filename)
{
	return filename[0] == '<' || strstr(filename, "/site-packages/") || strstr(filename, "/dist-packages/") ||
	       is_below(filename, "/lib/python") || is_below(filename, "/lib64/python");
}

const struct pl_frame *pl_row_caller(const struct pl_sites *sites, const struct pl_row *row)
{
	size_t count;
	const uint32_t *numbers = pl_sites_trace(sites, row->site, &count, NULL);
	const struct pl_frame *without_file = NULL;

	if (!pl_is_library(row->filename))
		return NULL;
	for (size_t i = 0; i < count; i++) {
		const struct pl_frame *frame = pl_sites_frame(sites, numbers[i]);

		if (!pl_is_library(frame->filename))
			return frame;
		if (!without_file && frame->filename[0] == '<' && strncmp(frame->filename, "<frozen ", 8) != 0 &&
			row->filename[0] != '<')
			without_file = frame;
	}
	return without_file;
}
