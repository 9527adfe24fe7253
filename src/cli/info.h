/* SPDX-License-Identifier: MIT */
#ifndef PYLEAK_CLI_INFO_H
#define PYLEAK_CLI_INFO_H

#include <stdio.h>

#include "pyleak/facts.h"
#include "pyleak/stats.h"

/* What `report --info` says of a recording. */
struct pl_info {
	const char *name;
	const struct pl_facts *facts;
	int64_t first_ns, length_ns; /* of its first and last snapshot, since the start */
	size_t snapshots;            /* at least one */
	const struct pl_snapshot *last;
	bool per_process; /* processes are kept apart */
};

/* 0 or -errno. */
int pl_info_print(FILE *out, const struct pl_info *info);
/* One document on one line. */
int pl_info_print_json(FILE *out, const struct pl_info *info);

#endif
