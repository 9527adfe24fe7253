/* SPDX-License-Identifier: MIT */
#include "pyleak/report.h"

static char *line_of(void *context, const char *filename, int line)
{
	const pid_t *pid = context;

	return pl_source_line(*pid, filename, line);
}

const struct pl_cause *pl_known_cause(const struct pl_sites *sites, uint32_t site, pid_t source_pid)
{
	const struct pl_causes *known = pl_causes_default();
	size_t count;
	const struct pl_frame *frames = pl_sites_frames(sites, site, &count, NULL);

	return known ? pl_causes_find(known, frames, count, source_pid ? line_of : NULL, &source_pid) : NULL;
}
