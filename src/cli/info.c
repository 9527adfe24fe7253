/* SPDX-License-Identifier: MIT */
#include "info.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <time.h>

#include "json_text.h"
#include "pyleak/text.h"
#include "pyleak/units.h"

static void print_moment(FILE *out, const struct pl_facts *facts, int64_t after_ns)
{
	time_t at = facts->started.tv_sec + (time_t)((facts->started.tv_nsec + after_ns) / PL_NSEC_PER_SEC);
	char text[32] = "?";
	struct tm local;

	if (localtime_r(&at, &local))
		(void)strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &local);
	(void)fputs(text, out);
}

static struct pl_row sum(const struct pl_snapshot *snapshot)
{
	struct pl_row all = {.site = UINT32_MAX};

	for (size_t site = 0; site < snapshot->count; site++) {
		const struct pl_row row = {
			.size = pl_totals_size(&snapshot->totals[site]),
			.count = pl_totals_count(&snapshot->totals[site]),
		};

		if (pl_sites_domain(snapshot->sites, (uint32_t)site) < PL_SITE_OLDER)
			pl_row_add(&all, &row);
	}
	return all;
}

static void print_size(FILE *out, uint64_t bytes)
{
	char text[PL_SIZE_TEXT];

	pl_format_size((int64_t)bytes, false, text);
	(void)fputs(bytes ? text : "not known", out);
}

int pl_info_print(FILE *out, const struct pl_info *info)
{
	const struct pl_facts *facts = info->facts;
	const struct pl_row all = sum(info->last);
	char text[PL_SIZE_TEXT];

	pl_text_print(out, info->name);
	(void)fprintf(out, ": of process %d, Python %s%s\n", (int)facts->pid, facts->python[0] ? facts->python : "not known",
		info->per_process ? ", and others, kept apart" : "");
	(void)fputs("  recorded:  ", out);
	print_moment(out, facts, 0);
	(void)fputs(" to ", out);
	print_moment(out, facts, info->length_ns);
	pl_format_duration(info->length_ns, text);
	(void)fprintf(out, ", %s\n", text);
	pl_format_duration(info->first_ns, text);
	(void)fprintf(out, "  snapshots: %zu, the first after %s", info->snapshots, text);
	if (info->snapshots > 1) {
		pl_format_duration((info->length_ns - info->first_ns) / (int64_t)(info->snapshots - 1), text);
		(void)fprintf(out, ", then one each %s", text);
	}
	(void)fputs("\n  RSS:       ", out);
	print_size(out, facts->rss);
	(void)fputs(" at its start, ", out);
	print_size(out, info->last->rss);
	(void)fputs(" at its end\n", out);
	pl_format_size(all.size, false, text);
	(void)fprintf(out, "  live:      %s in %" PRId64 " blocks at its end\n", text, all.count);
	(void)fprintf(out, "  made with: --engine %s --frames %d --domain %s", facts->engine, facts->frames,
		facts->native ? "all" : "python");
	if (facts->sample)
		(void)fprintf(out, " --sample %" PRIu64, facts->sample);
	(void)fprintf(out, "\n  lost:      events=%" PRIu64 ", sites=%" PRIu64 "\n", info->last->losses.events, info->last->losses.sites);
	return ferror(out) ? -EIO : 0;
}

int pl_info_print_json(FILE *out, const struct pl_info *info)
{
	const struct pl_facts *facts = info->facts;
	const struct pl_row all = sum(info->last);
	char started[32] = "";
	struct tm utc;
	json_t *document;
	int code;

	if (gmtime_r(&facts->started.tv_sec, &utc))
		(void)strftime(started, sizeof(started), "%Y-%m-%dT%H:%M:%SZ", &utc);
	document = json_pack("{s:i, s:s, s:o, s:i, s:s, s:s, s:i, s:b, s:I, s:s, s:f, s:I, s:{s:I, s:I}, s:{s:I, s:I}, s:{s:I, s:I}}",
		"schema", 1, "kind", "recording", "file", pl_json_text(info->name), "pid", (int)facts->pid, "python", facts->python,
		"engine", facts->engine, "frames", facts->frames, "native", (int)facts->native, "sample", (json_int_t)facts->sample,
		"started", started, "length_s", round((double)info->length_ns / 1e6) / 1e3, "snapshots", (json_int_t)info->snapshots,
		"rss", "before", (json_int_t)facts->rss, "after", (json_int_t)info->last->rss, "total", "size", (json_int_t)all.size,
		"count", (json_int_t)all.count, "lost", "events", (json_int_t)info->last->losses.events, "sites",
		(json_int_t)info->last->losses.sites);
	if (!document)
		return -ENOMEM;
	code = json_dumpf(document, out, JSON_REAL_PRECISION(15)) < 0 || fputc('\n', out) == EOF ? -EIO : 0;
	json_decref(document);
	return code;
}
