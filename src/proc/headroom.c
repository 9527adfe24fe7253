/* SPDX-License-Identifier: MIT */
#include "pyleak/headroom.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pyleak/cleanup.h"

enum { MAX_FILE = 65536 };

/* The names of the same things in both versions of cgroups. */
struct version {
	const char *mount; /* where distributions, Docker and Kubernetes have it */
	const char *limits[2], *usage;
	/* In memory.stat, what the kernel takes back before it kills: files that nobody has used lately, half of those that
	 * somebody has (of the others the program lives), and what the file systems remember of names. */
	const char *inactive, *active, *slab;
	const char *events; /* has the number of those that were killed: of the cgroup and below it (v1: of it alone) */
};

static const struct version unified = {"/sys/fs/cgroup", {"memory.max", "memory.high"}, "memory.current",
	"inactive_file ", "active_file ", "slab_reclaimable ", "memory.events"};
static const struct version hybrid = {"/sys/fs/cgroup/memory", {"memory.limit_in_bytes"}, "memory.usage_in_bytes",
	"total_inactive_file ", "total_active_file ", "total_slab_reclaimable ", "memory.oom_control"};

/* As parts of the limit, and not less or more than that. A process can allocate some MiB before the next look. */
#define CGROUP_FLOOR_MIN (UINT64_C(4) << 20)
#define MACHINE_FLOOR_MIN (UINT64_C(32) << 20)
#define FLOOR_MAX (UINT64_C(64) << 20)
enum { FLOOR_SHARE = 128 };

/* A small text file; -errno. */
static int read_text(const char *path, char *text, size_t size)
{
	pl_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, text, size - 1);

	if (length < 0)
		return -errno;
	text[length] = '\0';
	return 0;
}

/* The number that follows a name at the beginning of a line. */
static bool find_number(const char *text, const char *name, uint64_t *ret)
{
	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, name, strlen(name)) == 0)
			return sscanf(line + strlen(name), "%" SCNu64, ret) == 1;
	}
	return false;
}

static bool read_number(const char *folder, const char *name, uint64_t *ret)
{
	char path[PATH_MAX], text[64];

	if (snprintf(path, sizeof(path), "%s/%s", folder, name) >= (int)sizeof(path))
		return false;
	/* "max" is no number. */
	return read_text(path, text, sizeof(text)) == 0 && sscanf(text, "%" SCNu64, ret) == 1;
}

static uint64_t find_floor(uint64_t limit, uint64_t least)
{
	uint64_t floor = limit / FLOOR_SHARE;

	return floor < least ? least : floor < FLOOR_MAX ? floor : FLOOR_MAX;
}

/* What is nearest to its floor counts. */
static void take_least(struct pl_headroom *least, uint64_t limit, uint64_t used)
{
	uint64_t left = limit > used ? limit - used : 0, floor = find_floor(limit, CGROUP_FLOOR_MIN);

	if ((int64_t)(left - floor) < (int64_t)(least->left - least->floor))
		*least = (struct pl_headroom){.limit = limit, .left = left, .floor = floor, .cgroup = true, .kills = least->kills};
}

static uint64_t find_droppable(const struct version *version, const char *stat)
{
	uint64_t inactive = 0, active = 0, slab = 0;

	(void)find_number(stat, version->inactive, &inactive);
	(void)find_number(stat, version->active, &active);
	(void)find_number(stat, version->slab, &slab);
	return inactive + active / 2 + slab;
}

/* v1 has a number that no machine has for "unlimited". */
#define UNLIMITED (UINT64_C(1) << 60)

/* One cgroup, if it has a limit. */
static void look_into(const struct version *version, const char *folder, struct pl_headroom *least)
{
	uint64_t limit = UINT64_MAX, one, used, droppable = 0;
	char path[PATH_MAX];
	pl_autofree char *text = NULL;

	for (size_t i = 0; i < 2; i++)
		if (version->limits[i] && read_number(folder, version->limits[i], &one) && one < limit)
			limit = one;
	if (limit >= UNLIMITED || !read_number(folder, version->usage, &used))
		return;
	text = calloc(1, MAX_FILE);
	if (text && snprintf(path, sizeof(path), "%s/memory.stat", folder) < (int)sizeof(path) &&
		read_text(path, text, MAX_FILE) == 0)
		droppable = find_droppable(version, text);
	take_least(least, limit, used > droppable ? used - droppable : 0);
}

static uint64_t count_kills(const char *path)
{
	char text[1024] = "";
	uint64_t kills = 0;

	if (read_text(path, text, sizeof(text)) == 0)
		(void)find_number(text, "oom_kill ", &kills);
	return kills;
}

/* A cgroup and all around it. In a container its path may be that of the host, and only the last of these be there:
 * the mount itself, which is the container's own. */
static void look_around(const struct version *version, const char *root, char *path, struct pl_headroom *least)
{
	char folder[PATH_MAX];
	uint64_t kills = 0;

	/* Beyond the cgroup namespace that we are in: nothing below the mount is about it. */
	if (strstr(path, "/.."))
		return;
	for (char *slash = path + strlen(path); slash; slash = strrchr(path, '/')) {
		if (slash == path + strlen(path) &&
			snprintf(folder, sizeof(folder), "%s%s%s/%s", root, version->mount, path, version->events) < (int)sizeof(folder))
			kills = count_kills(folder);
		*slash = '\0';
		if (snprintf(folder, sizeof(folder), "%s%s%s", root, version->mount, path) < (int)sizeof(folder))
			look_into(version, folder, least);
	}
	least->kills += kills;
}

int pl_headroom_read(const char *root, pid_t pid, struct pl_headroom *ret)
{
	pl_autofree char *text = calloc(1, MAX_FILE);
	char path[PATH_MAX], *rest, *line;
	uint64_t total, available;
	int code;

	if (!text)
		return -ENOMEM;
	(void)snprintf(path, sizeof(path), "%s/proc/meminfo", root);
	code = read_text(path, text, MAX_FILE);
	if (code < 0)
		return code;
	if (!find_number(text, "MemTotal:", &total) || !find_number(text, "MemAvailable:", &available))
		return -EPROTO;
	*ret = (struct pl_headroom){
		.limit = total * 1024,
		.left = available * 1024,
		.floor = find_floor(total * 1024, MACHINE_FLOOR_MIN),
	};

	(void)snprintf(path, sizeof(path), "%s/proc/%d/cgroup", root, (int)pid);
	code = read_text(path, text, MAX_FILE);
	if (code < 0)
		return code;
	rest = text;
	while ((line = strsep(&rest, "\n"))) {
		/* "0::/path" or "4:memory:/path" */
		char *controllers = strchr(line, ':'), *folder = controllers ? strchr(controllers + 1, ':') : NULL;

		if (!folder || folder[1] != '/')
			continue;
		*folder = '\0';
		if (controllers[1] == '\0')
			look_around(&unified, root, folder + 1, ret);
		else if (strcmp(controllers + 1, "memory") == 0)
			look_around(&hybrid, root, folder + 1, ret);
	}
	return 0;
}
