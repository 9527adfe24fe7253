/* SPDX-License-Identifier: MIT */
#include "pyleak/holders_report.h"

int pl_holders_print(FILE *out, enum pl_format format, const struct pl_holders_report *report, bool color)
{
	switch (format) {
	case PL_FORMAT_JSON:
		return pl_holders_json(out, report);
	case PL_FORMAT_HTML:
		return pl_holders_html(out, report);
	case PL_FORMAT_FOLDED: case PL_FORMAT_PPROF:
		return pl_holders_stacks(out, report, format == PL_FORMAT_FOLDED);
	case PL_FORMAT_HEAPSNAPSHOT: /* was written while the graph was there */
		return 0;
	default:
		return pl_holders_text(out, report, color);
	}
}
