/* SPDX-License-Identifier: MIT */
#include "rights.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "process_private.h"
#include "pyleak/cleanup.h"

/* Of struct __user_cap_data_struct[0]. */
#define READS_ANYTHING (1U << CAP_DAC_OVERRIDE | 1U << CAP_DAC_READ_SEARCH)

/* Of one thread: the C library's functions of these names change them all. */
static long set_groups(size_t count, const gid_t *groups)
{
	return syscall(SYS_setgroups, count, groups);
}

/* Tells nothing of success: who asks again for what cannot be is told what is. */
static unsigned int set_id(long call, unsigned int id)
{
	return (unsigned int)syscall(call, id);
}

static unsigned int get_id(long call)
{
	return set_id(call, UINT32_MAX);
}

static int read_groups(const char *status, gid_t **ret, size_t *ret_count)
{
	const char *at = pl_proc_field(status, "Groups");
	gid_t *groups = calloc(PL_RIGHTS_GROUPS_MAX, sizeof(*groups));

	*ret_count = 0;
	*ret = groups;
	if (!groups)
		return -ENOMEM;
	while (at && *at != '\n' && *ret_count < PL_RIGHTS_GROUPS_MAX) {
		char *end;
		unsigned long group = strtoul(at, &end, 10);

		if (end == at)
			break;
		groups[(*ret_count)++] = (gid_t)group;
		at = end + strspn(end, " \t");
	}
	return 0;
}

static int capabilities(long call, struct __user_cap_data_struct data[2])
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};

	return syscall(call, &header, data) < 0 ? -errno : 0;
}

static int drop(struct pl_rights *own)
{
	struct __user_cap_data_struct data[2];
	int code = capabilities(SYS_capget, data);

	if (code < 0 || !(data[0].effective & READS_ANYTHING))
		return code;
	own->dropped = data[0].effective & READS_ANYTHING;
	data[0].effective &= ~READS_ANYTHING;
	return capabilities(SYS_capset, data);
}

/* The fourth number: that for files. */
static bool file_id(const char *status, const char *name, unsigned int *ret)
{
	const char *ids = pl_proc_field(status, name);

	return ids && sscanf(ids, "%*u %*u %*u %u", ret) == 1;
}

static int change(const char *status, struct pl_rights *own)
{
	pl_autofree gid_t *groups = NULL;
	unsigned int user, group;
	size_t count;
	int code = read_groups(status, &groups, &count);

	if (code < 0)
		return code;
	if (!file_id(status, "Uid", &user) || !file_id(status, "Gid", &group))
		return -EPROTO;
	/* A user's own processes have his rights, and nobody else's is opened for with them. */
	if (geteuid() != 0)
		return user == own->user ? 0 : -EPERM;
	own->changed = true;
	if (set_groups(count, groups) < 0)
		return -EPERM;
	(void)set_id(SYS_setfsgid, group);
	/* One of root's processes may have given up more than its number says. */
	if (user == own->user && !(pl_proc_number(status, "CapEff", 16) & READS_ANYTHING))
		code = drop(own);
	/* The kernel takes the same capabilities from who is not root for files any more. */
	(void)set_id(SYS_setfsuid, user);
	if (code == 0 && (get_id(SYS_setfsuid) != user || get_id(SYS_setfsgid) != group))
		code = -EPERM;
	return code;
}

int pl_rights_put_on(pid_t pid, struct pl_rights *own)
{
	pl_autofree char *status = malloc(PL_PROC_STATUS_BYTES);
	ssize_t length;
	int count = getgroups(0, NULL), code;

	*own = (struct pl_rights){.user = get_id(SYS_setfsuid), .group = get_id(SYS_setfsgid)};
	own->groups = calloc(count > 0 ? (size_t)count : 1, sizeof(*own->groups));
	if (!status || !own->groups || count < 0)
		return -ENOMEM;
	count = getgroups(count, own->groups);
	if (count < 0)
		return -errno;
	own->group_count = (size_t)count;
	own->dumpable = prctl(PR_GET_DUMPABLE) == 1;
	length = pl_proc_read(pid, "status", status, PL_PROC_STATUS_BYTES);
	code = length < 0 ? (int)length : change(status, own);
	if (code < 0)
		pl_rights_take_off(own);
	return code;
}

void pl_rights_take_off(struct pl_rights *own)
{
	struct __user_cap_data_struct data[2];

	if (own->changed) {
		(void)set_id(SYS_setfsuid, own->user);
		if (own->dropped && capabilities(SYS_capget, data) == 0) {
			data[0].effective |= own->dropped;
			(void)capabilities(SYS_capset, data);
		}
		(void)set_id(SYS_setfsgid, own->group);
		(void)set_groups(own->group_count, own->groups);
		if (own->dumpable)
			(void)prctl(PR_SET_DUMPABLE, 1);
	}
	free(own->groups);
	*own = (struct pl_rights){0};
}
