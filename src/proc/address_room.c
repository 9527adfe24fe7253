/* SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "pyleak/cleanup.h"
#include "pyleak/maps.h"

/* The first number behind `key` in a file of "key   number …" lines; `missing` if there is none. */
static uint64_t number_behind(const char *path, const char *key, uint64_t missing)
{
	pl_autofclose FILE *file = fopen(path, "re");
	char line[256];
	uint64_t number;

	while (file && fgets(line, sizeof(line), file))
		if (strncmp(line, key, strlen(key)) == 0)
			return sscanf(line + strlen(key), "%" SCNu64, &number) == 1 ? number : missing;
	return missing;
}

static uint64_t minus(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

uint64_t pl_address_space_left(pid_t pid)
{
	char limits[64], status[64];

	snprintf(limits, sizeof(limits), "/proc/%d/limits", (int)pid);
	snprintf(status, sizeof(status), "/proc/%d/status", (int)pid);

	uint64_t limit = number_behind(limits, "Max address space", UINT64_MAX); /* "unlimited" */
	uint64_t left = limit == UINT64_MAX ? limit : minus(limit, number_behind(status, "VmSize:", 0) * 1024);
	uint64_t promised = UINT64_MAX;

	/* vm.overcommit_memory 2: the kernel promises no more than it could give, MAP_NORESERVE or not. */
	if (number_behind("/proc/sys/vm/overcommit_memory", "", 0) == 2)
		promised = minus(number_behind("/proc/meminfo", "CommitLimit:", 0),
				   number_behind("/proc/meminfo", "Committed_AS:", 0)) * 1024;
	return left < promised ? left : promised;
}
