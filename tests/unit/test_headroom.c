/* SPDX-License-Identifier: MIT */
#include <criterion/criterion.h>

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pyleak/headroom.h"

#define MIB (UINT64_C(1) << 20)

static char root[] = "/tmp/pyleak-headroom-XXXXXX";

static void set_up(void)
{
	cr_assert_not_null(mkdtemp(root));
}

static void tear_down(void)
{
	char command[PATH_MAX];

	(void)snprintf(command, sizeof(command), "rm -rf '%s'", root);
	cr_assert_eq(system(command), 0);
}

TestSuite(headroom, .init = set_up, .fini = tear_down);

/* A file below the root, with the folders that it needs. */
static void put_file(const char *name, const char *text)
{
	char path[PATH_MAX];
	FILE *file;

	(void)snprintf(path, sizeof(path), "%s%s", root, name);
	for (char *slash = strchr(path + strlen(root) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		cr_assert(mkdir(path, 0755) == 0 || errno == EEXIST);
		*slash = '/';
	}
	file = fopen(path, "w");
	cr_assert_not_null(file);
	(void)fputs(text, file);
	cr_assert_eq(fclose(file), 0);
}

static void expect(bool cgroup, uint64_t limit, uint64_t left)
{
	struct pl_headroom headroom;

	cr_assert_eq(pl_headroom_read(root, 7, &headroom), 0);
	cr_assert_eq(headroom.limit, limit, "%lu", (unsigned long)headroom.limit);
	cr_assert_eq(headroom.left, left, "%lu", (unsigned long)headroom.left);
	cr_assert_eq(headroom.cgroup, cgroup);
}

static const char meminfo[] = "MemTotal:        4194304 kB\nMemFree:          102400 kB\nMemAvailable:    2097152 kB\n";

Test(headroom, the_machine)
{
	put_file("/proc/meminfo", meminfo);
	put_file("/proc/7/cgroup", "0::/\n");
	expect(false, 4096 * MIB, 2048 * MIB);
	put_file("/proc/7/cgroup", "9:name=systemd:/x\n4:memory:/\n0::/\n");
	put_file("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
	put_file("/sys/fs/cgroup/memory/memory.usage_in_bytes", "104857600\n");
	expect(false, 4096 * MIB, 2048 * MIB);
}

Test(headroom, version_2)
{
	put_file("/proc/meminfo", meminfo);
	put_file("/proc/7/cgroup", "0::/pods/web\n");
	put_file("/sys/fs/cgroup/pods/web/memory.max", "max\n");
	put_file("/sys/fs/cgroup/pods/web/memory.current", "104857600\n");
	expect(false, 4096 * MIB, 2048 * MIB);
	/* That around it is nearer; the page cache in it can be dropped, what is in use cannot. */
	put_file("/sys/fs/cgroup/pods/memory.max", "536870912\n");
	put_file("/sys/fs/cgroup/pods/memory.current", "314572800\n");
	put_file("/sys/fs/cgroup/pods/memory.stat", "anon 5\nfile 104857600\ninactive_file 52428800\nactive_file 1\n");
	expect(true, 512 * MIB, 262 * MIB);
	put_file("/sys/fs/cgroup/pods/web/memory.max", "209715200\n");
	expect(true, 200 * MIB, 100 * MIB);
	/* Over its limit already, for the moment. */
	put_file("/sys/fs/cgroup/pods/web/memory.current", "209719296\n");
	expect(true, 200 * MIB, 0);
}

Test(headroom, version_1)
{
	put_file("/proc/meminfo", meminfo);
	put_file("/proc/7/cgroup", "4:memory:/docker/abc\n1:name=systemd:/docker/abc\n");
	put_file("/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "209715200\n");
	put_file("/sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", "157286400\n");
	put_file("/sys/fs/cgroup/memory/docker/abc/memory.stat", "inactive_file 1\ntotal_inactive_file 52428800\n");
	expect(true, 200 * MIB, 100 * MIB);
}

/* Above memory.high a process hardly runs any more. What the kernel takes back first counts as free. */
Test(headroom, high_and_droppable)
{
	put_file("/proc/meminfo", meminfo);
	put_file("/proc/7/cgroup", "0::/a\n");
	put_file("/sys/fs/cgroup/a/memory.max", "419430400\n");
	put_file("/sys/fs/cgroup/a/memory.high", "209715200\n");
	put_file("/sys/fs/cgroup/a/memory.current", "188743680\n");
	expect(true, 200 * MIB, 20 * MIB);
	put_file("/sys/fs/cgroup/a/memory.max", "max\n");
	put_file("/sys/fs/cgroup/a/memory.stat", "inactive_file 10485760\nactive_file 20971520\nslab_reclaimable 31457280\n");
	expect(true, 200 * MIB, 70 * MIB);
	put_file("/sys/fs/cgroup/a/memory.high", "max\n");
	expect(false, 4096 * MIB, 2048 * MIB);
}

/* What is nearest to its floor counts, not what has the least: a machine with 70 MiB left is in greater need than a cgroup
 * with 60. */
Test(headroom, floors)
{
	struct pl_headroom headroom;

	put_file("/proc/meminfo", "MemTotal: 67108864 kB\nMemAvailable: 71680 kB\n");
	put_file("/proc/7/cgroup", "0::/a\n");
	put_file("/sys/fs/cgroup/a/memory.max", "104857600\n");
	put_file("/sys/fs/cgroup/a/memory.current", "41943040\n");
	cr_assert_eq(pl_headroom_read(root, 7, &headroom), 0);
	cr_assert(!headroom.cgroup && headroom.left == 70 * MIB && headroom.floor == 64 * MIB);
	put_file("/sys/fs/cgroup/a/memory.current", "99614720\n");
	cr_assert_eq(pl_headroom_read(root, 7, &headroom), 0);
	cr_assert(headroom.cgroup && headroom.left == 5 * MIB && headroom.floor == 4 * MIB);
}

/* In a container the path can be the host's, while the mount is the container's own. */
Test(headroom, in_a_container)
{
	put_file("/proc/meminfo", meminfo);
	put_file("/proc/7/cgroup", "0::/system.slice/docker-abc.scope\n");
	put_file("/sys/fs/cgroup/memory.max", "209715200\n");
	put_file("/sys/fs/cgroup/memory.current", "104857600\n");
	expect(true, 200 * MIB, 100 * MIB);
	/* Another container's, seen from ours. */
	put_file("/proc/7/cgroup", "0::/../other\n");
	expect(false, 4096 * MIB, 2048 * MIB);
}

Test(headroom, errors)
{
	struct pl_headroom headroom;

	cr_assert_eq(pl_headroom_read(root, 7, &headroom), -ENOENT);
	put_file("/proc/meminfo", "MemTotal: 5 kB\n");
	cr_assert_eq(pl_headroom_read(root, 7, &headroom), -EPROTO);
	put_file("/proc/meminfo", meminfo);
	cr_assert_eq(pl_headroom_read(root, 7, &headroom), -ENOENT);
	put_file("/proc/7/cgroup", "nonsense\n4:memory\n4:memory:relative\n\n");
	expect(false, 4096 * MIB, 2048 * MIB);
}

Test(headroom, of_this_machine)
{
	struct pl_headroom headroom;

	cr_assert_eq(pl_headroom_read("", getpid(), &headroom), 0);
	cr_assert_gt(headroom.limit, MIB);
	cr_assert_leq(headroom.left, headroom.limit);
}
