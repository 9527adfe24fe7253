/* SPDX-License-Identifier: MIT */
#include <stdlib.h>

#include "pyleak/cleanup.h"
#include "pyleak/process.h"
#include "pyleak/report.h"

static char *line_of(void *context, const char *filename, int line)
{
	const pid_t *pid = context;

	return pl_source_line(*pid, filename, line);
}

struct pl_cause_facts pl_cause_facts_read(pid_t pid, const char *python)
{
	struct pl_cause_facts facts = {.python = python ? pl_causes_version(python) : 0};
	pl_autofree pid_t *tids = NULL;
	size_t count;

	if (pid && pl_process_threads(pid, &tids, &count) == 0)
		facts.threads = (int)count;
	return facts;
}

const struct pl_cause *pl_known_cause(
	const struct pl_sites *sites, uint32_t site, const struct pl_cause_facts *facts, pid_t source_pid)
{
	const struct pl_causes *known = pl_causes_default();
	size_t count;
	const uint32_t *numbers = pl_sites_trace(sites, site, &count, NULL);
	pl_autofree struct pl_frame *frames = calloc(count, sizeof(*frames));

	for (size_t i = 0; frames && i < count; i++)
		frames[i] = *pl_sites_frame(sites, numbers[i]);
	return known && frames ? pl_causes_find(known, facts, frames, count, source_pid ? line_of : NULL, &source_pid) : NULL;
}
