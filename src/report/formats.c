/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "pyleak/report.h"

static const struct pl_report_format formats[PL_FORMAT_COUNT] = {
	[PL_FORMAT_TEXT] = {"text", pl_report_text, .suffix = ".txt", .repeats = true},
	[PL_FORMAT_JSON] = {"json", pl_report_json, .suffix = ".json", .repeats = true},
	[PL_FORMAT_CSV] = {"csv", pl_report_csv, .suffix = ".csv"},
	[PL_FORMAT_FOLDED] = {"folded", pl_report_folded, .suffix = ".folded", .stacks = true},
	[PL_FORMAT_SPEEDSCOPE] = {"speedscope", pl_report_speedscope, .suffix = ".speedscope.json", .stacks = true},
	[PL_FORMAT_PPROF] = {"pprof", pl_report_pprof, .suffix = ".pb.gz", .stacks = true, .binary = true},
	[PL_FORMAT_HTML] = {"html", pl_report_html, .suffix = ".html", .stacks = true, .snapshots = true},
	[PL_FORMAT_OPENMETRICS] = {"openmetrics", pl_report_openmetrics, .suffix = ".prom"},
	[PL_FORMAT_HEAPSNAPSHOT] = {"heapsnapshot", NULL, .suffix = ".heapsnapshot"},
	[PL_FORMAT_RECORDING] = {"recording", NULL, .suffix = ".pyleak", .repeats = true, .binary = true, .snapshots = true},
};

const struct pl_report_format *pl_report_format(enum pl_format format)
{
	return &formats[format];
}

enum pl_format pl_report_format_of_file(const char *name)
{
	enum pl_format found = PL_FORMAT_TEXT;
	size_t length = strlen(name), longest = 0;

	for (enum pl_format format = 0; format < PL_FORMAT_COUNT; format++) {
		const char *suffix = formats[format].suffix;
		size_t size = suffix ? strlen(suffix) : 0;

		/* ".speedscope.json" before ".json" */
		if (size > longest && length > size && strcmp(name + length - size, suffix) == 0) {
			found = format;
			longest = size;
		}
	}
	return found;
}
